import io
import re

import numpy as np
import pytest
from PIL import Image

from vitrail.errors import SettingError
from vitrail.evaluation.evaluator import Evaluation
from vitrail.evaluation.plots import colours, curves_plot, intervals_plot, slices_plot, tradeoff_plot
from vitrail.evaluation.protocol import PROTOCOLS
from vitrail.evaluation.report import number, picture, write_report

NASTY = '<script>alert("1 $x^2$")</script>'


def made(system, mean, **more):
    rng = np.random.default_rng(len(system))
    values = np.clip(rng.normal(mean, 0.1, 300), 0, 1)
    metrics = {"ndcg@10": float(values.mean()), "recall@10": mean, "coverage@10": 0.5, "novelty@10": 8 + mean, "popularity_lift@10": -0.2}
    sizes = {"popularity:head": 200.0, "popularity:tail": 9.0, "history:1-5": 300.0}
    slices = {name: {"users": users, "ndcg@10": mean} for name, users in sizes.items()}
    given = {"data": "shop", "fingerprint": "f", "part": "test", "protocol": PROTOCOLS["ratio"], "seconds": 1.0, "slices": slices, **more}
    found = Evaluation(system=system, users=300, metrics=metrics, ci={"ndcg@10": (mean - 0.01, mean + 0.01), "recall@10": (0.0, 0.9)}, **given)
    found._values["ndcg@10"] = values
    found._user_codes = np.arange(300)
    return found


def png(colour):
    data = io.BytesIO()
    Image.new("RGBA", (300, 200), colour).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "broken.png").write_bytes(b"not a picture")
    bare = [{"item": "i2", "image": folder / "broken.png"}, {"item": "i3", "image": folder / "absent.png"}]
    shown = {"item": "i1", "title": NASTY, "price": 9.5, "image": png((200, 30, 60, 128)), "note": "lipstick"}
    write_report(
        folder / "page.html",
        [made("popular", 0.1, warnings=["Only 300 test queries."]), made(NASTY, 0.4)],
        describe={"users": 1234, "items": 10, "events": 99, "density": 0.08, "events_per_user": {"median": 3.0}, "span": None},
        curves={NASTY: [{"epoch": n + 1, "loss": 1 / (n + 1), "ndcg@10": 0.1 * n} for n in range(4)]},
        showcase={"user": "u&1", "history": [shown], "recommended": {"popular": bare}},
    )
    return (folder / "page.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(page):
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "@import" not in page and "url(http" not in page and "<script" not in page
    assert page.count("data:image/jpeg;base64,") == 1


def test_text_from_outside_stays_text(page):
    assert "&lt;script&gt;alert" in page and "u&amp;1" in page


def test_the_page_says_what_it_should(page):
    assert "leads with NDCG@10" in page and "more than chance" in page
    assert "1,234" in page and "Only 300 test queries." in page and "9.50 · lipstick" in page
    assert PROTOCOLS["ratio"].describe() in page
    assert page.count('role="img"') == 8  # two means, two slices, two trade-offs, two curves
    assert page.index("&lt;script") < page.index('"></span>popular')  # best first


def test_figures_do_not_share_names(page):
    ids = re.findall(r' id="([^"]+)"', page)
    assert not [name for name in ids if re.fullmatch(r"(figure|axes|text|patch|line2d)_\d+", name)]


def test_one_system_without_intervals_or_extras(tmp_path):
    alone = made("popular", 0.1, slices={}).model_copy(update={"ci": {}})
    page = write_report(tmp_path / "one.html", [alone]).read_text(encoding="utf-8")
    assert "popular reaches NDCG@10" in page and "Which differences" not in page and "For whom" not in page


def test_what_does_not_belong_together_writes_nothing(tmp_path):
    with pytest.raises(SettingError, match="fingerprints"):
        write_report(tmp_path / "page.html", [made("a", 0.1), made("b", 0.1, fingerprint="g")])
    with pytest.raises(SettingError, match="nothing to compare"):
        write_report(tmp_path / "page.html", [])
    assert not list(tmp_path.iterdir())


def test_plots_of_what_was_not_measured_are_left_out():
    pair = [made("a", 0.1), made("b", 0.2)]
    assert tradeoff_plot([pair[0].model_copy(update={"metrics": {"ndcg@10": 0.1}})], "ndcg@10") is None
    assert slices_plot([made("a", 0.1, slices={})], "history", "ndcg@10") is None
    assert curves_plot({"a": [{"epoch": 1, "loss": 2.0}]}, "loss") is None
    axes = intervals_plot(pair, "ndcg@10").axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b"]


def test_many_systems_still_have_colours():
    names = [str(n) for n in range(12)]
    assert len(colours(names)) == 12 and len(set(list(colours(names).values())[:7])) == 7


def test_numbers_as_people_read_them():
    assert number("coverage@10", 0.512) == "51.2 %" and number("popularity_lift@10", -0.2) == "−20 %" and number("ndcg@10", 0.05) == "0.0500"


def test_pictures_are_made_small():
    coded = picture(png((10, 200, 30, 255)))
    assert coded is not None and len(coded) < 8000
    assert picture(None) is None and picture(b"\x89PNG\r\n\x1a\nbroken") is None
