"""The skeleton FieldRanker: rankers that see an impression as fields side by side, and write how fields act on each other.

Letters: B batch, F fields, D width of a field, H width of an item.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vitrail.blocks.activation import Activation
from vitrail.blocks.features import FirstOrder
from vitrail.blocks.interact import Tower
from vitrail.blocks.interest import TargetAttention
from vitrail.config import PositiveInt, Rate
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes
from vitrail.systems.ranker import Ranker, RankerSettings


class TowerSettings(RankerSettings):
    """Settings of rankers with an MLP over all fields."""

    activation: Activation = "relu"
    """Of the MLP."""
    hidden: list[PositiveInt] = [64, 32]
    """Widths of the MLP."""
    dropout: Rate = 0.0
    """In the MLP."""
    norm: bool = False
    """Batch normalisation in the MLP."""


class FieldRanker(Ranker):
    """A ranker over `vectors(batch)` (B, F, D): the fields of the item, of the user and of the impression, and the mean of the history, a field a field
    of the item."""

    shares = True

    class Config(Ranker.Config):
        """Settings of rankers over fields."""

        history: bool = True
        """The mean of the history is read, as one more field a field of the item."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        self.pool = TargetAttention(self.features.item_width, "mean")

    @property
    def fields(self) -> int:
        """F"""
        return self.features.item_fields * (1 + self.config.history) + self.features.other_fields

    def vectors(self, batch: Impressions) -> Tensor:
        """(B, F, D): fields of the item, of the user, of the impression, of the history."""
        other = self.features.others(batch.users, batch.fields)
        if not self.config.history:
            return torch.cat([self._apart(self.features.item(batch.items)), other], dim=1)
        target, events = self.items_and_events(batch)
        return torch.cat([self._apart(target), other, self._apart(self.pool.packed(target, events, batch.mask))], dim=1)

    def _apart(self, items: Tensor) -> Tensor:
        """(B, H) -> (B, fields of an item, D)"""
        return items.unflatten(1, (self.features.item_fields, self.features.dim))

    def first_order(self, *, bias: bool) -> FirstOrder:
        """A linear part over the same fields but the history, with tables of its own."""
        return FirstOrder(self.embedding(1, 0.0), bias=bias)

    def mlp(self, config: Any, width: int, out: int | None = None) -> Tower:
        """The MLP of `TowerSettings` over `width` numbers; `out` 1 ends it with a logit."""
        return Tower(width, config.hidden, config.activation, dropout=config.dropout, norm=config.norm, out=out)
