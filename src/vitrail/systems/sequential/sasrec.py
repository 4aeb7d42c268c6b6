"""SASRec. Kang and McAuley, ICDM 2018, arXiv:1808.09781. Differs from the original: full, sampled and gBCE losses beside
the paper's BCE; sequences are left-aligned with positions counted from the end (the same numbers, no attention to padding);
pre- or post-LayerNorm layers as in the public PyTorch ports. Numbers: recipes/sasrec*.beauty.yaml."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vitrail.blocks.embed import ItemEmbedding
from vitrail.blocks.sequence import Activation, Norm, TransformerStack
from vitrail.config import PositiveInt, Rate
from vitrail.data.batches import Sequences
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.next_item import NextItem


@system("sasrec", stage="retrieve", family="sequential", paper="1808.09781", year=2018, status="measured")
class SASRec(NextItem):
    """A causal Transformer over the newest events predicts the next item."""

    class Config(NextItem.Config):
        """Settings of sasrec."""

        layers: PositiveInt = 2
        """Transformer layers."""
        heads: PositiveInt = 1
        """Attention heads; must divide dim."""
        inner: PositiveInt | None = None
        """Width of the feed-forward nets; none: dim."""
        dropout: Rate = 0.2
        """On embedded events, attention and feed-forward nets."""
        norm: Norm = "pre"
        """Where LayerNorm stands."""
        activation: Activation = "relu"
        """Of the feed-forward nets."""
        scale: bool = True
        """Multiply item vectors by sqrt(dim) at the input."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        if config.dim % config.heads:
            raise SettingError(f"heads={config.heads} does not divide dim={config.dim}: choose a divisor.")
        if config.target == "cloze":
            raise SettingError('System "sasrec" is causal and cannot be trained with target=cloze: use shifted or prefix.')
        self.items = ItemEmbedding(sizes.items, config.dim)
        self.body = TransformerStack(
            config.dim,
            config.layers,
            config.heads,
            config.dropout,
            length=config.length,
            inner=config.inner,
            norm=config.norm,
            activation=config.activation,
            scale=config.scale,
        )

    def encode(self, batch: Sequences) -> Tensor:
        return self.body(self.items(batch.items), batch.mask)  # type: ignore[no-any-return]

    def newest(self, batch: Sequences) -> Tensor:
        return self.body.newest(self.items(batch.items), batch.mask)
