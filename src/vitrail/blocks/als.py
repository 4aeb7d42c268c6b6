"""Alternating least squares for implicit feedback: one side solved while the other is fixed.

For a row u with items i in it: A_u x_u = b_u, A_u = Y^T Y + ridge_u I + sum_i (c_ui - 1) y_i y_i^T, b_u = sum_i c_ui y_i,
where c_ui is the confidence of a stored cell; every other cell has confidence 1 and preference 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from vitrail.blocks.embed import bag

Solver = Literal["cg", "cholesky"]
BLOCK = 1 << 19
"""Numbers gathered at once by the exact solver: they stay in the processor's cache while a batch is solved."""


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


def half_sweep(C: sparse.csr_array, Y: Tensor, X: Tensor, ridge: Tensor, solver: Solver, steps: int = 3) -> Tensor:
    """The rows (U, D) that are best, or nearer to it, for the fixed table Y (N, D).

    C (U, N) confidences of stored cells, float; X (U, D) where conjugate gradients start; ridge (U,); `steps` of conjugate
    gradients. Rows without a cell are 0.
    """
    if solver == "cg":
        return _conjugate_gradients(C, Y, X, ridge, steps)
    indptr = C.indptr.astype(np.int64)
    items, confidence = torch.from_numpy(C.indices.astype(np.int64)), torch.from_numpy(C.data.astype(np.float32)).to(Y.dtype)
    gram, out = Y.T @ Y, torch.zeros_like(X)
    for rows, places, mask in batches(indptr, Y.shape[1]):
        chosen, where = torch.from_numpy(rows), torch.from_numpy(places)
        c = torch.where(torch.from_numpy(mask), confidence[where], 0.0)
        extra = torch.where(torch.from_numpy(mask), c - 1, 0.0)
        V = Y.index_select(0, items[where].flatten()).view(*mask.shape, -1)  # (B, T, D)
        b = torch.bmm(c[:, None], V)[:, 0]
        A = gram + torch.bmm(V.transpose(1, 2) * extra[:, None], V)
        A.diagonal(dim1=1, dim2=2).add_(ridge[chosen, None])
        out[chosen] = torch.cholesky_solve(b[:, :, None], torch.linalg.cholesky(A))[:, :, 0]
    return out


def _conjugate_gradients(C: sparse.csr_array, Y: Tensor, x: Tensor, ridge: Tensor, steps: int) -> Tensor:
    """All rows at once. A p without ever forming A, as two sparse products over the stored cells: p_u . y_i in each cell, and
    back; the rows of Y are read where they lie, never gathered."""
    indptr, indices = torch.from_numpy(C.indptr.astype(np.int32)), torch.from_numpy(C.indices.astype(np.int32))
    confidence = torch.from_numpy(C.data.astype(np.float32)).to(Y.dtype)

    def cells(values: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")  # PyTorch calls the format beta
            return torch.sparse_csr_tensor(indptr, indices, values, size=C.shape, check_invariants=False)

    gram, extra, where = Y.T @ Y, confidence - 1, cells(torch.zeros_like(confidence))

    def apply(p: Tensor) -> Tensor:
        dots = torch.sparse.sampled_addmm(where, p, Y.T, beta=0.0).values()
        return torch.addcmul(bag(Y, indices, indptr, dots * extra), p, ridge[:, None]).addmm_(p, gram)

    r = bag(Y, indices, indptr, confidence) - apply(x)
    p, size = r, (r * r).sum(1)
    for _ in range(steps):
        Ap = apply(p)
        # a row that is solved already has r = 0: its step is 0, not 0 / 0
        step = (size / (p * Ap).sum(1).clamp(min=1e-30))[:, None]
        x, r = x + step * p, r - step * Ap
        before, size = size, (r * r).sum(1)
        p = r + (size / before.clamp(min=1e-30))[:, None] * p
    return x.masked_fill(torch.from_numpy(np.diff(C.indptr) == 0)[:, None], 0.0)
