"""Slices: the same metrics over the popular, the middling, the rare and the new targets, and over short and long histories."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

HISTORY_EDGES = (0, 1, 6, 21, 101)
"""Lower ends of the history-length buckets: 0, 1-5, 6-20, 21-100, over 100 events."""


@dataclass(frozen=True)
class Slice:
    """Some of the queries, and which items count as targets there (none: all)."""

    name: str
    queries: Bool | None = None
    """(Q,)"""
    items: Bool | None = None
    """(N,) a query is in the slice when one of its targets is; the other targets are not counted"""


def popularity_groups(train_counts: Int, head: float = 0.5, mid: float = 0.8) -> npt.NDArray[np.int8]:
    """(N,) 0 head, 1 mid, 2 tail. Items from the most popular down belong to the head until it has the share `head` of the train
    events, to the middle until both have the share `mid`, else to the tail. Items with equal counts are never parted, so the head
    can be larger than its share and the group does not depend on how items are numbered.
    """
    counts = np.sort(train_counts)[::-1]
    share = np.cumsum(counts) / max(int(counts.sum()), 1)
    least = [counts[min(int(np.searchsorted(share, cut - 1e-12)), len(counts) - 1)] if len(counts) else 0 for cut in (head, mid)]
    groups = np.where(train_counts >= least[0], 0, np.where(train_counts >= least[1], 1, 2))
    return np.where(train_counts > 0, groups, 2).astype(np.int8)


def default_slices(train_counts: Int, history_lengths: Int) -> list[Slice]:
    """Target popularity (`popularity:head|mid|tail`), targets without a train event (`items:cold`), history length (`history:1-5` and on).

    `train_counts` (N,), `history_lengths` (Q,).
    """
    groups = popularity_groups(train_counts)
    found = [Slice(f"popularity:{name}", items=groups == code) for code, name in enumerate(("head", "mid", "tail"))]
    found.append(Slice("items:cold", items=train_counts == 0))
    for low, high in pairwise(HISTORY_EDGES):
        name = str(low) if high == low + 1 else f"{low}-{high - 1}"
        found.append(Slice(f"history:{name}", queries=(history_lengths >= low) & (history_lengths < high)))
    found.append(Slice(f"history:>{HISTORY_EDGES[-1] - 1}", queries=history_lengths >= HISTORY_EDGES[-1]))
    return found


def rank_slices(users: Int, items: Int, train_users: Int, train_items: Int, n_items: int) -> dict[str, Bool]:
    """Name -> (R,) which rows: `users:new` and `users:known` by whether training has a row of them; `popularity:head|mid|tail` and `items:cold` by the
    successes of the item in training, `train_items` (S,)."""
    known = np.isin(users, train_users)
    counts = np.bincount(train_items, minlength=n_items)
    groups = popularity_groups(counts)[items]
    cold = counts[items] == 0
    found = {"users:known": known, "users:new": ~known}
    return found | {f"popularity:{name}": (groups == code) & ~cold for code, name in enumerate(("head", "mid", "tail"))} | {"items:cold": cold}
