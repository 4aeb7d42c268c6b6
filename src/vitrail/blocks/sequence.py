"""The causal Transformer of sequence systems. Sequences are left-aligned: real events first, padding behind, so a causal
mask alone keeps padding out of every real position."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.drop import Dropout

Norm = Literal["pre", "post"]
Activation = Literal["relu", "gelu"]


def positions_from_end(mask: Tensor, length: int) -> Tensor:
    """mask (B, T) -> (B, T) position ids in [0, length): the last real event always has length - 1, as in SASRec's
    left-padded input; padding gets 0."""
    steps = torch.arange(mask.shape[1], device=mask.device)
    return ((length - mask.sum(1))[:, None] + steps).clamp(0, length - 1) * mask


class Attention(nn.Module):
    """Multi-head self-attention; width D must be a multiple of `heads`."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, causal: bool, keep: Tensor | None) -> Tensor:
        """x (B, T, D); keep (B, 1, T, T) bool or none -> (B, T, D)"""
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        rate = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep, dropout_p=rate, is_causal=causal and keep is None)
        return self.out(y.transpose(1, 2).reshape(B, T, D))

    def weights(self, x: Tensor, newest: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), newest (B,) a position of each row, mask (B, T) -> (B, T) how much it attends to each event, the mean over heads; sums to 1."""
        return self._reads(x, newest, mask)[0].mean(1)

    def at(self, x: Tensor, newest: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), newest (B,) a position of each row, mask (B, T) events it may read -> (B, D), as `forward` gives it there outside training."""
        weights, v = self._reads(x, newest, mask)
        return self.out(torch.einsum("bht,bthd->bhd", weights, v).flatten(1))  # type: ignore[no-any-return]

    def _reads(self, x: Tensor, newest: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, T) what the position reads of each event, and their values (B, T, H, D / H)."""
        B, T, D = x.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(x[torch.arange(B, device=x.device), newest], weight[:D], bias[:D]).view(B, self.heads, D // self.heads)
        k, v = F.linear(x, weight[D:], bias[D:]).view(B, T, 2, self.heads, D // self.heads).unbind(2)
        scores = torch.einsum("bhd,bthd->bht", q, k) / (D // self.heads) ** 0.5
        return scores.masked_fill(~mask[:, None], -torch.inf).softmax(2), v


class TransformerLayer(nn.Module):
    """Attention and a feed-forward net (D -> inner -> D), each with residual, dropout and LayerNorm before or after."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float, norm: Norm, activation: Activation, eps: float) -> None:
        super().__init__()
        self.norm = norm
        self.attention = Attention(dim, heads, dropout)
        self.widen, self.narrow = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.norm_1, self.norm_2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.drop = Dropout(dropout)
        self.activate = F.gelu if activation == "gelu" else F.relu

    def forward(self, x: Tensor, causal: bool, keep: Tensor | None) -> Tensor:
        """x (B, T, D) -> (B, T, D)"""
        if self.norm == "pre":
            return self._wide(x + self.drop(self.attention(self.norm_1(x), causal, keep)))
        return self._wide(self.norm_1(x + self.drop(self.attention(x, causal, keep))))

    def at(self, x: Tensor, newest: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), newest (B,) a position of each row, mask (B, T) events it may read -> (B, D), as `forward` gives it there outside training."""
        own = x[torch.arange(x.shape[0], device=x.device), newest]
        if self.norm == "pre":
            return self._wide(own + self.attention.at(self.norm_1(x), newest, mask))
        return self._wide(self.norm_1(own + self.attention.at(x, newest, mask)))

    def _wide(self, x: Tensor) -> Tensor:
        """The second half, (..., D) -> (..., D)."""
        if self.norm == "pre":
            return x + self.drop(self.narrow(self.activate(self.widen(self.norm_2(x)))))
        return self.norm_2(x + self.drop(self.narrow(self.activate(self.widen(x)))))  # type: ignore[no-any-return]


class TransformerStack(nn.Module):
    """Embedded events + learned positions -> dropout -> layers (-> a closing LayerNorm where `norm` is pre).

    With `norm="post"` the LayerNorm stands after the embedding sum instead, as in BERT-style encoders. Weights are
    normal(0, 0.02).
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        heads: int,
        dropout: float,
        *,
        length: int,
        inner: int | None = None,
        norm: Norm = "pre",
        activation: Activation = "relu",
        scale: bool = False,
        causal: bool = True,
        eps: float = 1e-8,
    ) -> None:
        """`length`: positions known; `inner`: feed-forward width (none: D); `scale`: multiply events by sqrt(D)."""
        super().__init__()
        self.length, self.causal, self.norm = length, causal, norm
        self.scale = dim**0.5 if scale else 1.0
        self.positions = nn.Embedding(length, dim)
        self.layers = nn.ModuleList(TransformerLayer(dim, heads, inner or dim, dropout, norm, activation, eps) for _ in range(layers))
        self.edge = nn.LayerNorm(dim, eps=eps)
        self.drop = Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, events: Tensor, mask: Tensor) -> Tensor:
        """events (B, T, D), mask (B, T) true where an event is -> (B, T, D); rows of padding are meaningless."""
        x = self._through(events, mask, len(self.layers))
        return self.edge(x) if self.norm == "pre" else x

    def newest(self, events: Tensor, mask: Tensor) -> Tensor:
        """events (B, T, D), mask (B, T) -> (B, D): what `forward` gives at the newest event of each row outside training, for little more than half the
        work: in the last layer one position asks. A row without an event is meaningless."""
        at, steps = (mask.sum(1) - 1).clamp(min=0), torch.arange(mask.shape[1], device=mask.device)
        x = self._through(events, mask, max(len(self.layers) - 1, 0))
        for layer in self.layers[-1:]:
            x = layer.at(x, at, mask | (steps == at[:, None]))  # type: ignore[operator]
        if not self.layers:
            x = x[torch.arange(x.shape[0], device=x.device), at]
        return self.edge(x) if self.norm == "pre" else x

    def _through(self, events: Tensor, mask: Tensor, layers: int) -> Tensor:
        x = events * self.scale + self.positions(positions_from_end(mask, self.length))
        if self.norm == "post":
            x = self.edge(x)
        x = self.drop(x)
        # not causal: hide padding as a key, but let every row see itself so that none is empty
        keep = None if self.causal else (mask[:, None, None, :] | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device))
        for layer in self.layers[:layers]:
            x = layer(x, self.causal, keep)
        return x

    def attention(self, events: Tensor, mask: Tensor) -> Tensor:
        """events (B, T, D), mask (B, T), no row empty -> (B, T) what the newest position reads of each event in the last layer, the mean over heads."""
        x = self._through(events, mask, len(self.layers) - 1)
        last: Any = self.layers[-1]
        weights: Tensor = last.attention.weights(last.norm_1(x) if self.norm == "pre" else x, mask.sum(1) - 1, mask)
        return weights
