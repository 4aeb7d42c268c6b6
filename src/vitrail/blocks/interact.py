"""Interactions between fields: towers, cross networks, pairs of factorization machines, self-attention. B batch, F fields, D width (of a field, or of the
flat input x0 of towers and cross networks)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.blocks.activation import Activation, activation
from vitrail.blocks.drop import Dropout


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
                layers.append(Dropout(dropout))
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


def pair_sum(vectors: Tensor) -> Tensor:
    """The sum of v_i . v_j over all pairs i < j of vectors (B, F, D), in O(F D): half of (the square of the sum less the sum of squares) -> (B,).

    FM (Rendle, ICDM 2010).
    """
    return (vectors.sum(1).square() - vectors.square().sum(1)).sum(-1) / 2


def pair_dots(vectors: Tensor) -> Tensor:
    """v_i . v_j of each pair i < j of vectors (B, F, D), row by row -> (B, F (F - 1) / 2). DLRM (Naumov et al., arXiv:1906.00091)."""
    first, second = (torch.from_numpy(places).to(vectors.device) for places in np.triu_indices(int(vectors.shape[1]), 1))
    return torch.bmm(vectors, vectors.transpose(1, 2))[:, first, second]


Interacting = Literal["paper", "released"]


class FieldAttention(nn.Module):
    """Fields read each other: self-attention over fields, a residual map, ReLU. AutoInt (Song et al., CIKM 2019, arXiv:1810.11921).

    paper: relu(concat_h softmax(Q_h K_h^T) V_h + x W_res), maps without bias, no scale. released (the code of the authors): ReLU on Q, K, V and on the
    residual, maps with bias, scores over sqrt(D_h), layer normalisation at the end.
    """

    def __init__(self, width: int, out: int, heads: int, variant: Interacting = "paper", *, residual: bool = True, dropout: float = 0.0) -> None:
        """`width` of the fields that come in, `out` of those that go out; `heads` must divide `out`; `dropout` on the attention."""
        super().__init__()
        self.heads, self.variant = heads, variant
        released = variant == "released"
        self.q, self.k, self.v = (nn.Linear(width, out, bias=released) for _ in range(3))
        self.residual = nn.Linear(width, out, bias=released) if residual else None
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(out, eps=1e-8) if released else None
        for layer in (self.q, self.k, self.v, self.residual):
            if layer is not None:
                nn.init.xavier_normal_(layer.weight)

    def weigh(self, x: Tensor) -> Tensor:
        """x (B, F, width) -> (B, heads, F, F) what share of each other field a field reads; rows add up to 1."""
        q, k = (self._heads(self._map(layer, x)) for layer in (self.q, self.k))
        scores = q @ k.transpose(-1, -2)
        return torch.softmax(scores * q.shape[-1] ** -0.5 if self.norm is not None else scores, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, F, width) -> (B, F, out)"""
        read = self.dropout(self.weigh(x)) @ self._heads(self._map(self.v, x))
        y = read.transpose(1, 2).flatten(2)
        y = torch.relu(y if self.residual is None else y + self._map(self.residual, x))
        return y if self.norm is None else self.norm(y)  # type: ignore[no-any-return]

    def _map(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return torch.relu(layer(x)) if self.norm is not None else layer(x)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
