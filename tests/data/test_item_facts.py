"""What the catalogue says of items: codes and words, there and back, and with further items behind."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vitrail.data.dataset import Dataset
from vitrail.data.fields import MISSING, NO_DATE, UNSEEN
from vitrail.data.item_facts import attribute_codes, item_texts, longer, read_texts
from vitrail.data.log import Log
from vitrail.errors import DataError
from vitrail.testing import checkerboard

ITEMS = pl.DataFrame(
    {
        "item": ["a", "b", "c"], "title": ["red boots", None, "güldener Ring"], "kind": ["shoe", "shoe", "ring"], "tags": [["x", "y"], [], ["x"]],
        "price": [1.0, None, 3.0], "new": [True, False, None], "seen": ["2020", "2021", "2022"],
    }
)  # fmt: skip
KINDS = {"kind": "category", "title": "text", "tags": "categories", "price": "number", "new": "flag", "seen": "id"}
LOG = Log(np.array([0, 2]), np.array([0, 1], dtype=np.int32), 3)  # c was never met


def test_codes_know_what_trained_items_have():
    found = attribute_codes(ITEMS, KINDS, LOG)
    assert list(found) == ["attribute.kind", "attribute.tags", "attribute.price", "attribute.new"]
    assert found["attribute.kind"].tolist() == [[2], [2], [1]], "a kind that only c has was never seen"
    assert found["attribute.tags"].tolist() == [[2, 3], [0, 0], [2, 0]]
    assert found["attribute.price"][1].tolist() == [0] and found["attribute.new"][2].tolist() == [0]


def test_words_come_back_and_grow():
    texts = item_texts(ITEMS, KINDS)
    assert read_texts(texts) == ["red boots shoe x, y", "shoe", "güldener Ring ring x"]
    facts = texts | attribute_codes(ITEMS, KINDS, LOG) | {"other": np.arange(2)}
    more = longer(facts, pl.DataFrame({"item": ["d", "e"], "title": ["blue hat", None]}))
    assert read_texts(more) == [*read_texts(texts), "blue hat", ""]
    assert more["attribute.tags"].tolist()[3:] == [[0, 0], [0, 0]] and more["other"].tolist() == [0, 1]
    assert read_texts(longer(texts, pl.DataFrame({"item": ["d"]})))[3] == ""


def test_to_a_ranker_further_items_are_ones_it_never_saw():
    tables = {"items": np.array([[2, 5], [3, 6]]), "list.tags": np.array([[2, 0]] * 2), "date.out": np.array([7, 8]), "occurrences": np.array([1, 2])}
    more = longer(tables, pl.DataFrame({"item": ["d"]}))
    assert more["items"][2].tolist() == [UNSEEN, MISSING] and more["list.tags"][2].tolist() == [MISSING, MISSING]
    assert more["date.out"][2] == NO_DATE and more["occurrences"].tolist() == [1, 2, 0]


def test_a_catalogue_that_says_nothing_is_refused(tmp_path: Path):
    board = checkerboard(tmp_path / "d")
    bare = board.info.but({"columns": {"items": {"colour": "id"}}})
    from vitrail.data.schema import Needs

    for fact in ("attributes", "texts"):
        with pytest.raises(DataError, match=f"reads {fact} of items"):
            Needs(given=(fact,)).check(bare, "s")
        Needs(given=(fact,)).check(Dataset(board.path).info, "s")
