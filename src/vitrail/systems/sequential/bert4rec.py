"""BERT4Rec. Sun et al., CIKM 2019, arXiv:1904.06690. Differs from the original: masks are drawn anew every epoch instead of
ten times before training; only the newest `length` events are read, no windows slide over older ones; the mask is no
candidate of the softmax; Adam with the loop's schedule (the authors: linear decay, warm-up 100, clip 5, weight decay 0.01).
`cloze_last` is the authors' extra copy with the newest item alone masked (1/11 there, a half in RecBole). The authors' own
number of steps under-fits (card sequential/bert4rec): train until validation stops it. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.embed import ItemEmbedding
from vitrail.blocks.sequence import Activation, Norm, TransformerStack
from vitrail.config import PositiveInt, Rate, Share
from vitrail.data.batches import Sequences
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.next_item import NextItem


@system("bert4rec", stage="retrieve", family="sequential", paper="1904.06690", year=2019, status="measured")
class BERT4Rec(NextItem):
    """A Transformer that sees both sides fills in masked events; the mask after the newest event is the next item."""

    space: ClassVar[dict[str, Any]] = {"cloze_share": {"low": 0.1, "high": 0.7}}
    toy: ClassVar[dict[str, Any]] = {"dim": 32, "epochs": 80, "lr": 0.01, "layers": 1, "cloze_share": 0.4}

    class Config(NextItem.Config):
        """Settings of bert4rec."""

        target: Literal["shifted", "prefix", "cloze"] = "cloze"
        """What is predicted in training; this system knows cloze alone."""
        cloze_last: Share = 1 / 11
        """Share of rows in which the newest event alone is masked, as it is when the system answers."""
        layers: PositiveInt = 2
        """Transformer layers."""
        heads: PositiveInt = 2
        """Attention heads; must divide dim."""
        inner: PositiveInt | None = None
        """Width of the feed-forward nets; none: 4 dim."""
        dropout: Rate = 0.2
        """On embedded events, attention and feed-forward nets."""
        norm: Norm = "post"
        """Where LayerNorm stands."""
        activation: Activation = "gelu"
        """Of the feed-forward nets and the head."""
        head: bool = True
        """A dense layer, activation and LayerNorm before the dot product."""
        bias: bool = True
        """A bias for each item beside the dot product, learned from 0; cosine scoring has no place for it."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        if config.dim % config.heads:
            raise SettingError(f"heads={config.heads} does not divide dim={config.dim}: choose a divisor.")
        if config.target != "cloze":
            raise SettingError(f'System "bert4rec" sees both sides of a position and cannot be trained with target={config.target}: use cloze.')
        if config.bias and config.cosine:
            raise SettingError("A bias has no place in a cosine: set bias=false or cosine=false.")
        self.items = ItemEmbedding(sizes.items + 1, config.dim)  # the last row is the mask
        self.body = TransformerStack(
            config.dim,
            config.layers,
            config.heads,
            config.dropout,
            length=config.length,
            inner=config.inner or 4 * config.dim,
            norm=config.norm,
            activation=config.activation,
            causal=False,
            eps=1e-12,
        )
        if config.head:
            self.dense, self.closing = nn.Linear(config.dim, config.dim), nn.LayerNorm(config.dim, eps=1e-12)
            nn.init.normal_(self.dense.weight, std=0.02)
            nn.init.zeros_(self.dense.bias)
        if config.bias:
            self.biases = nn.Parameter(torch.zeros(max(sizes.items, 1), 1))

    def encode(self, batch: Sequences) -> Tensor:
        return self.body(self.items(batch.items), batch.mask)

    def newest(self, batch: Sequences) -> Tensor:
        return self.body.newest(self.items(batch.items), batch.mask)

    def ask(self, hidden: Tensor) -> Tensor:
        if self.config.head:
            activate = F.gelu if self.config.activation == "gelu" else F.relu
            hidden = self.closing(activate(self.dense(hidden)))
        # one more column, 1 here and the bias there, makes the bias part of the dot product
        return F.pad(hidden, (0, 1), value=1.0) if self.config.bias else hidden

    def item(self) -> Tensor:
        return torch.cat([super().item(), self.biases], 1) if self.config.bias else super().item()

    def similarity(self, items: Tensor) -> Tensor:
        unit = F.normalize(self._items[:, : self.config.dim], dim=1)
        return unit[items.to(unit.device)] @ unit.T
