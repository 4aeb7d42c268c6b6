"""Two modules of REARM (Wang et al., MM 2025): attention between the coordinates of kinds of content, and a transform of each node's own.

Letters: V nodes, M kinds of content, D width, L rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossKinds(nn.Module):
    """M kinds (V, D) each -> the same, after each has attended to itself and then been asked by the others. A vector is read as D scalars: attention of
    width 1 between coordinates. What is attended is added, normalised and bent; the norm and the bend are one for all."""

    def __init__(self, dim: int, kinds: int, self_drop: float, cross_drop: float, bend: nn.Module) -> None:
        super().__init__()
        self.within = nn.ModuleList(nn.MultiheadAttention(1, 1, dropout=self_drop, batch_first=True) for _ in range(kinds))
        self.across = nn.ModuleList(nn.MultiheadAttention(1, 1, dropout=cross_drop, batch_first=True) for _ in range(kinds if kinds > 1 else 0))
        self.norm, self.bend = nn.LayerNorm(dim), bend

    def _step(self, attention: nn.Module, asks: Tensor, told: Tensor) -> Tensor:
        found = attention(asks[..., None], told[..., None], told[..., None], need_weights=False)[0][..., 0]
        bent: Tensor = self.bend(self.norm(told + found))
        return bent

    def forward(self, kinds: list[Tensor]) -> list[Tensor]:
        """M of (V, D) -> M of (V, D)"""
        kinds = [self._step(attention, x, x) for attention, x in zip(self.within, kinds, strict=True)]
        if not len(self.across):
            return kinds
        total = torch.stack(kinds).sum(0)
        return [self._step(attention, (total - x) / (len(kinds) - 1), x) for attention, x in zip(self.across, kinds, strict=True)]


class LowRank(nn.Module):
    """x -> (x^T A) B with A (D, L) and B (L, D) of each node's own, made of what else is known of it and of the mean over all nodes. Columns of A,
    and of B, are shares: with even ones every coordinate is the mean of x."""

    def __init__(self, width: int, dim: int, rank: int) -> None:
        """`width` of what A and B are made of. Nothing trains the map that compresses it: no gradient goes there, as in the authors' code."""
        super().__init__()
        self.dim, self.rank = dim, rank
        self.compress = nn.Linear(width, dim).requires_grad_(False)
        self.makers = nn.ModuleList(nn.Sequential(nn.Linear(dim, dim * rank), nn.PReLU(), nn.Linear(dim * rank, dim * rank)) for _ in range(2))
        self.register_buffer("means", torch.zeros(2, dim * rank), persistent=False)

    def forward(self, x: Tensor, known: Tensor, whole: bool = True) -> Tensor:
        """x (V, D), known (V, width) -> (V, D); where the rows are not the `whole`, the means are those of the last time they were."""
        compressed = self.compress(known.detach())
        factors = []
        for place, (maker, shape) in enumerate(zip(self.makers, ((self.dim, self.rank), (self.rank, self.dim)), strict=True)):
            made = F.normalize(maker(compressed), dim=1)
            mean = made.mean(0) if whole else self.get_buffer("means")[place]
            self.get_buffer("means")[place] = mean.detach()
            factors.append((made + mean).view(-1, *shape).softmax(1))
        return torch.einsum("vd,vdl,vle->ve", x, *factors)
