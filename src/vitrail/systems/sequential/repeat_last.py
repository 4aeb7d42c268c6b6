"""Repeat last: the newest item again, then what follows it. No paper: the floor that any system must beat where people come
back to the same thing. Under a protocol that masks what was seen it is `last-item` and nothing more; it means something
with repeats (`include_seen`). A baseline without a card of its own; see docs/cards/last_item.md. Numbers: none yet."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vitrail.config import PositiveInt
from vitrail.data.batches import Sets
from vitrail.systems.base import system
from vitrail.systems.sequential.last_item import LastItem


@system("repeat-last", stage="retrieve", family="sequential", status="works")
class RepeatLast(LastItem):
    """The newest item again, then the person's own items from new to old if asked, then what follows the newest."""

    class Config(LastItem.Config):
        """Settings of repeat-last."""

        again: Literal["newest", "all"] = "newest"
        """What comes again first: the newest item, or all own items, newest first."""
        recall: PositiveInt = 50
        """Newest events that come again (again all)."""

    def scores(self, histories: Sets) -> Tensor:
        plain = super().scores(histories)
        own = histories.last(1 if self.config.again == "newest" else self.config.recall)
        width = own.items.shape[1]
        above = plain.amax(1, keepdim=True) + 1 + torch.arange(width)
        # amax: an item met twice counts where it was newest; padding adds nothing
        lifted = torch.where(own.mask.cpu(), above, -torch.inf)
        return plain.scatter_reduce(1, own.items.cpu(), lifted, "amax")

    def similarity(self, items: Tensor) -> Tensor:
        return super().scores(Sets(torch.full_like(items, -1), torch.arange(len(items) + 1), items))
