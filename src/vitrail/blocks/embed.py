"""Embedding tables with stated initialisations."""

from __future__ import annotations

from typing import Literal

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
    return nn.functional.embedding_bag(items, weights, indptr[:-1], mode="sum", per_sample_weights=scale)
