"""Build an index to a recall: the kind by size and by the vectors themselves, the effort on queries held out, the recall measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Literal

import numpy as np
import polars as pl

from vitrail.errors import SettingError, unknown
from vitrail.index.ann import KINDS, AnnIndex, Plan, recalls
from vitrail.index.base import Float, Int, Metric, as_vectors, check_metric, unit
from vitrail.index.exact import ExactIndex, Kept, Number

Kind = Literal["auto", "exact", "ivf", "hnsw", "ivf-sq8", "ivf-rabitq"]
SMALL = 20_000
"""Items up to which `auto` scores all of them: that takes less than a millisecond."""
GRAPH = 200_000
"""Items up to which `auto` tries an HNSW graph where inverted lists do badly: it takes a minute for each 100,000."""
QUERIES = 1000
"""Queries of the tuning and of the measurement together."""
ASIDE, LEAST_ASIDE = 100, 50
"""One in so many items of a graph is put aside to ask, or so many where that is fewer than one in twenty: a graph that many nodes are taken out of finds
less than one without them."""
REFINE = (4, 10, 25, 60)
"""Candidates an answer that compressed kinds try, in this order."""


def build_index(
    ids: Sequence[str],
    vectors: Any,
    *,
    kind: Kind = "auto",
    recall: float = 0.95,
    k: int = 10,
    metric: Metric = "ip",
    dtype: Number = "float32",
    attributes: pl.DataFrame | None = None,
    queries: Any | None = None,
    source: str | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> ExactIndex:
    """An index of `vectors` (N, D) under `ids` that finds the share `recall` of the true k best.

    `queries` (Q, D) are what will be asked (user vectors, say), half to tune on, half to measure on; without them vectors of the
    index ask for their neighbours. `attributes` (a column item and others) are what conditions are tested on. `say` hears what is
    decided. Raises SettingError for a bad setting, or where a named kind cannot reach the recall; DataError for NaN or infinity.
    """
    if kind != "auto" and kind not in (*ExactIndex.kinds, *KINDS):
        raise unknown("kind of index", kind, ["auto", *ExactIndex.kinds, *KINDS])
    if not 0 < recall <= 1 or k < 1:
        raise SettingError(f"recall is {recall:g} and k is {k}: ask for a recall above 0 and at most 1, and a k of at least 1.")
    if dtype not in ("float32", "float16"):
        raise unknown("number type", dtype, ["float32", "float16"])
    common: dict[str, Any] = {"metric": check_metric(metric), "dtype": dtype, "attributes": attributes, "source": source}
    array = as_vectors(vectors) if len(ids) else np.empty((0, np.shape(vectors)[-1]), dtype=np.float32)
    exact = ExactIndex(ids, array, **common)
    if kind == "exact" or (kind == "auto" and len(exact) <= SMALL) or not len(exact):
        say(f"exact: all {len(exact):,} items are scored, recall 1")
        return exact
    asked = Asked(exact, queries, k, seed)
    first = _lists_that_fit(exact) if kind == "auto" else kind
    best, seconds = None, asked.exact_seconds
    for name in [first] if kind != "auto" or len(exact) > GRAPH else [first, "hnsw"]:
        if best is not None and best.plan.seconds < 0.1 * asked.exact_seconds:
            break
        started = time.perf_counter()
        found = AnnIndex(exact.rows, exact._vectors, kind=name, **common)
        apart = asked.apart(found)
        with found.aside(apart):
            reached = tune(found, asked.outside(exact, apart, k) if len(apart) else asked, recall, k)
        plan = found.plan
        say(
            f"{name}: recall@{k} {plan.measured:.4f} (asked {recall:g}) with effort {plan.effort} of {found.ceiling}, {plan.seconds * 1e6:,.0f} us a query "
            f"(exact {asked.exact_seconds * 1e6:,.0f}), built in {time.perf_counter() - started:,.0f} s"
        )
        if kind != "auto" and not reached:
            raise SettingError(f"The kind {name} finds {plan.measured:.4f} of the {k} best at most, and {recall:g} was asked: take another kind.")
        if reached and (kind != "auto" or plan.seconds < seconds):
            best, seconds = found, plan.seconds
    if best is None:
        say("exact: no other kind is faster at this recall, all items are scored")
    return best or exact


def _lists_that_fit(index: ExactIndex) -> str:
    """Inverted lists of the vectors themselves, or of a byte a number where those would take half the memory that is free."""
    from vitrail.resources import free_memory

    return "ivf-sq8" if 4 * len(index) * index.dim > free_memory() / 2 else "ivf"


class Asked:
    """Queries with their exact answers: the even ones to tune on, the odd ones to measure on."""

    def __init__(self, index: ExactIndex, queries: Any | None, k: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.own: Int | None = None
        if queries is None or not len(queries):
            self.own = np.sort(rng.choice(index.rows.n, min(QUERIES, index.rows.n), replace=False))
            Q = index._vectors[self.own].astype(np.float32)
        else:
            Q = as_vectors(queries, index.dim)
            Q = Q[np.sort(rng.choice(len(Q), min(QUERIES, len(Q)), replace=False))]
            Q = unit(Q) if index.metric == "cosine" else Q
        self.Q: Float = np.ascontiguousarray(Q)
        self.k = k if self.own is None else k + 1
        started = time.perf_counter()
        rows, self.truth = index._scan(self.Q, self.k, None)
        self.exact_seconds = (time.perf_counter() - started) / len(self.Q)
        self._hide_own(rows, self.truth)
        self.gather, self.dot = _exact_costs(index)

    def apart(self, index: AnnIndex) -> Int:
        """(S,) rows of vectors that ask and can be put aside while a graph is tuned; none of other kinds, or where the queries are of no index."""
        if index.kind != "hnsw" or self.own is None:
            return np.empty(0, dtype=np.int64)
        n, rows = index.rows.n, self.own[index.lowest[self.own]]
        most = max(n // ASIDE, min(LEAST_ASIDE, n // 20), 1)
        return rows[:: -(-len(rows) // most) or 1]

    def outside(self, index: ExactIndex, rows: Int, k: int) -> Asked:
        """The vectors at `rows` (S,) of the index as if they were not of it: their answers are the k best of the others."""
        asked, others = copy(self), np.ones(index.rows.n, dtype=bool)
        others[rows] = False
        asked.own, asked.k, asked.Q = None, k, np.ascontiguousarray(index._vectors[rows].astype(np.float32))
        asked.truth = index._scan(asked.Q, k, Kept(others))[1]
        return asked

    def _hide_own(self, rows: Int, scores: Float, part: slice = slice(None)) -> None:
        """A vector that asks for its neighbours is not its own answer."""
        if self.own is not None:
            scores[rows == self.own[part, None]] = -np.inf

    def recalls(self, index: AnnIndex, effort: int | None, part: slice) -> Float:
        """(Q / 2,) recall of each query."""
        rows, scores = index._approximate(self.Q[part], self.k, None, effort)
        self._hide_own(rows, scores, part)
        return recalls(scores, self.truth[part])


TUNE, MEASURE = slice(0, None, 2), slice(1, None, 2)


def tune(index: AnnIndex, asked: Asked, target: float, k: int) -> bool:
    """Find the least effort whose recall on the tuning half is the target by a standard error, and measure it on the other
    half; says whether the target was reached at all."""
    compressed = index.plan.refine > 0
    plan = Plan(k=asked.k, target=target, gather=asked.gather, dot=asked.dot)

    def good(effort: int) -> bool:
        found = asked.recalls(index, effort, TUNE)
        return float(found.mean() - found.std() / max(len(found), 1) ** 0.5) >= target or float(found.min()) == 1.0

    reached = False
    for refine in REFINE if compressed else (0,):
        index.follow(plan.but({"refine": refine}))
        if reached := good(index.ceiling):
            break
    floor = asked.k if index.kind == "hnsw" else 1  # a graph keeps at least the answers
    effort = max(least(good, index.ceiling), floor) if reached else index.ceiling
    index.follow(index.plan.but({"effort": effort}))
    measured = asked.recalls(index, None, MEASURE)
    ask = asked.Q[MEASURE] if len(asked.Q) > 1 else asked.Q
    seconds = min(_seconds(lambda: index._approximate(ask, asked.k, None)) for _ in range(3)) / len(ask)
    index.follow(index.plan.but({"k": k, "measured": float(measured.mean()) if len(measured) else 1.0, "queries": len(measured), "seconds": seconds}))
    return reached


def least(good: Callable[[int], bool], most: int) -> int:
    """The least number in [1, most] that is `good`, if what is good stays so above; by doubling, then halving. `most` is good."""
    high = 1
    while high < most and not good(high):
        high *= 2
    low, high = high // 2, min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _exact_costs(index: ExactIndex, sample: int = 20_000, queries: int = 64) -> tuple[float, float]:
    """Seconds of copying out one row, and of scoring one row for one query."""
    rows = np.linspace(0, index.rows.n - 1, min(sample, index.rows.n)).astype(np.int64)
    gather = min(_seconds(lambda: index._vectors[rows].astype(np.float32)) for _ in range(3)) / len(rows)
    V = index._vectors[rows].astype(np.float32)
    Q = np.ones((queries, index.dim), dtype=np.float32)
    dot = min(_seconds(lambda: Q @ V.T) for _ in range(3)) / len(rows) / queries
    return gather, dot
