"""Fields: columns of a data set as integer codes, as rankers read them. What is learned (vocabularies, bucket edges) is learned on training rows.

Code 0 means missing, code 1 a value that training never saw, others are values. R rows, N items, U users, F fields, M values of a field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field as Bound

from vitrail.config import NonNegativeFloat, PositiveInt, Settings, Share
from vitrail.data.declare import Feature
from vitrail.data.log import Log
from vitrail.data.past import DAY, ItemPast, affinity, user_gap, user_rate
from vitrail.data.vocabulary import hash_ids

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]
Codes = dict[str, npt.NDArray[np.integer]]
MISSING, UNSEEN = 0, 1
MOST = 16
"""Values of a cell that are read, where a field has several."""
AFFINITY, AGE = "affinity:", "age:"
POSITION = "position"


class Field(Settings):
    """One field."""

    name: str
    whose: Literal["item", "user", "event"]
    """whose it is; `event`: of the impression itself"""
    kind: Literal["id", "category", "categories", "number", "flag"]
    codes: int
    """codes it can have, 0 and 1 included"""
    edges: list[float] = []
    """of a number: value v has code 2 + how many edges are <= v"""
    values: list[str] = []
    """of a category of the impression: value i has code 2 + i"""
    hashed: bool = False
    """categories are hashed into the codes"""
    neutral: float | None = None
    """of a number that is known of training rows alone: what stands for it in every answer"""
    keys: list[int] = []
    """of a declared category: the value with hash i has code 2 + i; they rise"""


class FeatureSpec(Settings):
    """The fields of a fitted ranker: part of its artifact."""

    fields: list[Field] = []
    signals: list[float] = []
    """edges of what happened at an event of a history; its code is 1 + how many edges are <= it, 0 where it is not known"""
    signal: bool = False
    """whether events of a history say what happened"""
    declared: dict[str, Feature] = {}
    """declared features (data.declared), each a field of the event"""
    units: dict[str, float] = {}
    """column -> the power of two in which declared sums of it are counted"""
    matures: int = 0
    """microseconds after something is shown until its success is known"""

    def owned(self, whose: str) -> list[Field]:
        """The fields of items, users or events, in order."""
        return [f for f in self.fields if f.whose == whose]


class FieldSettings(Settings):
    """Which fields a ranker has; part of every ranker's settings."""

    attributes: list[str] | None = None
    """Attributes of items and users that become fields; none: all categories, numbers, flags and dates."""
    context: list[str] | None = None
    """Columns of the impressions that become fields, retrieval scores, ranks and sources among them; none: all."""
    past: bool = True
    """Features of the past of each impression become fields: counts, recency, rates, affinity to categories, age of the item."""
    features: dict[str, Feature] | list[str] | str | None = None
    """Declared features that become fields: names of those of dataset.yaml, a YAML file of others, or definitions; none: all of dataset.yaml."""
    position: Literal["ignore", "feature", "weight"] = "ignore"
    """What is made of the place an item was shown at: nothing; a field while it learns, which is `neutral` in every answer; a weight of successes, 1 over the
    chance that their place is looked at."""
    neutral: PositiveInt = 1
    """The place as which every item is asked."""
    looked_at: NonNegativeFloat | tuple[Share, ...] | Literal["propensity"] = 1.0
    """That chance: place ** -looked_at; or one a place, the last for all behind; or the column `propensity` of the impressions."""
    largest_weight: Annotated[float, Bound(ge=1.0)] = 10.0
    """Of a success: larger ones are cut."""
    user_id: bool = False
    """The user's id is a field."""
    buckets: int = 32
    """Buckets of numbers, by quantiles of the training rows."""
    hash_space: int = 0
    """Codes into which a category with more values is hashed; 0: no hashing."""


@dataclass(frozen=True)
class Catalogue:
    """The coded attributes of all items and users."""

    items: Int32
    """(N, F) single-valued fields of items, the id first"""
    users: Int32
    """(U + 1, F) fields of users; the last row is that of an unknown user"""
    lists: dict[str, Int32] = field(default_factory=dict)
    """field -> (N, M) codes, filled up with 0"""
    dates: dict[str, Int64] = field(default_factory=dict)
    """attribute -> (N,) microseconds; the least number where missing"""

    def arrays(self) -> Codes:
        """Named arrays, for the artifact."""
        lists = {f"list.{name}": codes for name, codes in self.lists.items()}
        return {"items": self.items, "users": self.users} | lists | {f"date.{name}": when for name, when in self.dates.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[np.integer]]) -> Catalogue:
        """What `arrays` packed."""
        lists = {key[5:]: codes.astype(np.int32) for key, codes in arrays.items() if key.startswith("list.")}
        dates = {key[5:]: when.astype(np.int64) for key, when in arrays.items() if key.startswith("date.")}
        return cls(arrays["items"].astype(np.int32), arrays["users"].astype(np.int32), lists, dates)

    def categories(self, spec: FeatureSpec) -> dict[str, Int32]:
        """The categorical attributes of items: field -> (N, M) codes."""
        single = [f for f in spec.owned("item") if f.kind != "categories"]
        found = {f.name: self.items[:, [place]] for place, f in enumerate(single) if f.kind == "category"}
        return found | self.lists


NO_DATE = np.iinfo(np.int64).min


def code_numbers(values: Float, edges: Sequence[float]) -> Int32:
    """(R,) codes of numbers; NaN is missing."""
    codes = 2 + np.searchsorted(np.asarray(edges, dtype=np.float64), values, side="right")
    return np.where(np.isnan(values), MISSING, codes).astype(np.int32)


def quantile_edges(values: Float, buckets: int) -> list[float]:
    """Edges of so many buckets with about equally many of the values in each; midpoints between the values where they are few."""
    known = values[np.isfinite(values)]
    distinct = np.unique(known)
    if len(distinct) <= buckets:
        return ((distinct[1:] + distinct[:-1]) / 2).tolist()
    return np.unique(np.quantile(known, np.arange(1, buckets) / buckets)).tolist()


def code_category(column: pl.Series, values: Sequence[str], hash_space: int = 0) -> Int32:
    """(R,) codes of a column of strings by the vocabulary `values` (sorted), or hashed into `hash_space` codes where that is not 0."""
    if hash_space:
        distinct = column.drop_nulls().unique()
        hashes = (hash_ids(distinct.to_list()) % np.uint64(hash_space)).astype(np.int32) + 2
        coded = column.replace_strict(distinct, pl.Series(hashes), default=None, return_dtype=pl.Int32)
        return coded.fill_null(MISSING).to_numpy()
    place = pl.Series(np.arange(len(values), dtype=np.int32) + 2)
    coded = column.replace_strict(pl.Series(values, dtype=pl.String), place, default=UNSEEN, return_dtype=pl.Int32)
    return coded.set(column.is_null(), MISSING).to_numpy()


def code_signals(weights: npt.NDArray[np.float32] | None, spec: FeatureSpec) -> npt.NDArray[np.int8] | None:
    """(E,) codes of what happened at each event of a log; none where nothing is known of any."""
    if weights is None or not spec.signal:
        return None
    return (1 + np.searchsorted(np.asarray(spec.signals), weights, side="right")).astype(np.int8)


def past_values(
    names: Sequence[str], log: Log, owners: Int64, starts: Int64, stops: Int64, items: Int64, now: Int64 | None, events: ItemPast | None,
    shown: ItemPast | None, catalogue: Catalogue, categories: Mapping[str, Int32],
) -> dict[str, Float]:  # fmt: skip
    """The features of the past by name, each (R,): of the histories [starts, stops) of `owners` in `log`, the items and the moments `now`.

    `events` and `shown` index all that happened to items; `now` none: there is no clock, and features that need one are missing.
    """
    missing = np.full(len(items), np.nan)
    found: dict[str, Float] = {}
    for name in names:
        if name.startswith(AFFINITY):
            found[name] = affinity(log, owners, starts, stops, items, categories[name.removeprefix(AFFINITY)])
        elif name.startswith(AGE):
            when = catalogue.dates[name.removeprefix(AGE)][items]
            found[name] = missing if now is None else np.where(when == NO_DATE, np.nan, (now - np.where(when == NO_DATE, 0, when)) / DAY)
        elif name == "user count":
            found[name] = (stops - starts).astype(np.float64)
        elif name == "user rate":
            found[name] = missing if log.weights is None else user_rate(log, starts, stops)
        elif name == "user gap":
            found[name] = missing if now is None or log.times is None else user_gap(log, starts, stops, now)
        elif name == "item count":
            found[name] = missing if now is None or events is None else events.count(items, now)
        elif name == "item gap":
            found[name] = missing if now is None or events is None else events.gap(items, now)
        else:
            assert name == "item rate", name
            found[name] = missing if now is None or shown is None else shown.rate(items, now)
    return found
