"""Two modules of REARM (Wang et al., MM 2025): attention between the coordinates of kinds of content, and a transform of each node's own.

Letters: V nodes, M kinds of content, D width, L rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.drop import new_seed, stays

BLOCK = 1 << 18
"""Weights between coordinates that lie in the cache twice over."""


class _BetweenCoordinates(torch.autograd.Function):
    """Attention of width 1: coordinate i of a row takes sum_j softmax_j(q_i k_j) v_j, dropout on the weights. A block of rows at a time, made again on the way
    back; of the (V, D, D) weights none are kept. All that gradients need of a block are products of its weights with a few columns."""

    @staticmethod
    def _weights(q: Tensor, k: Tensor, rate: float, seed: int) -> tuple[Tensor, Tensor]:
        """Shares before and after dropout (B, D, D)."""
        most = torch.maximum(q * k.amax(1, keepdim=True), q * k.amin(1, keepdim=True))  # the largest of q_i k_j over j
        shares = torch.addcmul(-most[:, :, None], q[:, :, None], k[:, None]).exp_()
        shares.div_(shares.sum(2, keepdim=True))
        return shares, shares * stays(shares, rate, seed).to(q.dtype) if rate else shares

    @staticmethod
    def _blocks(x: Tensor) -> list[slice]:
        size = max(1, (BLOCK if x.device.type == "cpu" else BLOCK << 9) // x.shape[1] ** 2)
        return [slice(start, start + size) for start in range(0, len(x), size)]

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, rate: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.rate, ctx.seed, ctx.scale = rate, new_seed() if rate else 0, 1 / (1 - rate) if rate < 1 else 0.0
        out = torch.empty_like(v)
        for n, part in enumerate(_BetweenCoordinates._blocks(q)):
            _, left = _BetweenCoordinates._weights(q[part], k[part], rate, ctx.seed ^ n)
            torch.mul(_along(left, v[part]), ctx.scale, out=out[part])
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[no-untyped-def]
        q, k, v, out = ctx.saved_tensors
        of_q, of_k, of_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for n, part in enumerate(_BetweenCoordinates._blocks(q)):
            asks, told, values, g = q[part], k[part], v[part], gradients[0][part]
            shares, left = _BetweenCoordinates._weights(asks, told, ctx.rate, ctx.seed ^ n)
            through, c = g * ctx.scale, g * out[part]
            of_q[part] = through * _along(left, values * told) - c * _along(shares, told)
            back = torch.bmm(torch.stack([through * asks, through], 1), left)
            of_k[part] = values * back[:, 0] - torch.bmm((c * asks)[:, None], shares)[:, 0]
            of_v[part] = back[:, 1]
        return of_q, of_k, of_v, None


def _along(weights: Tensor, x: Tensor) -> Tensor:
    """weights (B, D, D), x (B, D) -> sum over j of w_ij x_j (B, D): a third of the time of a batched product with one column."""
    return (weights * x[:, None]).sum(2)


def between_coordinates(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """q, k, v (V, D) -> (V, D): coordinate i of a row is the sum of its v_j by the softmax over j of q_i k_j, dropout on the weights; differentiable."""
    found: Tensor = _BetweenCoordinates.apply(q, k, v, dropout)  # type: ignore[no-untyped-call]
    return found


class CrossKinds(nn.Module):
    """M kinds (V, D) each -> the same, after each has attended to itself and then been asked by the others. A vector is read as D scalars: attention of
    width 1 between coordinates. What is attended is added, normalised and bent; the norm and the bend are one for all."""

    def __init__(self, dim: int, kinds: int, self_drop: float, cross_drop: float, bend: nn.Module) -> None:
        super().__init__()
        self.within = nn.ModuleList(nn.MultiheadAttention(1, 1, dropout=self_drop, batch_first=True) for _ in range(kinds))
        self.across = nn.ModuleList(nn.MultiheadAttention(1, 1, dropout=cross_drop, batch_first=True) for _ in range(kinds if kinds > 1 else 0))
        self.norm, self.bend = nn.LayerNorm(dim), bend

    def _step(self, attention: Any, asks: Tensor, told: Tensor) -> Tensor:
        (wq, wk, wv), (bq, bk, bv) = attention.in_proj_weight[:, 0], attention.in_proj_bias
        found = between_coordinates(asks * wq + bq, told * wk + bk, told * wv + bv, attention.dropout if self.training else 0.0)
        bent: Tensor = self.bend(self.norm(told + found * attention.out_proj.weight[0, 0] + attention.out_proj.bias[0]))
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
