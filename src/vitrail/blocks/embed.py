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
