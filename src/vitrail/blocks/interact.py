"""Interactions between fields: the towers and the cross networks of rankers. B batch, D width of the flat input x0."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from vitrail.blocks.activation import Activation, activation


class Tower(nn.Module):
    """Linear layers with an activation each, batch normalisation before it and dropout after it where asked; `out` ends it with a plain layer."""

    def __init__(
        self, width: int, hidden: Sequence[int], act: Activation = "relu", *, dropout: float = 0.0, norm: bool = False, out: int | None = None
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise([width, *hidden]):
            layers.append(linear(a, b))
            if norm:
                layers.append(nn.BatchNorm1d(b))
            layers.append(activation(act, b))
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.width = hidden[-1] if hidden else width
        if out is not None:
            layers.append(linear(self.width, out))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, width) -> (B, out), or (B, last hidden width)"""
        return self.layers(x)  # type: ignore[no-any-return]


def linear(width: int, out: int) -> nn.Linear:
    """A layer with Xavier-normal weights and zero bias, as click-through libraries start them."""
    layer = nn.Linear(width, out)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class CrossNet(nn.Module):
    """x_{l+1} = x0 * (W_l x_l + b_l) + x_l. DCNv2 (Wang et al., WWW 2021, arXiv:2008.13535)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(linear(width, width) for _ in range(layers))

    def forward(self, x0: Tensor) -> Tensor:
        """x0 (B, D) -> (B, D)"""
        x = x0
        for layer in self.layers:
            x = torch.addcmul(x, x0, layer(x))
        return x


class CrossMix(nn.Module):
    """The low-rank mixture: x_{l+1} = sum over experts g_e(x_l) * x0 * (U_e tanh(C_e tanh(V_e^T x_l)) + b_l) + x_l, g a softmax."""

    def __init__(self, width: int, layers: int, rank: int, experts: int) -> None:
        super().__init__()
        self.down = nn.ParameterList(nn.Parameter(torch.empty(experts, width, rank)) for _ in range(layers))
        self.core = nn.ParameterList(nn.Parameter(torch.empty(experts, rank, rank)) for _ in range(layers))
        self.up = nn.ParameterList(nn.Parameter(torch.empty(experts, rank, width)) for _ in range(layers))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(layers))
        self.gates = nn.ModuleList(nn.Linear(width, experts, bias=False) for _ in range(layers))
        for weights in (*self.down, *self.core, *self.up):
            for expert in weights:
                nn.init.xavier_normal_(expert)

    def forward(self, x0: Tensor) -> Tensor:
        """x0 (B, D) -> (B, D)"""
        x = x0
        for down, core, up, bias, gate in zip(self.down, self.core, self.up, self.bias, self.gates, strict=True):
            inner = torch.tanh(torch.einsum("bd,edr->ber", x, down))
            inner = torch.tanh(torch.einsum("ber,ers->bes", inner, core))
            share = torch.softmax(gate(x), dim=-1)
            # the experts' outputs share x0 and the bias, and their shares add up to 1
            x = torch.addcmul(x, x0, torch.einsum("be,bes,esd->bd", share, inner, up) + bias)
        return x
