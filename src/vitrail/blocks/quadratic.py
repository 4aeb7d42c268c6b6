"""Quadratic layers: QIN (2025). B batch, D width, R rows."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.drop import Dropout


class QuadraticNet(nn.Module):
    """x_{l+1} = x_l + Dropout(PReLU(Norm(x_l * sum over r of (W_r x_l + b_r)))).

    The sum is that of a single matrix; `rows` matrices differ from one in how they are dropped and learned.
    """

    def __init__(self, width: int, layers: int, rows: int, dropout: float = 0.0, *, norm: bool = True) -> None:
        super().__init__()
        self.rows = rows
        self.maps = nn.ModuleList(nn.Linear(width, rows * width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if norm else nn.Identity() for _ in range(layers))
        self.acts = nn.ModuleList(nn.PReLU() for _ in range(layers))
        self.drop = Dropout(dropout)

    def product(self, layer: int, x: Tensor) -> Tensor:
        """x (B, D) -> (B, D), the quadratic part of a layer"""
        of = self.maps[layer]
        if not self.training or not self.drop.rate:  # what is added up anyhow is added up before it is multiplied
            weight, bias = (part.unflatten(0, (self.rows, -1)).sum(0) for part in of.parameters())
            return x * F.linear(x, weight, bias)
        return x * self.drop(of(x)).unflatten(1, (self.rows, -1)).sum(1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """x (B, D) -> (B, D)"""
        for layer, (norm, act) in enumerate(zip(self.norms, self.acts, strict=True)):
            x = x + self.drop(act(norm(self.product(layer, x))))
        return x
