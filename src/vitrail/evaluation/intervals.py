"""How sure a number is: percentile bootstrap over users, paired tests, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

_BLOCK = 4_000_000
"""Random numbers held at once."""
MANY = 100_000
"""From so many users on, sums over redrawn users are taken from their normal limit."""


class Difference(TypedDict):
    """A paired comparison: the mean of a - b, its interval, the two-sided p, the number of users."""

    diff: float
    ci: tuple[float, float]
    p: float
    n: int


def bootstrap_ci(
    values: npt.ArrayLike, level: float = 0.95, draws: int = 1000, seed: int = 0, *, clusters: npt.NDArray[np.integer] | None = None
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` (Q,) when users are drawn anew. NaN values are left out; all NaN gives (NaN, NaN).

    `clusters` (Q,) names the user of each value where a user has several: users are then drawn whole.
    """
    sums, sizes = _per_user(np.asarray(values, dtype=np.float64), clusters)
    if not len(sums):
        return float("nan"), float("nan")
    means = _redrawn_means(sums, sizes, draws, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
    *,
    flips: int = 10_000,
    clusters: npt.NDArray[np.integer] | None = None,
) -> Difference:
    """Mean of a - b over the same users (Q,), with a bootstrap interval and the p of a sign-flip permutation test (`flips` draws).

    p is (1 + draws as extreme) / (1 + flips), so it is never 0. Pairs with a NaN are left out.
    """
    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    sums, sizes = _per_user(d, clusters)
    if not len(sums):
        return {"diff": float("nan"), "ci": (float("nan"), float("nan")), "p": float("nan"), "n": 0}
    rng = np.random.default_rng(seed)
    diff = float(sums.sum() / sizes.sum())
    low, high = np.quantile(_redrawn_means(sums, sizes, draws, rng), [(1 - level) / 2, (1 + level) / 2])
    observed = abs(sums.sum())
    extreme = int((np.abs(_flipped_sums(sums, flips, rng)) >= observed * (1 - 1e-9) - 1e-12).sum())
    return {"diff": diff, "ci": (float(low), float(high)), "p": (1 + extreme) / (1 + flips), "n": len(sums)}


def holm(ps: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down rule, in the order given."""
    p = np.asarray(ps, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    corrected = np.empty_like(p)
    corrected[order] = stepped
    return corrected.tolist()


def _per_user(values: Float, clusters: npt.NDArray[np.integer] | None) -> tuple[Float, Float]:
    """Sum and number of the values of each user; NaN left out."""
    kept = ~np.isnan(values)
    if clusters is None:
        return values[kept], np.ones(int(kept.sum()))
    _, user = np.unique(clusters[kept], return_inverse=True)
    return np.bincount(user, weights=values[kept]).astype(np.float64), np.bincount(user).astype(np.float64)


def _redrawn_means(sums: Float, sizes: Float, draws: int, rng: np.random.Generator) -> Float:
    """(draws,) means when as many users as there are are drawn with replacement."""
    pairs, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    n = len(sums)
    if len(pairs) * 8 <= n:  # users with the same numbers are one group: a multinomial over groups is the same draw, and far fewer numbers
        times: npt.NDArray[np.integer] = rng.multinomial(n, counts / n, size=draws)
        totals = times @ pairs
        return totals[:, 0] / totals[:, 1]
    if n >= MANY:
        mean = sums.sum() / sizes.sum()
        return rng.normal(mean, np.sqrt(((sums - mean * sizes) ** 2).sum()) / sizes.sum(), size=draws)
    means = []
    block = max(1, _BLOCK // n)
    for start in range(0, draws, block):
        drawn = rng.integers(0, n, size=(min(block, draws - start), n), dtype=np.int32)
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    return np.concatenate(means)


def _flipped_sums(sums: Float, flips: int, rng: np.random.Generator) -> Float:
    """(flips,) sums when the sign of each user's sum is a fair coin."""
    size, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    if len(size) * 8 <= len(sums):
        return (2 * rng.binomial(counts, 0.5, size=(flips, len(size))) - counts) @ size
    if len(sums) >= MANY:
        return rng.normal(0.0, np.sqrt((sums**2).sum()), size=flips)
    each = np.repeat(size, counts)
    found = []
    block = max(1, _BLOCK // max(len(each), 1))
    for start in range(0, flips, block):
        rows = min(block, flips - start)
        bits = np.unpackbits(rng.integers(0, 256, size=(rows, -(-len(each) // 8)), dtype=np.uint8), axis=1, count=len(each))
        found.append(2.0 * (bits @ each.astype(np.float32)) - each.sum())
    return np.concatenate(found)


def wilson(hits: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927, JASA 22, 209-212): of `hits` in `trials`, at 95 % by default; (0, 1) of nothing."""
    if trials <= 0:
        return 0.0, 1.0
    share, scale = hits / trials, 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    half = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
