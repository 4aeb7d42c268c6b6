import pytest

from vitrail.evaluation.plots import curves_plot
from vitrail.lab.beside_page import apart, content_table, pictures, rare_table, sections, splits_table
from vitrail.lab.resplit import order_of
from vitrail.lab.worth import ANEW

NAMES = ("vbpr", "item-knn", "bm3")


def made(*, retrain=False, cold=True):
    whole = {"vbpr": 0.3, "bm3": 0.1}
    slices = {"popularity:tail": {"users": 40, "recall@20": 0.05}, **({"items:cold": {"users": 4, "recall@20": 0.02}} if cold else {})}
    rows = [
        {"system": name, "what": what, "kind": "text", "level": level, "mean": value * left, "sd": 0.01, "share": left, "n": 2, "cut": what == ANEW}
        for name, value in whole.items()
        for what, level, left in (("without", 1.0, 0.5), ("missing", 0.5, 0.75), ("noise", 1.0, 0.9), *([(ANEW, 1.0, 0.8)] if retrain else []))
        if (name, what) != ("bm3", "noise")
    ]
    content = {
        "metric": "recall@20", "kinds": {name: ["text"] for name in whole}, "missing": [0.5], "noise": [1.0], "retrain": retrain, "whole": whole,
        "rows": rows, "still": [], "failed": {}, "late": {}, "sentences": ["Content is read."],
    }  # fmt: skip
    cells = [
        {"system": name, "condition": place, "mean": 0.3 - 0.1 * rank, "rank": rank + 1, "cut": place == 1 and name == "bm3"}
        for place, order in enumerate((NAMES, NAMES[:0:-1])) for rank, name in enumerate(order)
    ]  # fmt: skip
    conditions = [{"split": text, "queries": 1200, "protocol": "", "events": 9, "fits": 1} for text in ("mmrec_random", "temporal:test=0.2")]
    orders = [order_of(0, 1, cells)]
    splits = {"metric": "recall@20", "conditions": conditions, "rows": cells, "orders": orders, "late": [], "failed": [], "sentences": ["The order turns."]}
    systems = [{"system": name, "mean": {"recall@20": 0.3 - 0.1 * n}, "slices": slices, "cold_items": name == "vbpr"} for n, name in enumerate(NAMES)]
    return {"metric": "recall@20", "systems": systems, "content": content, "splits": splits}


def test_rare_and_cold_items_only_for_systems_that_can():
    head, rows = rare_table(made())
    assert head == ["System", "Recall@20, all targets", "tail (40)", "cold (4)"]
    assert rows[0] == ["vbpr", "0.3000", "0.0500", "0.0200"] and rows[1][-1] == "cannot"
    assert rare_table(made(cold=False))[0][-1] == "tail (40)"
    none = made()
    assert rare_table({**none, "systems": [{**row, "cold_items": False} for row in none["systems"]]}) is None
    assert rare_table({**none, "systems": [{**row, "slices": {}} for row in none["systems"]]}) is None


def test_tables_of_content_and_splits():
    head, rows = content_table(made(retrain=True)["content"])
    assert head == ["System", "Content", "None lacks it", "50 % lack it", "all lack it", "noise 1", "fitted anew without it"]
    assert rows[0] == ["vbpr", "text", "0.3000", "75 %", "0.1500 (50 %)", "90 %", "≥ 0.2400 (80 %)"] and rows[1][5] == ""
    empty = made()["content"]
    empty["rows"] = [{**row, "share": None} for row in empty["rows"]]
    assert content_table(empty)[1][0][3] == "0.2250"
    head, rows = splits_table(made()["splits"])
    assert head == ["System", "mmrec_random (1,200 queries)", "temporal:test=0.2 (1,200 queries)"]
    assert rows[0] == ["vbpr", "0.3000 (1)", ""] and rows[2] == ["bm3", "0.1000 (3)", "≥ 0.3000 (1)"]
    assert rows[-1] == ["Kendall's tau to the first", "", "-1.00"]


def test_the_parts_of_the_page_have_their_pictures():
    result = made(retrain=True)
    drawn = pictures(result)
    assert list(drawn) == ["rare_items", "content_missing_text", "content_noise_text", "content_left_out", "split_ranks", "split_values"]
    texts = [text.get_text() for text in drawn["content_missing_text"].axes[0].texts]
    assert texts == ["bm3", "vbpr"] and [text.get_text() for text in drawn["content_noise_text"].axes[0].texts] == ["vbpr"]
    legend = [text.get_text() for text in drawn["content_left_out"].legends[0].get_texts()]
    assert legend == ["all its content", "without text", "fitted anew without text"]
    parts = sections(result, drawn)
    assert [part.title for part in parts] == ["Rare and cold items", "What content does", "What the split does"]
    assert parts[1].answers == ["Content is read."] and len(parts[1].figures) == 3 and "Fitted anew" in parts[1].note and "cold" in parts[0].note
    bare = {key: value for key, value in made(cold=False).items() if key not in ("content", "splits")}
    assert list(pictures(bare)) == ["rare_items"] and "cold" not in sections(bare, pictures(bare))[0].note
    result["content"]["rows"] = []
    assert "content_noise_text" not in pictures(result)


def test_names_stand_apart_and_move_little():
    assert apart([0.0, 10.0, 10.0, 20.0], 2.0) == pytest.approx([0.0, 9.0, 11.0, 20.0]) and apart([], 1.0) == []


def test_a_legend_of_many_lines_stands_below_them():
    def curves(count):
        return curves_plot({f"s{n}": [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}] for n in range(count)}, "loss")

    few, many = curves(4), curves(9)
    assert few.axes[0].get_legend() is not None and not few.legends and many.axes[0].get_legend() is None and len(many.legends[0].get_texts()) == 9
    assert many.get_figheight() == pytest.approx(few.get_figheight() + 0.6)
