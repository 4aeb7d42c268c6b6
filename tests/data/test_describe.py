"""Facts of a data set against hand counts, on odd data sets, and the figures drawn from them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.describe import describe
from vitrail.data.plots import draw
from vitrail.data.schema import DatasetInfo
from vitrail.data.simulate import SimulatorSettings, simulate
from vitrail.errors import SettingError
from vitrail.evaluation.metrics import gini

START = datetime(2023, 5, 1, tzinfo=UTC)


def made(folder: Path, pairs: list[tuple[str, str]], *, items: pl.DataFrame | None = None, info: dict[str, Any] | None = None, **columns: object) -> Dataset:
    events = pl.DataFrame(pairs, schema={"user": pl.String, "item": pl.String}, orient="row").with_columns(**{k: pl.Series(v) for k, v in columns.items()})
    order = "timestamp" if "timestamp" in columns else "none"
    return write_dataset(folder, DatasetInfo.of({"name": "made", "order": order, **(info or {})}), events, items)


@pytest.fixture
def small(tmp_path: Path) -> Dataset:
    """Five events of three users on a catalogue of four items, one repeat, one item never met."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x")
    items = pl.DataFrame(
        {
            "item": ["a", "b", "c", "d"],
            "title": ["A lamp", " ", None, "A pen"],
            "image": ["pictures/a.png", "pictures/gone.png", None, "https://example.org/d.png"],
            "tags": [["x", "y"], [], None, ["x"]],
            "price": [1.0, float("nan"), None, 4.0],
        }
    )
    return made(
        tmp_path / "data",
        [("u", "a"), ("u", "a"), ("u", "b"), ("v", "a"), ("w", "c")],
        items=items,
        info={"image_root": str(tmp_path), "columns": {"items": {"title": "text", "image": "image", "tags": "categories", "price": "number"}}},
        timestamp=[START + timedelta(days=d) for d in (0, 1, 2, 19, 20)],
        event=["view", "buy", "view", "view", "cart"],
    )


def test_facts_equal_hand_counts(small: Dataset) -> None:
    facts = describe(small)
    assert (facts.users, facts.items, facts.events) == (3, 4, 5)
    assert facts.density == pytest.approx(4 / 12)
    assert facts.repeats_share == pytest.approx(1 / 5)
    assert facts.span is not None
    assert (facts.span.first, facts.span.days) == ("2023-05-01T00:00:00+00:00", 20.0)
    assert facts.events_by_type == {"view": 3, "buy": 1, "cart": 1}
    spread = facts.events_per_user
    assert (spread.min, spread.median, spread.mean, spread.max) == (1, 1, pytest.approx(5 / 3), 3)
    assert facts.events_per_item.max == 3
    assert facts.popularity.top_1pct_share == facts.popularity.top_10pct_share == pytest.approx(3 / 5)
    head, mid, tail = facts.popularity.head, facts.popularity.mid, facts.popularity.tail
    assert (head.items, mid.items, tail.items) == (1, 2, 1)
    assert (head.events_share, mid.events_share, tail.events_share) == pytest.approx((0.6, 0.4, 0.0))
    assert facts.cold.items_without_events == 1
    assert facts.cold.users_with_one_event == 2
    assert facts.cold.items_only_in_last_tenth == 1
    assert facts.cold.users_only_in_last_tenth == 2


def test_coverage_wants_something_to_be_there(small: Dataset) -> None:
    facts = describe(small)
    assert facts.text_coverage is not None
    assert (facts.text_coverage.items, facts.text_coverage.events) == (0.5, 0.6)
    assert facts.picture_coverage is not None
    assert (facts.picture_coverage.items, facts.picture_coverage.events, facts.picture_coverage.missing_files) == (0.5, 0.6, 1)
    items = {name: (fact.kind, fact.coverage, fact.distinct) for name, fact in facts.attributes["items"].items()}
    assert items == {"title": ("text", 0.5, 2), "image": ("image", 0.75, 3), "tags": ("categories", 0.5, 2), "price": ("number", 0.5, 2)}
    assert facts.attributes["interactions"] == {}


def test_gini_equals_the_metric_and_its_bounds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 30, 200) ** 2 // 30
    catalogue = pl.DataFrame({"item": [str(i) for i in range(40)]})
    facts = describe(made(tmp_path / "a", [(str(k), str(i)) for k, i in enumerate(codes)], items=catalogue))
    assert facts.popularity.gini == pytest.approx(gini(codes, 40))
    even = describe(made(tmp_path / "b", [(str(u), str(i)) for u in range(3) for i in range(5)]))
    assert even.popularity.gini == pytest.approx(0.0)
    assert even.density == 1.0


def test_predefined_parts_and_untimed_events(tmp_path: Path) -> None:
    times = [START, START + timedelta(days=1), None, None, None]
    pairs = [("u", "a"), ("v", "b"), ("u", "c"), ("v", "a"), ("w", "c")]
    data = made(
        tmp_path / "data", pairs, info={"predefined": True, "timed_parts": ["train"]},
        timestamp=times, part=["train", "train", "valid", "test", "test"],
    )  # fmt: skip
    facts = describe(data)
    assert facts.parts == {"train": 2, "test": 2, "valid": 1}
    assert facts.span is not None
    assert facts.span.untimed == 3
    valid, test = facts.cold.parts["valid"], facts.cold.parts["test"]
    assert (valid.cold_items, valid.events_on_cold_items, valid.cold_users) == (1, 1.0, 0)
    assert (test.cold_items, test.events_on_cold_items, test.cold_users, test.events_of_cold_users) == (1, 0.5, 1, 0.5)
    assert draw(data, tmp_path / "plots")


def one_event(folder: Path) -> Dataset:
    return made(folder, [("u", "a")], timestamp=[START])


def no_clock(folder: Path) -> Dataset:
    return made(folder, [("u", "a"), ("u", "b"), ("v", "a")])


def no_events(folder: Path) -> Dataset:
    return made(folder, [], items=pl.DataFrame({"item": ["a"], "title": ["x"]}), info={"columns": {"items": {"title": "text"}}})


def whole_days(folder: Path) -> Dataset:
    return made(folder, [("u", str(d)) for d in range(100)], timestamp=[START + timedelta(days=d) for d in range(100)])


def strange_names(folder: Path) -> Dataset:
    items = pl.DataFrame({"item": ["a"], "$x_{$": ["v"], "价格": [1.0], "n" * 200: [True]})
    return made(folder, [("u", "a")], items=items)


@pytest.mark.parametrize(
    ("make", "figures"),
    [
        (one_event, ["events-per-user", "popularity"]),
        (no_clock, ["events-per-user", "popularity"]),
        (no_events, []),
        (whole_days, ["events-per-user", "popularity", "events-over-time"]),
        (strange_names, ["events-per-user", "popularity", "attributes"]),
    ],
)
def test_odd_data_are_described_and_drawn(tmp_path: Path, make: Callable[[Path], Dataset], figures: list[str]) -> None:
    data = make(tmp_path / "data")
    facts = describe(data)
    assert json.loads(json.dumps(facts.model_dump(), allow_nan=False))["events"] == data.interactions.height
    assert [path.name for path in draw(data, tmp_path / "plots")] == [f"{name}.png" for name in figures]


def test_simulated_shop_is_described_and_drawn_alike_twice(tmp_path: Path) -> None:
    shop = simulate(tmp_path / "shop", settings=SimulatorSettings(users=200, items=100, events=3_000))
    facts = describe(shop)
    assert facts.text_coverage is not None
    assert facts.picture_coverage is not None
    assert (facts.text_coverage.items, facts.picture_coverage.items, facts.picture_coverage.missing_files) == (1.0, 1.0, 0)
    assert facts.repeats_share < 0.1
    assert facts.span is not None
    assert 300 < facts.span.days <= 365
    one, two = draw(shop, tmp_path / "one", "svg"), draw(shop, tmp_path / "two", "svg")
    assert [path.stem for path in one] == ["events-per-user", "popularity", "events-over-time", "week", "attributes"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert "Popularity of items</text>" in one[1].read_text(encoding="utf-8"), "text in SVG must stay text"
    assert not list((tmp_path / "one").glob(".*")), "no temporary file may stay"
    with pytest.raises(SettingError, match='no picture format "pgn"'):
        draw(shop, tmp_path / "three", "pgn")  # type: ignore[arg-type]
    assert not (tmp_path / "three").exists()


@pytest.mark.data
def test_movielens_100k(tmp_path: Path) -> None:
    """The published facts of the set: 943 users, 1,682 films, 100,000 ratings, at least 20 a user, September 1997 to April 1998."""
    folder = Path(os.environ.get("VITRAIL_DATA", Path(__file__).parents[2] / "../shared/data")) / "ml-100k"
    if not folder.exists():
        pytest.skip(f"no ml-100k under {folder.parent}")
    types = {"user": pl.String, "item": pl.String, "value": pl.Float64, "timestamp": pl.Float64}
    table = pl.read_csv(folder / "ml-100k.inter", separator="\t", new_columns=list(types), schema_overrides=list(types.values()))
    table = table.with_columns(pl.from_epoch(pl.col("timestamp").cast(pl.Int64)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
    data = write_dataset(tmp_path / "ml", DatasetInfo(name="ml-100k", order="timestamp"), table)
    facts = describe(data)
    assert (facts.users, facts.items, facts.events) == (943, 1682, 100_000)
    assert facts.density == pytest.approx(0.063, abs=5e-4)
    assert facts.events_per_user.min == 20
    assert facts.repeats_share == 0
    assert facts.span is not None
    assert (facts.span.first[:10], facts.span.last[:10]) == ("1997-09-20", "1998-04-22")
    assert facts.popularity.head.events_share >= 0.5
    assert len(draw(data, tmp_path / "plots")) == 4


def test_drawing_changes_no_global_style(small: Dataset, tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw(small, tmp_path / "plots")
    assert dict(mpl.rcParams) == before
