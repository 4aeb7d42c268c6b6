"""Embedding tables with stated initialisations."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

Init = Literal["xavier", "normal"]


def table(rows: int, width: int, init: Init = "xavier", scale: float = 0.02) -> nn.Parameter:
    """A trainable (rows, D) table: Xavier-uniform, or normal with standard deviation `scale`."""
    weights = torch.empty(max(rows, 1), width)
    if init == "normal":
        nn.init.normal_(weights, std=scale)
    else:
        nn.init.xavier_uniform_(weights)
    return nn.Parameter(weights)


class _Rows(torch.autograd.Function):
    """Rows of a table; the gradient is one pass of index_add."""

    @staticmethod
    def forward(ctx, weights: Tensor, codes: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.codes, ctx.rows = codes, len(weights)
        return weights.index_select(0, codes.flatten()).view(*codes.shape, weights.shape[1])

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        g = gradients[0].reshape(-1, gradients[0].shape[-1])
        return g.new_zeros(ctx.rows, g.shape[1]).index_add_(0, ctx.codes.flatten(), g), None


def rows(weights: Tensor, codes: Tensor) -> Tensor:
    """weights (N, D), codes of any shape -> (..., D). On a processor its gradient takes a third of the time of that of
    `functional.embedding`, which elsewhere it is: there index_add has no fixed order of its sums."""
    if weights.device.type != "cpu":
        return nn.functional.embedding(codes, weights)
    picked: Tensor = _Rows.apply(weights, codes)  # type: ignore[no-untyped-call]
    return picked


class _FewRows(torch.autograd.Function):
    """Rows of a table; the gradient is a sparse tensor that holds these rows alone."""

    @staticmethod
    def forward(ctx, weights: Tensor, codes: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.codes, ctx.rows = codes, len(weights)
        return weights.index_select(0, codes)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        g = gradients[0].contiguous()
        return torch.sparse_coo_tensor(ctx.codes[None], g, (ctx.rows, g.shape[1]), is_coalesced=True, check_invariants=False), None


def few_rows(weights: Tensor, codes: Tensor) -> Tensor:
    """weights (N, D), distinct codes (B,) in rising order -> (B, D), for wide tables of which a step reads a part: the gradient is as large as that part,
    and `train.optimise` goes through the table a block at a time."""
    picked: Tensor = _FewRows.apply(weights, codes)  # type: ignore[no-untyped-call]
    return picked


def cells(indptr: Tensor, indices: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """A sparse CSR tensor; the arrays are taken as they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # PyTorch calls the format beta
        return torch.sparse_csr_tensor(indptr, indices, values, size=size, check_invariants=False)


class _Dots(torch.autograd.Function):
    """Cells of u E^T. A gradient is a sum of weighted rows, of E for each row of u and of u for each row of E, so nothing (B, K, D) is made."""

    @staticmethod
    def forward(ctx, u: Tensor, E: Tensor, codes: Tensor, ridge: float) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        B, K = codes.shape
        flat, starts = codes.flatten(), torch.arange(0, B * K + 1, K)
        where = cells(starts, flat, u.new_zeros(B * K), (B, len(E)))
        ctx.save_for_backward(u, E, flat, starts)
        ctx.ridge = ridge / B
        size = u.new_zeros(())
        if ridge:
            often = torch.bincount(codes[:, :2].flatten(), minlength=len(E))
            ctx.few = often.nonzero()[:, 0]
            V = E.index_select(0, ctx.few)
            ctx.pulled = V * often[ctx.few, None]  # the gradient of half the squares of rows that are named often
            size = (torch.linalg.vector_norm(u).square() + torch.dot(V.flatten(), ctx.pulled.flatten())) * (ctx.ridge / 2)
        return torch.sparse.sampled_addmm(where, u, E.T, beta=0.0).values().view(B, K), size

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[no-untyped-def]
        u, E, flat, starts = (x.detach() for x in ctx.saved_tensors)  # a bag makes what its own gradient would need where one might be asked
        K, g = len(flat) // len(u), gradients[0].flatten()
        of_u = bag(E, flat, starts, g)
        order = by_code(flat, len(E))
        stops = torch.zeros(len(E) + 1, dtype=torch.int64)
        torch.cumsum(torch.bincount(flat, minlength=len(E)), 0, out=stops[1:])
        of_E = bag(u, order // K, stops, g[order])
        if ctx.ridge:
            weight = ctx.ridge * float(gradients[1])
            of_u.add_(u, alpha=weight)
            of_E.index_add_(0, ctx.few, ctx.pulled, alpha=weight)
        return of_u, of_E, None, None


def by_code(codes: Tensor, bound: int) -> Tensor:
    """codes (E,) in [0, bound) -> the order (E,) that sorts them, equal ones as they came."""
    small = codes.numpy().astype(np.uint16 if bound <= 1 << 16 else np.uint32)  # numpy sorts 16 bits by radix
    return torch.from_numpy(small.argsort(kind="stable"))


FEW = 9
"""Vectors a row below which scores are plain sums of products."""


def against(u: Tensor, vectors: Tensor) -> Tensor:
    """u (B, D), vectors (B, K, D) -> their inner products (B, K)."""
    # a batched product of matrices of few rows takes twice the time of the plain sum of products
    return (u[:, None] * vectors).sum(-1) if vectors.shape[1] < FEW else torch.einsum("bd,bkd->bk", u, vectors)


def dots(u: Tensor, E: Tensor, codes: Tensor, ridge: float = 0.0) -> tuple[Tensor, Tensor | float]:
    """Row b of u (B, D) times the rows of E (N, D) that codes (B, K) name -> (B, K); and `ridge` times half the summed squares of the rows of u and of
    those that the first two columns of codes name, over B (`l2_of_batch`). On a processor the rows of E are read where they lie."""
    # PyTorch's kernel wants no more cells than the matrix has
    if E.device.type != "cpu" or u.dtype != torch.float32 or E.dtype != torch.float32 or codes.shape[1] > len(E):
        vectors = rows(E, codes)
        return against(u, vectors), ridge * (u.square().sum() + vectors[:, :2].square().sum()) / (2 * len(u)) if ridge else 0.0
    found: tuple[Tensor, Tensor] = _Dots.apply(u, E, codes, ridge)  # type: ignore[no-untyped-call]
    return found


class ItemEmbedding(nn.Module):
    """Item codes -> vectors; `weight` (N, D) is also the tied output table."""

    def __init__(self, items: int, dim: int, init: Init = "normal", scale: float = 0.02) -> None:
        super().__init__()
        self.weight = table(items, dim, init, scale)

    def forward(self, codes: Tensor) -> Tensor:
        """codes (...,) -> (..., D)"""
        return nn.functional.embedding(codes, self.weight)


def bag(weights: Tensor, items: Tensor, indptr: Tensor, scale: Tensor | None = None) -> Tensor:
    """Sums of rows over ragged sets: weights (N, D), items (E,), indptr (B + 1,), scale (E,) or none -> (B, D); 0 for an
    empty set."""
    if not weights.shape[1]:  # the kernel of processors with wide registers refuses it
        return weights.new_zeros(len(indptr) - 1, 0)
    return nn.functional.embedding_bag(items, weights, indptr[:-1], mode="sum", per_sample_weights=scale)
