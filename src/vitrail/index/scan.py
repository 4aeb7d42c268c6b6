"""The exact search: blocked matrix products, the k best of each row, ties as everywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vitrail.evaluation.ranking import REMOVED, by_tie_rank, top_k
from vitrail.index.base import Float, Int

SCORES = 1 << 24
"""Scores held at once."""
QUERIES, COLUMNS = 256, 1 << 14
"""A block of a search too large to be one product."""


def scan(
    vectors: Float, queries: Float, k: int, keys: Tensor, ranks: Callable[[], Tensor], rows: Int | None = None, closed: Int | None = None
) -> tuple[Int, Float]:
    """The k best rows of `vectors` (n, D) for queries (B, D): rows (B, k), -1 where there is none, and scores (B, k).

    `keys` (n,) and `ranks` break ties; `rows` (S,) are looked at alone; `closed` (C,) rows are passed over.
    """
    n, count = len(vectors) if rows is None else len(rows), len(queries)
    Q = torch.from_numpy(queries)
    step, width = (count, max(n, 1)) if count * n <= SCORES else (QUERIES, max(COLUMNS, SCORES // min(count, QUERIES)) if count < QUERIES else COLUMNS)
    space = torch.empty(min(step, count) * min(width, n))  # the scores of a block: one piece of memory, used again
    found = np.full((count, k), -1, dtype=np.int64)
    values = np.full((count, k), -np.inf, dtype=np.float32)
    for top in range(0, count, max(step, 1)):
        q = Q[top : top + step]
        parts: list[tuple[Tensor, Tensor]] = []
        for left in range(0, n, width):
            here = slice(left, left + width)
            V = torch.from_numpy(vectors[here] if rows is None else vectors[rows[here]])
            scores = torch.matmul(q, V.float().T, out=space[: len(q) * len(V)].view(len(q), len(V)))
            if closed is not None:
                shut = closed[np.searchsorted(closed, left) : np.searchsorted(closed, left + width)] - left
                scores[:, torch.from_numpy(shut)] = REMOVED
            chosen = here if rows is None else torch.from_numpy(rows[here])
            codes, worth = top_k(scores, k, lambda chosen=chosen: ranks()[chosen])  # type: ignore[misc]
            parts.append((worth, torch.where(codes < 0, -1, codes + left) if rows is None else _outer(codes, rows[here])))
        if len(parts) == 1:
            worth, codes = parts[0]
        elif parts:
            worth, codes = by_tie_rank(torch.cat([part[0] for part in parts], 1), torch.cat([part[1] for part in parts], 1), keys)
        else:
            continue
        found[top : top + step], values[top : top + step] = codes[:, :k].numpy(), worth[:, :k].numpy()
    return found, values


def _outer(codes: Tensor, rows: Int) -> Tensor:
    return torch.where(codes < 0, -1, torch.from_numpy(rows)[codes.clamp(min=0)])
