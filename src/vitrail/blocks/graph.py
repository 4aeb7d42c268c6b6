"""One bipartite graph, one normalisation, one propagate, shared by all graph systems."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


def bipartite_adjacency(indptr: Tensor, items: Tensor, n_items: int, *, normalise: bool = True) -> Tensor:
    """Symmetrically normalised adjacency D^-1/2 A D^-1/2 of the user-item graph, no self loops (LightGCN, equation 8); plain
    A without `normalise`: a row-normalised product is diag(1 / d) (A x), which keeps the gradient a product with A itself.

    indptr (U + 1,), items (E,): the training interactions in CSR form; repeated pairs count once. A node without an
    edge gets a zero row. Returns a sparse CSR float32 tensor (U + N, U + N), users first.
    """
    users = len(indptr) - 1
    R = sparse.csr_array((np.ones(len(items)), items.numpy(), indptr.numpy()), shape=(users, n_items), copy=True)  # the sum below works in place
    R.sum_duplicates()
    R.data[:] = 1.0
    degrees = np.concatenate([R.sum(1), R.sum(0)])
    scale = np.where(degrees > 0, 1 / np.sqrt(np.maximum(degrees, 1)), 0.0)
    A = sparse.csr_array(sparse.block_array([[None, R], [R.T, None]], format="csr"))
    A.sort_indices()
    rows = np.repeat(scale, np.diff(A.indptr))
    values = (rows * scale[A.indices] if normalise else A.data).astype(np.float32)
    # 32-bit indices: the sparse product is 1.5 times as fast with them
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # PyTorch calls the format beta
        return torch.sparse_csr_tensor(
            torch.from_numpy(A.indptr.astype(np.int32)), torch.from_numpy(A.indices.astype(np.int32)), torch.from_numpy(values), size=A.shape
        )


class _SymmetricProduct(torch.autograd.Function):
    """A x with A symmetric: the gradient is A g, one product, and no transpose of A is ever built."""

    @staticmethod
    def forward(ctx, A: Tensor, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.A = A
        return A @ x

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[None, Tensor]:  # type: ignore[no-untyped-def]
        return None, ctx.A @ gradients[0].contiguous()


def propagate(A: Tensor, x: Tensor) -> Tensor:
    """A (V, V) symmetric sparse CSR, x (V, D) -> A x (V, D), differentiable in x."""
    product: Tensor = _SymmetricProduct.apply(A, x)  # type: ignore[no-untyped-call]
    return product


class _MeanOfLayers(torch.autograd.Function):
    """(x + A x + ... + A^L x) / (L + 1) by Horner's rule. With A symmetric the gradient is the same function of the gradient, so
    nothing is kept for it and no layer but one is ever in memory."""

    @staticmethod
    def forward(ctx, A: Tensor, x: Tensor, depth: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.A, ctx.depth = A, depth
        return _horner(A, x, depth)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[None, Tensor, None]:  # type: ignore[no-untyped-def]
        return None, _horner(ctx.A, gradients[0].contiguous(), ctx.depth), None


def _horner(A: Tensor, x: Tensor, depth: int) -> Tensor:
    total = x
    for _ in range(depth):
        total = torch.addmm(x, A, total)
    return total / (depth + 1)


def mean_of_layers(A: Tensor, x: Tensor, depth: int) -> Tensor:
    """A (V, V) symmetric sparse CSR, x (V, D) -> the mean of x, A x, ..., A^depth x (V, D), differentiable in x."""
    mean: Tensor = _MeanOfLayers.apply(A, x, depth)  # type: ignore[no-untyped-call]
    return mean


def layers(A: Tensor, x: Tensor, depth: int) -> list[Tensor]:
    """[x, A x, ..., A^depth x], each (V, D)."""
    out = [x]
    for _ in range(depth):
        out.append(propagate(A, out[-1]))
    return out


def nudge(x: Tensor, length: float) -> Tensor:
    """x (V, D) with every row moved by exactly `length` in a random direction of its own orthant (SimGCL): no coordinate
    changes its sign, and a row of zeros stays."""
    step = torch.nn.functional.normalize(torch.rand_like(x), dim=1)
    return x + length * torch.sign(x) * step
