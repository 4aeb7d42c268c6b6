"""Metrics of rankers: R rows with a label and a score, G groups (users). Everything is exact, ties included, and vectorised over groups.

A metric of a fitted probability (logloss, ece) reads probabilities; AUC and GAUC read any score. An undefined value is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from vitrail.evaluation.evaluator import Evaluation
from vitrail.evaluation.intervals import Difference, bootstrap_ci, paired_difference
from vitrail.evaluation.protocol import RankProtocol
from vitrail.evaluation.slices import HISTORY_EDGES

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

BINS = 15
DRAWS = 1000
WORK = 20_000_000
"""Rows times draws that the interval of AUC may cost, from 100 draws on."""


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """P(score of a success > score of a failure), ties 1/2; O(R log R). NaN without both classes."""
    y, s = np.asarray(labels, dtype=np.float64), np.asarray(scores)
    value = grouped_auc(y, s, np.zeros(len(y), dtype=np.int64))[0]
    return float(value[0]) if len(value) else float("nan")


def grouped_auc(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.NDArray[np.integer]) -> tuple[Float, Int, Int]:
    """AUC of each group (G,), NaN without both classes; rows of each group (G,); and the group (R,) of each row as a place among them.

    One sort of the rows by (group, score); ties get the mean of their ranks.
    """
    y, s = np.asarray(labels, dtype=np.float64), np.asarray(scores)
    group, n = _dense(np.asarray(groups))
    g, hits, starts = _by_score(y, s, group)
    sizes = np.diff(np.append(starts, len(g)))
    rank = np.repeat(starts + (sizes + 1) / 2, sizes)  # mean of the ranks from 1 of a tie, over all rows
    counts = np.bincount(group, minlength=n)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]) if n else np.empty(0)
    positives = np.bincount(g, weights=hits, minlength=n)
    sums = np.bincount(g, weights=hits * rank, minlength=n) - positives * first
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (sums - positives * (positives + 1) / 2) / (positives * (counts - positives))
    return np.where((positives > 0) & (positives < counts), value, np.nan), counts.astype(np.int64), group.astype(np.int64)


def _dense(groups: npt.NDArray[np.integer]) -> tuple[Int, int]:
    """(R,) the place of each row's group among those that occur, sorted; and how many occur. Without a sort where they are small numbers."""
    least = int(groups.min()) if len(groups) else 0
    if not len(groups) or int(groups.max()) - least > 4 * len(groups):
        values, group = np.unique(groups, return_inverse=True)
        return group, len(values)
    places = groups - least
    known = np.bincount(places) > 0
    return (np.cumsum(known) - 1)[places], int(known.sum())


def _by_score(y: Float, s: npt.NDArray[Any], group: Int) -> tuple[Int, Float, Int]:
    """In the order of (group, score): the group (R,) and the label (R,) of each row, and where each run of equal scores begins."""
    small = s.astype(np.float32, copy=False)
    if len(s) and bool((small == s).all()) and bool(((y == 0) | (y == 1)).all()):  # no NaN, whole labels: all of a row is one number, and numbers sort fast
        bits = (small + np.float32(0)).view(np.int32).astype(np.int64)  # 0 and -0 are equal
        keys = (group << 33) | (((bits ^ ((bits >> 31) & 0x7FFFFFFF)) + (1 << 31)) << 1) | y.astype(np.int64)
        keys.sort()
        fresh = np.append(True, (keys[1:] >> 1) != (keys[:-1] >> 1))
        return keys >> 33, (keys & 1).astype(np.float64), np.flatnonzero(fresh)
    order = np.lexsort([s, group])
    g, v = group[order], s[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (g[1:] != g[:-1]) | (v[1:] != v[:-1])
    return g, y[order], np.flatnonzero(fresh)


def gauc(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.NDArray[np.integer], weights: Literal["rows", "equal"] = "rows") -> tuple[float, int, int]:
    """The mean over groups of their AUC, weighted by their rows or equally; how many groups count, and how many were dropped for want of a class."""
    value, counts, _ = grouped_auc(labels, scores, groups)
    kept = ~np.isnan(value)
    if not kept.any():
        return float("nan"), 0, len(value)
    share = counts[kept] if weights == "rows" else np.ones(int(kept.sum()))
    return float(np.average(value[kept], weights=share)), int(kept.sum()), int((~kept).sum())


def chosen_by(
    metric: str, labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.NDArray[np.integer], weights: npt.NDArray[np.floating] | None = None
) -> float:  # fmt: skip
    """What a ranker is selected by: its AUC or its GAUC; with `weights` (R,) of the rows where some successes stand for more than one."""
    if weights is None:
        return auc(labels, scores) if metric == "auc" else gauc(labels, scores, groups)[0]
    value, counts = weighted_auc(labels, scores, np.zeros_like(groups) if metric == "auc" else groups, weights)
    kept = ~np.isnan(value)
    return float(np.average(value[kept], weights=counts[kept])) if kept.any() else float("nan")


def weighted_auc(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.NDArray[np.integer], weights: npt.NDArray[np.floating]
) -> tuple[Float, Int]:
    """AUC of each group (G,) where a pair of rows counts as the product of their weights (R,), NaN without both classes; and rows of each group (G,)."""
    y, s, w = np.asarray(labels, dtype=np.float64), np.asarray(scores), np.asarray(weights, dtype=np.float64)
    _, group = np.unique(groups, return_inverse=True)
    order = np.lexsort([s, group])
    g, v, up, down = group[order], s[order], (w * y)[order], (w * (1 - y))[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (g[1:] != g[:-1]) | (v[1:] != v[:-1])
    tie = np.cumsum(fresh) - 1
    of_tie, before = np.bincount(tie, weights=down), np.concatenate([[0.0], np.cumsum(np.bincount(tie, weights=down))])
    ups, downs, counts = np.bincount(g, weights=up), np.bincount(g, weights=down), np.bincount(g)
    below = before[tie] + of_tie[tie] / 2 - np.concatenate([[0.0], np.cumsum(downs)])[g]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(g, weights=up * below) / np.where(ups * downs > 0, ups * downs, np.nan), counts


def log_losses(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Float:
    """(R,) -[y ln p + (1 - y) ln(1 - p)], p kept 1e-7 away from 0 and 1."""
    y, p = np.asarray(labels, dtype=np.float64), np.clip(np.asarray(probabilities, dtype=np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(-(y * np.log(p) + (1 - y) * np.log1p(-p)))


class Bin(NamedTuple):
    """A bin of the calibration curve."""

    probability: float
    rate: float
    rows: int


def calibration_curve(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = BINS) -> list[Bin]:
    """Mean probability and rate of success in bins of equally many rows; equal probabilities are never parted."""
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    which = bins_of(p, bins)
    n = np.bincount(which)
    kept = n > 0
    mean, rate = np.bincount(which, weights=p)[kept] / n[kept], np.bincount(which, weights=y)[kept] / n[kept]
    return [Bin(float(a), float(b), int(c)) for a, b, c in zip(mean, rate, n[kept], strict=True)]


def bins_of(p: Float, bins: int) -> Int:
    """(R,) the bin of each value, the least first, about equally many in each; equal values are never parted."""
    order = np.argsort(p, kind="stable")
    _, first, inverse = np.unique(p[order], return_index=True, return_inverse=True)
    which = np.empty(len(p), dtype=np.int64)
    which[order] = (first * bins // max(len(p), 1))[inverse]
    return which


def ece(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = BINS) -> float:
    """Mean over rows of |mean probability - rate| of their bin."""
    curve = calibration_curve(labels, probabilities, bins)
    rows = sum(b.rows for b in curve)
    return sum(abs(b.probability - b.rate) * b.rows for b in curve) / max(rows, 1) if curve else float("nan")


class Part(NamedTuple):
    """Rows of like score."""

    rate: float
    """of success"""
    lift: float
    """rate over that of all rows"""
    caught: float
    """share of all successes in this part and those above"""
    rows: int


def lift(labels: npt.ArrayLike, scores: npt.ArrayLike, parts: int = 10) -> list[Part]:
    """The rows in `parts` of about equal size, the highest scores first; equal scores are never parted. Empty where nothing succeeded."""
    y, s = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not y.sum():
        return []
    which = bins_of(-s, parts)
    rows, hits = np.bincount(which), np.bincount(which, weights=y)
    kept = rows > 0
    rows, hits = rows[kept], hits[kept]
    rate = hits / rows
    return [Part(float(a), float(a / y.mean()), float(c), int(n)) for a, c, n in zip(rate, np.cumsum(hits) / y.sum(), rows, strict=True)]


# how sure: users are drawn anew, whole


def drawn_users(groups: Int, draws: int, seed: int) -> Any:
    """A user-bootstrap: (G,) times each group is drawn, one draw after another."""
    n = int(groups.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(rng.integers(0, n, size=n), minlength=n).astype(np.float64)


def auc_ci(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Int, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the AUC over all rows when users are drawn anew; rows are sorted once."""
    y, s = np.asarray(labels, dtype=np.float64), np.asarray(scores)
    _, group = np.unique(groups, return_inverse=True)
    order = np.argsort(s, kind="stable")
    g, v, hits = group[order], s[order], y[order]
    starts = np.flatnonzero(np.concatenate([[True], v[1:] != v[:-1]])) if len(v) else np.empty(0, dtype=np.int64)
    found = []
    for times in drawn_users(group, min(draws, max(100, WORK // max(len(y), 1))), seed):
        weight = times[g]
        up, down = np.add.reduceat(weight * hits, starts), np.add.reduceat(weight * (1 - hits), starts)
        below = np.cumsum(down) - down
        total = up.sum() * down.sum()
        found.append(float((up * (below + down / 2)).sum() / total) if total > 0 else float("nan"))
    return _percentiles(np.array(found), level)


def ece_ci(labels: npt.ArrayLike, probabilities: npt.ArrayLike, groups: Int, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Interval of what the ECE would be without the noise of its bins, which the plain value, a sum of distances, holds as well.

    The error may be spread over the bins in any way. Added to the same noise (users are drawn anew, bins stay as they are) it shows least where it
    lies in the quietest bin alone, and most where each bin has its share by its noise: the ends are the least error of the first kind and the largest of the
    second under which the plain value is no surprise, widened to hold that value. So it covers the true value at least as often as `level` says.
    """
    gaps, noise, share = _gaps(labels, probabilities, groups, draws, seed)
    if not len(gaps):
        return float("nan"), float("nan")
    value = ece(labels, probabilities)
    spread = noise.std(0)
    quietest = np.arange(len(gaps)) == np.argmin(np.where(share > 0, spread, np.inf))

    def quantile(error: float, way: Float, q: float) -> float:
        return float(np.quantile(np.abs(error * way + noise).sum(1), q))

    even = spread / spread.sum() if spread.any() else share
    low = _largest(lambda error: quantile(error, quietest.astype(np.float64), (1 + level) / 2) < value, value)
    high = _largest(lambda error: quantile(error, even, (1 - level) / 2) <= value, 2 * value)
    return min(low, value), max(high, value)


def ece_l2(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, groups: Int, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Debiased l2 calibration error (Kumar, Liang and Ma, NeurIPS 2019, arXiv:1909.10155) and its interval: the root of the mean over rows of the squared
    distance of mean probability and rate of their bin, less what noise alone adds to it, and 0 where that is less.

    The noise is that of drawing users anew, where the paper's rows are independent; the ends are the errors under which what was seen is no surprise.
    """
    gaps, noise, share = _gaps(labels, probabilities, groups, draws, seed)
    if not len(gaps):
        return float("nan"), (float("nan"), float("nan"))
    scale = 1 / np.sqrt(np.where(share > 0, share, np.inf))
    gaps, noise = gaps * scale, noise * scale
    seen = float((gaps**2).sum())
    way = gaps / np.sqrt(seen) if seen else gaps

    def quantile(error: float, q: float) -> float:
        return float(np.quantile(((error * way + noise) ** 2).sum(1), q))

    most = 2 * float(np.sqrt(seen)) + 6 * float(noise.std())
    low = _largest(lambda error: quantile(error, (1 + level) / 2) < seen, most)
    high = _largest(lambda error: quantile(error, (1 - level) / 2) <= seen, most)
    value = float(np.sqrt(max(seen - (noise**2).sum(1).mean(), 0.0)))
    return value, (min(low, value), max(high, value))


def _gaps(labels: npt.ArrayLike, probabilities: npt.ArrayLike, groups: Int, draws: int, seed: int) -> tuple[Float, Float, Float]:
    """Of BINS bins: probability less rate times the share of rows (BINS,); its noise when users are drawn anew (draws, BINS); that share (BINS,)."""
    from scipy import sparse

    y, p = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if not len(y):
        return np.empty(0), np.empty((0, 0)), np.empty(0)
    _, group = np.unique(groups, return_inverse=True)
    which = bins_of(p, BINS)
    shape = (int(group.max(initial=-1)) + 1, BINS)
    sums = sparse.coo_array((p - y, (group, which)), shape=shape).tocsr()
    rows = np.bincount(group, minlength=shape[0]).astype(np.float64)
    gaps = np.asarray(sums.sum(0)) / len(y)
    drawn = np.array([(times @ sums) / (times @ rows) for times in drawn_users(group, draws, seed)])
    return gaps, drawn - drawn.mean(0), np.bincount(which, minlength=BINS) / len(y)


def _largest(holds: Callable[[float], bool], most: float) -> float:
    """The largest number in [0, most] of which `holds`, which is true up to it, to 2^-18 of `most`; 0 where it never is."""
    low, high = 0.0, most
    for _ in range(18):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _percentiles(values: Float, level: float) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_gauc(
    labels: npt.ArrayLike, a: Sequence[npt.ArrayLike], b: Sequence[npt.ArrayLike], groups: npt.NDArray[np.integer], *,
    average: Literal["metric", "score"] = "metric", draws: int = 10_000, seed: int = 0,
) -> Difference:  # fmt: skip
    """GAUC of system `a` minus that of `b`, each given by the scores (R,) of its seeds, with a bootstrap interval over users and a sign-flip p.

    `average`: metric, each user's AUC is averaged over the seeds; score, the scores are, and the AUC is that of the mean.
    """

    def of(seeds: Sequence[npt.ArrayLike]) -> Float:
        if average == "score":
            return _of_rows(labels, np.mean([np.asarray(s, dtype=np.float64) for s in seeds], axis=0), groups)
        return np.asarray(np.mean([_of_rows(labels, s, groups) for s in seeds], axis=0))

    return paired_difference(of(a), of(b), draws=draws, seed=seed, clusters=groups)


def _of_rows(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.NDArray[np.integer]) -> Float:
    """(R,) the AUC of the group of each row: its plain mean is GAUC weighted by rows."""
    value, _, group = grouped_auc(labels, scores, groups)
    return value[group]


class RankEvaluation(Evaluation):
    """What was measured of a ranker. `users` counts the groups, `rows` the impressions."""

    protocol: RankProtocol
    rows: int = 0
    successes: int = 0
    dropped_groups: int = 0
    """users without both classes, which GAUC cannot ask"""
    curve: list[tuple[float, float, int]] = []
    """calibration: mean probability, rate, rows of each bin"""
    lift: list[tuple[float, float, float, int]] = []
    """tenths of the rows by score, the highest first: rate of success, that over the mean, share of all successes so far, rows"""
    importance: dict[str, dict[str, float]] = {}
    """field -> {auc, gauc} lost when its values change places"""
    objectives: dict[str, dict[str, float]] = {}
    """of a ranker of several objectives: objective -> rows that tell of it, rate, AUC, GAUC and log loss of its own chances"""


def measure(
    labels: npt.NDArray[np.float32], logits: Float, probabilities: Float, users: Int, lengths: Int, *, intervals: bool = True,
    cuts: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, dict[str, float]], dict[str, Float]]:  # fmt: skip
    """Metrics, 95 % intervals, slices by history length (R,) and of `cuts` (name -> (R,) which rows), and the values of single rows for paired tests."""
    y = np.asarray(labels > 0.5, dtype=np.float64)
    raw = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
    values = {"gauc": _of_rows(y, logits, users), "logloss": log_losses(y, probabilities), "logloss_raw": log_losses(y, raw)}
    plain: dict[str, Callable[[], float]] = {
        "auc": lambda: auc(y, logits),
        "gauc": lambda: gauc(y, logits, users)[0],
        "gauc_equal": lambda: gauc(y, logits, users, "equal")[0],
        "logloss": lambda: float(values["logloss"].mean()),
        "ece": lambda: ece(y, probabilities),
        "logloss_raw": lambda: float(values["logloss_raw"].mean()),
        "ece_raw": lambda: ece(y, raw),
    }
    metrics = {name: value for name, make in plain.items() if np.isfinite(value := make())}
    ci: dict[str, tuple[float, float]] = {}
    if intervals:
        ci = {name: bootstrap_ci(row, clusters=users) for name, row in values.items() if name in metrics}
        if "auc" in metrics:
            ci["auc"] = auc_ci(y, logits, users)
        ci["ece"], ci["ece_raw"] = ece_ci(y, probabilities, users), ece_ci(y, raw, users)
        metrics["ece_l2"], ci["ece_l2"] = ece_l2(y, probabilities, users)
        if "gauc_equal" in metrics:
            of_groups, _, _ = grouped_auc(y, logits, users)
            ci["gauc_equal"] = bootstrap_ci(of_groups)
    return metrics, ci, _slices(y, logits, probabilities, users, lengths, cuts or {}), values


def _slices(
    y: Float, logits: Float, probabilities: Float, users: Int, lengths: Int, cuts: Mapping[str, npt.NDArray[np.bool_]]
) -> dict[str, dict[str, float]]:
    parts = {}
    for low, high in pairwise([*HISTORY_EDGES, np.inf]):
        name = "0" if high == 1 else f">{low - 1:.0f}" if high == np.inf else f"{low:.0f}-{high - 1:.0f}"
        parts[f"history:{name}"] = (lengths >= low) & (lengths < high)
    found: dict[str, dict[str, float]] = {}
    for name, kept in (parts | dict(cuts)).items():
        if not kept.any():
            continue
        row = {"auc": auc(y[kept], logits[kept]), "gauc": gauc(y[kept], logits[kept], users[kept])[0]}
        row["logloss"] = float(log_losses(y[kept], probabilities[kept]).mean())
        found[name] = {"users": float(kept.sum())} | {key: value for key, value in row.items() if np.isfinite(value)}
    return found
