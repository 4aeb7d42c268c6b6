"""Alternating least squares for implicit feedback: one side solved while the other is fixed.

For a row u with items i in it: A_u x_u = b_u, A_u = Y^T Y + ridge_u I + sum_i (c_ui - 1) y_i y_i^T, b_u = sum_i c_ui y_i,
where c_ui is the confidence of a stored cell; every other cell has confidence 1 and preference 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from vitrail.blocks.embed import bag, cells

Solver = Literal["cg", "cholesky"]
BLOCK = 1 << 19
"""Numbers gathered at once by the exact solver: they stay in the processor's cache while a batch is solved."""

SOLVED = 1e-12
"""Squared length of what is left, over that of the right side, at which a row counts as solved."""


def batches(indptr: npt.NDArray[np.int64], width: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
    """Rows that are not empty, sorted by length: (rows (B,), places (B, T) of their entries, mask (B, T))."""
    lengths = np.diff(indptr)
    order = np.argsort(lengths, kind="stable")
    start = int(np.searchsorted(lengths[order], 1))
    while start < len(order):
        # as many rows as fit when padded to the longest of them; rows grow, so the guess by the first is an upper bound
        stop = min(len(order), start + max(1, BLOCK // (width * max(int(lengths[order[start]]), width))))
        while stop > start + 1 and (stop - start) * lengths[order[stop - 1]] * width > BLOCK:
            stop = start + max(1, (stop - start) // 2)
        rows = order[start:stop]
        steps = np.arange(lengths[rows[-1]])
        mask = steps < lengths[rows, None]
        yield rows, np.where(mask, indptr[rows, None] + steps, 0), mask
        start = stop


class Run:
    """Some rows of a matrix of confidences as the solvers read them."""

    def __init__(self, C: sparse.csr_array, start: int, stop: int) -> None:
        """Rows `start` to `stop` of C (U, N), confidences of the stored cells."""
        self.rows, self.C = slice(start, stop), C[start:stop]
        self.indptr, self.indices = torch.from_numpy(self.C.indptr.astype(np.int32)), torch.from_numpy(self.C.indices.astype(np.int32))
        self.confidence = torch.from_numpy(self.C.data.astype(np.float32))
        self.empty = torch.from_numpy(np.diff(self.C.indptr) == 0)[:, None]
        self.where = cells(self.indptr, self.indices, torch.zeros_like(self.confidence), self.C.shape)


def runs(C: sparse.csr_array, count: int) -> list[Run]:
    """C (U, N) cut into at most `count` runs of rows with about equally many cells."""
    marks = np.searchsorted(C.indptr, np.linspace(0, C.nnz, count + 1)[1:-1])
    bounds = np.unique(np.concatenate([[0], marks, [C.shape[0]]]))
    return [Run(C, int(start), int(stop)) for start, stop in pairwise(bounds)] or [Run(C, 0, C.shape[0])]


def half_sweep(
    C: sparse.csr_array | list[Run], Y: Tensor, X: Tensor, ridge: Tensor, solver: Solver, steps: int | None = 3, pool: Executor | None = None
) -> Tensor:
    """The rows (U, D) that are best, or nearer to it, for the fixed table Y (N, D).

    C (U, N) confidences of stored cells, float, or their `runs`, which the threads of `pool` solve side by side; X (U, D) where
    conjugate gradients start; ridge (U,); `steps` of conjugate gradients, none: as many as it takes to solve, which from a start
    nearby is far less work than forming every matrix. Rows without a cell are 0.
    """
    parts = C if isinstance(C, list) else [Run(C, 0, C.shape[0])]
    gram = Y.T @ Y

    def solve(run: Run) -> Tensor:
        own = (run, Y, gram, ridge[run.rows])
        return _conjugate_gradients(*own, X[run.rows], steps) if solver == "cg" else _exact(*own)

    return torch.cat(list(map(solve, parts) if pool is None else pool.map(solve, parts)))


def _exact(run: Run, Y: Tensor, gram: Tensor, ridge: Tensor) -> Tensor:
    items, confidence = run.indices.long(), run.confidence.to(Y.dtype)
    out = Y.new_zeros(len(ridge), Y.shape[1])
    for rows, places, mask in batches(run.C.indptr.astype(np.int64), Y.shape[1]):
        chosen, where = torch.from_numpy(rows), torch.from_numpy(places)
        c = torch.where(torch.from_numpy(mask), confidence[where], 0.0)
        extra = torch.where(torch.from_numpy(mask), c - 1, 0.0)
        V = Y.index_select(0, items[where].flatten()).view(*mask.shape, -1)  # (B, T, D)
        b = torch.bmm(c[:, None], V)[:, 0]
        A = gram + torch.bmm(V.transpose(1, 2) * extra[:, None], V)
        A.diagonal(dim1=1, dim2=2).add_(ridge[chosen, None])
        out[chosen] = torch.cholesky_solve(b[:, :, None], torch.linalg.cholesky(A))[:, :, 0]
    return out


def _conjugate_gradients(run: Run, Y: Tensor, gram: Tensor, ridge: Tensor, x: Tensor, steps: int | None) -> Tensor:
    """All rows at once. A p without ever forming A, as two sparse products over the stored cells: p_u . y_i in each cell, and
    back; the rows of Y are read where they lie, never gathered."""
    confidence, where = run.confidence.to(Y.dtype), run.where.to(Y.dtype)
    extra = confidence - 1

    def apply(p: Tensor) -> Tensor:
        dots = torch.sparse.sampled_addmm(where, p, Y.T, beta=0.0).values()
        return torch.addcmul(bag(Y, run.indices, run.indptr, dots * extra), p, ridge[:, None]).addmm_(p, gram)

    b = bag(Y, run.indices, run.indptr, confidence)
    r = b - apply(x)
    p, size, small = r, (r * r).sum(1), SOLVED * (b * b).sum(1)
    last = 2 * Y.shape[1] if steps is None else steps  # exact sums would be through after D
    for n in range(last):
        if steps is None and bool((size <= small).all()):
            break
        Ap = apply(p)
        # a row that is solved already has r = 0: its step is 0, not 0 / 0
        step = (size / (p * Ap).sum(1).clamp(min=1e-30))[:, None]
        x = torch.addcmul(x, step, p)
        if n + 1 == steps:
            break
        r = torch.addcmul(r, step, Ap, value=-1.0)
        before, size = size, (r * r).sum(1)
        p = torch.addcmul(r, (size / before.clamp(min=1e-30))[:, None], p)
    if steps is None and bool((left := size > small).any()):
        hard = left.nonzero()[:, 0]
        rest = run.C[hard.numpy()]
        x = x.index_copy(0, hard, _exact(Run(rest, 0, len(hard)), Y, gram, ridge[hard]))
    return x.masked_fill(run.empty, 0.0)
