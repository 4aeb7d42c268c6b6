"""What the catalogue says of items, as arrays that travel with an artifact: coded attributes, and the words of each item.

`attribute.NAME` (N, M) int32, code 0 where missing, 1 for a value that no trained item has; `texts` the UTF-8 bytes of all items one after the other,
`texts.ends` (N + 1,) where each begins, `texts.columns` the columns they are made of. Letters: N items, M values of a cell.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.data import features, fields
from vitrail.data.fields import FieldSettings
from vitrail.data.log import Log

CODED = ("category", "categories", "flag", "number")
"""Kinds of attributes that become codes."""
WORDS = ("text", "category", "categories")
"""Kinds of attributes that are read as words."""
ATTRIBUTE = "attribute."
Arrays = dict[str, npt.NDArray[np.generic]]


def attribute_codes(items: pl.DataFrame, kinds: Mapping[str, str], log: Log, buckets: int = 32) -> Arrays:
    """The coded attributes of items; values and edges of buckets are those of items with a training event."""
    settings, present = FieldSettings(buckets=buckets), log.item_counts > 0
    found: Arrays = {}
    for name, kind in kinds.items():
        if kind == "categories":
            found[ATTRIBUTE + name] = features._lists(items[name], name, present, settings)[1]
        elif kind in CODED:
            found[ATTRIBUTE + name] = features._single(items[name], name, kind, "item", present, settings)[1][:, None]
    return found


def item_texts(items: pl.DataFrame, kinds: Mapping[str, str]) -> Arrays:
    """The words of items: their texts first, then their categories."""
    columns = sorted((name for name, kind in kinds.items() if kind in WORDS), key=lambda name: WORDS.index(kinds[name]))
    return _packed(_words(items, columns)) | {"texts.columns": np.frombuffer(json.dumps(columns).encode(), dtype=np.uint8).copy()}


def _words(items: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    from vitrail.content.encode import compose

    there = [column for column in columns if column in items.columns]
    return compose(items, there) if there else [""] * len(items)


def _packed(texts: Sequence[str]) -> Arrays:
    encoded = [text.encode() for text in texts]
    ends = np.concatenate([[0], np.cumsum([len(text) for text in encoded])]).astype(np.int64)
    return {"texts": np.frombuffer(b"".join(encoded), dtype=np.uint8).copy(), "texts.ends": ends}


def read_texts(tables: Mapping[str, npt.NDArray[np.generic]]) -> list[str]:
    """(N,) what `item_texts` packed."""
    whole, ends = tables["texts"].tobytes(), tables["texts.ends"].tolist()
    return [whole[start:stop].decode() for start, stop in itertools.pairwise(ends)]


def longer(tables: Mapping[str, npt.NDArray[np.generic]], items: pl.DataFrame) -> Arrays:
    """The facts with the rows of `items` behind: their words are read, their attributes are missing, and to a ranker their ids are ones that training
    never saw. Other tables stay as they are."""
    found = dict(tables)
    for name, values in tables.items():
        if name.startswith((ATTRIBUTE, "list.", "date.")) or name in ("items", "occurrences"):
            rows = np.full((len(items), *values.shape[1:]), fields.NO_DATE if name.startswith("date.") else fields.MISSING, dtype=values.dtype)
            if name == "items":
                rows[:, 0] = fields.UNSEEN
            found[name] = np.concatenate([values, rows])
    if "texts" in tables:
        more = _packed(_words(items, json.loads(tables["texts.columns"].tobytes())))
        found["texts"] = np.concatenate([tables["texts"], more["texts"]])
        found["texts.ends"] = np.concatenate([tables["texts.ends"], tables["texts.ends"][-1:] + more["texts.ends"][1:]])  # type: ignore[operator]
    return found
