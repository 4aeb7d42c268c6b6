"""Metrics as pure functions: Q queries, K places. Logarithms are base 2; an undefined value of a query is NaN and is left out of the mean.

`hits` (Q, K) bool tells whether place 1..K holds a target; `targets` (Q,) is the number of targets of each query, at least 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from vitrail.errors import SettingError, unknown

Hits = npt.NDArray[np.bool_]
Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


def _discounts(k: int) -> Float:
    return 1.0 / np.log2(np.arange(2, k + 2))


def recall(hits: Hits, targets: Int, denominator: Literal["targets", "min(k,targets)"] = "targets") -> Float:
    """(Q,) hits over the number of targets, or over min(K, targets)."""
    return hits.sum(1) / (targets if denominator == "targets" else np.minimum(targets, hits.shape[1]))


def precision(hits: Hits, targets: Int) -> Float:
    """(Q,) hits over K."""
    return hits.mean(1)


def hit_rate(hits: Hits, targets: Int) -> Float:
    """(Q,) 1 where any place is a hit."""
    return np.asarray(hits.any(1), dtype=np.float64)


def ndcg(hits: Hits, targets: Int) -> Float:
    """(Q,) sum of 1/log2(rank + 1) over the hits, divided by its value were the first min(K, targets) places all hits."""
    discounts = _discounts(hits.shape[1])
    return hits @ discounts / np.cumsum(discounts)[np.minimum(targets, hits.shape[1]) - 1]


def ndcg_ngcf(hits: Hits, targets: Int, k: int | None = None) -> Float:
    """(Q,) the variant of the NGCF code: the ideal has min(k, hits in the whole list) ones, so it is never below `ndcg`; 0 without a hit.

    `k` below K gives NDCG@k with an ideal that counts hits within K, as that code does when several cut-offs are asked.
    """
    k = hits.shape[1] if k is None else k
    discounts = _discounts(k)
    ideal = np.concatenate([[1.0], np.cumsum(discounts)])[np.minimum(hits.sum(1), k)]
    return hits[:, :k] @ discounts / ideal


def mrr(hits: Hits, targets: Int) -> Float:
    """(Q,) 1 over the rank of the first hit; 0 without one."""
    return np.where(hits.any(1), 1.0 / (hits.argmax(1) + 1), 0.0)


def average_precision(hits: Hits, targets: Int) -> Float:
    """(Q,) sum over hits of the precision at their rank, divided by min(targets, K)."""
    ranks = np.arange(1, hits.shape[1] + 1)
    return (hits * np.cumsum(hits, 1) / ranks).sum(1) / np.minimum(targets, hits.shape[1])


def novelty(codes: Int, item_counts: Int) -> Float:
    """(Q,) mean over the listed items of -log2(p), p = max(train events of the item, 1) / all train events, in bits.

    An item without events counts as one with a single event. `codes` (Q, K), -1 where a list is short.
    """
    information = -np.log2(np.maximum(item_counts, 1) / max(int(item_counts.sum()), 1))
    return _list_mean(information, codes)


def intra_list_diversity(codes: Int, vectors: npt.NDArray[np.float32]) -> Float:
    """(Q,) 1 - the mean cosine over the pairs of a list; NaN for lists of fewer than 2. `vectors` (N, D), zero or of length 1 each."""
    result = np.full(len(codes), np.nan)
    block = max(1, 2**24 // max(codes.shape[1] * vectors.shape[1], 1))
    for start in range(0, len(codes), block):
        part = codes[start : start + block]
        listed = part >= 0
        rows = vectors[part] * listed[:, :, None]
        n = listed.sum(1)
        pairs = (rows.sum(1, dtype=np.float64) ** 2).sum(1) - (rows.astype(np.float64) ** 2).sum((1, 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            result[start : start + block] = np.where(n > 1, 1.0 - pairs / (n * (n - 1)), np.nan)
    return result


def coverage(codes: Int, n_candidates: int) -> float:
    """Distinct listed items over the number of items that could be listed."""
    return len(np.unique(codes[codes >= 0])) / max(n_candidates, 1)


def gini(codes: Int, n_candidates: int) -> float:
    """Gini index of how often each candidate is listed: 0 when all equally often, near 1 when a few take every place."""
    counts = np.bincount(codes[codes >= 0])
    counts = np.sort(counts[counts > 0])
    if not len(counts):
        return 0.0
    ranks = np.arange(n_candidates - len(counts) + 1, n_candidates + 1)
    return float(((2 * ranks - n_candidates - 1) * counts).sum() / (n_candidates * counts.sum()))


def popularity_lift(codes: Int, item_counts: Int, history_indptr: Int, history_items: Int) -> float:
    """How much more popular the lists are than the histories: mean over queries of the mean train count of the list, over the
    same of the history, minus 1. Queries with an empty list or history are left out; NaN where nothing is left or the histories have no events.
    """
    return lift_over(codes, item_counts, mean_counts(item_counts, history_indptr, history_items))


def mean_counts(item_counts: Int, history_indptr: Int, history_items: Int) -> Float:
    """(Q,) mean train count of the items of each history; not finite where it is empty."""
    lengths = np.diff(history_indptr)
    with np.errstate(divide="ignore", invalid="ignore"):
        owner = np.repeat(np.arange(len(lengths)), lengths)
        return np.asarray(np.bincount(owner, weights=item_counts[history_items], minlength=len(lengths)) / lengths)


def lift_over(codes: Int, item_counts: Int, before: Float) -> float:
    """`popularity_lift` over what `mean_counts` found in the histories."""
    listed = _list_mean(item_counts.astype(np.float64), codes)
    both = np.isfinite(before) & np.isfinite(listed)
    base = before[both].mean() if both.any() else 0.0
    return float(listed[both].mean() / base - 1.0) if base > 0 else float("nan")


def _list_mean(of_items: Float, codes: Int) -> Float:
    """(Q,) mean of a number of each item (N,) over the listed items; NaN for an empty list."""
    listed = codes >= 0
    n = listed.sum(1)
    total = np.where(listed, of_items[np.maximum(codes, 0)], 0.0).sum(1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


class Entry(NamedTuple):
    """A metric that can be asked by name."""

    about: str
    kind: Literal["accuracy", "list"]
    """`accuracy` is computed from hits, a query at a time; `list` from the listed items"""
    function: Callable[..., Any]


METRICS: dict[str, Entry] = {
    "recall": Entry("share of the targets that are listed", "accuracy", recall),
    "precision": Entry("share of the list that is a target", "accuracy", precision),
    "hit_rate": Entry("share of queries with any target listed", "accuracy", hit_rate),
    "ndcg": Entry("rank-discounted gain over the ideal, as the protocol defines it", "accuracy", ndcg),
    "ndcg_ngcf": Entry("NDCG as the NGCF code defines it", "accuracy", ndcg_ngcf),
    "mrr": Entry("1 over the rank of the first target", "accuracy", mrr),
    "map": Entry("mean average precision", "accuracy", average_precision),
    "novelty": Entry("mean self-information of the listed items, in bits", "list", novelty),
    "intra_list_diversity": Entry("1 - mean cosine between the items of a list", "list", intra_list_diversity),
    "coverage": Entry("share of the catalogue that is listed for anybody", "list", coverage),
    "gini": Entry("inequality of how often items are listed", "list", gini),
    "popularity_lift": Entry("popularity of the lists over that of the histories, minus 1", "list", popularity_lift),
}
"""name -> metric; ask for one as `name@k`."""

DEFAULT_METRICS = (
    "recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20", "ndcg_ngcf@10", "precision@10", "hit_rate@10", "mrr@10", "map@10",
    "coverage@10", "gini@10", "novelty@10", "intra_list_diversity@10", "popularity_lift@10",
)  # fmt: skip
"""What is measured when nothing is asked."""


class Metric(NamedTuple):
    """A metric at a cut-off."""

    name: str
    k: int

    def __str__(self) -> str:
        return f"{self.name}@{self.k}"


def parse_metric(text: str) -> Metric:
    """`ndcg@10` -> Metric("ndcg", 10). Raises SettingError: one sentence, with what was meant."""
    name, at, cut = text.strip().partition("@")
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    if not at or not cut.isascii() or not cut.isdigit() or not 1 <= int(cut) <= 100_000:
        raise SettingError(f'The metric "{text}" needs a cut-off from 1 on: write {name}@10.')
    return Metric(name, int(cut))


RANKERS: dict[str, str] = {
    "auc": "chance that a success scores above a failure, ties half",
    "gauc": "the same within a user, the mean over users weighted by their rows",
    "gauc_equal": "the same within a user, the plain mean over users",
    "logloss": "mean log loss of the probabilities, in nats",
    "ece": "mean distance of probability and rate over bins of equal size",
    "ece_l2": "root of the mean squared distance, less what noise adds to it",
    "logloss_raw": "logloss before calibration",
    "ece_raw": "ece before calibration",
}
"""name -> metric of rankers (evaluation.binary), which has no cut-off."""


def check_metric(text: str, stage: str | None = None) -> None:
    """Raises SettingError where `text` is no metric of systems of `stage` (none: of any)."""
    if stage == "rank" and text not in RANKERS:
        raise unknown("metric of rankers", text, RANKERS)
    if stage == "rank" or (stage is None and text in RANKERS):
        return
    parse_metric(text)
