"""Metrics of a page as a whole: how many kinds it shows, and gains that fall when a kind comes again. Q queries, K places, C categories.

Beside them, in evaluation.metrics: intra-list diversity and coverage. Never read one of these without recall or NDCG (card ranking/diversity).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


def category_entropy(codes: Int, categories: npt.NDArray[np.floating]) -> Float:
    """(Q,) entropy in bits of the categories on a page, each item's weight shared among its own; NaN where no item has one.

    `codes` (Q, K), -1 where a page is short; `categories` (N, C), 1 where an item is of a category.
    """
    share = categories / np.maximum(categories.sum(1, keepdims=True), 1)
    mass = (share[np.maximum(codes, 0)] * (codes >= 0)[:, :, None]).sum(1)
    total = mass.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = mass / total
        bits = -np.where(p > 0, p * np.log2(p), 0.0).sum(1)
    return np.where(total[:, 0] > 0, bits, np.nan)


def alpha_ndcg(
    codes: Int, hits: npt.NDArray[np.bool_], target_indptr: Int, target_items: Int, categories: npt.NDArray[np.floating], alpha: float = 0.5
) -> Float:
    """(Q,) alpha-nDCG (Clarke et al., SIGIR 2008): a hit gains (1 - alpha)^(hits of that category above) for each of its categories, over the
    same of the best page by greedy choice among the targets. NaN where no target has a category.

    `hits` (Q, K) whether each listed item is a target; an item without a category gains nothing.
    """
    k = codes.shape[1]
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    kinds = categories[np.maximum(codes, 0)] * hits[:, :, None]
    above = np.cumsum(kinds, axis=1) - kinds
    gained = (kinds * (1 - alpha) ** above).sum(2) @ discounts
    ideal = np.zeros(len(codes))
    lengths = np.diff(target_indptr)
    for size in np.unique(lengths):  # queries with as many targets are one array
        rows = np.flatnonzero(lengths == size)
        items = target_items[target_indptr[rows][:, None] + np.arange(size)]
        left = categories[items].astype(np.float64)
        seen = np.zeros((len(rows), categories.shape[1]))
        free = np.ones(items.shape, dtype=bool)
        for place in range(min(k, int(size))):
            gain = np.where(free, ((1 - alpha) ** seen[:, None, :] * left).sum(2), -1.0)
            best = gain.argmax(1)
            at = np.arange(len(rows))
            ideal[rows] += gain[at, best] * discounts[place]
            free[at, best] = False
            seen += left[at, best]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ideal > 0, gained / ideal, np.nan)
