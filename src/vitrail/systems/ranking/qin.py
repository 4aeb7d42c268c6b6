"""QIN. Second place of the MMCTR challenge at WWW 2025 (no paper id known). Sparse target attention: scores below 0 are 0 and nothing is normalised, so
that the strength of interest stays; then layers quadratic in their input. Frozen content vectors of an item, through a layer, stand beside its fields
where `vectors` names some. Differs from the original: only real events have scores (there masked ones are 0, which is the same); the tables are
regularised by `rare`. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.interact import linear
from vitrail.blocks.interest import TargetAttention
from vitrail.blocks.quadratic import QuadraticNet
from vitrail.config import PositiveInt, Rate
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import HistoryRanker, StoredContent
from vitrail.systems.ranker import RankerSettings


@system("qin", stage="rank", family="ranking", year=2025, status="works")
class QIN(HistoryRanker):
    """Attention that leaves out what does not matter, and quadratic layers."""

    content_fields: ClassVar[bool] = False
    shares: ClassVar[bool] = True

    class Config(StoredContent, RankerSettings):
        """Settings of qin."""

        vectors: tuple[str, ...] = ()
        """Names of content vectors that are read beside the fields; none by default."""
        attention_dim: PositiveInt = 64
        """Width A that queries, keys and values are projected to."""
        layers: PositiveInt = 4
        """Quadratic layers."""
        rows: PositiveInt = 4
        """Matrices a layer; fewer where it is unstable."""
        dropout: Rate = 0.1
        """In the quadratic layers."""
        norm: bool = True
        """Batch normalisation in them; wants large batches."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        H = self.features.item_width
        if config.vectors:
            self.frozen = self.content(given)
            self.project = nn.Linear(self.frozen.width, config.dim, bias=False)
            H += config.dim
        self.attention = TargetAttention(H, "multihead", "relu", scale=True, inner=config.attention_dim)
        width = 2 * H + self.features.dim * self.features.other_fields
        self.quadratic = QuadraticNet(width, config.layers, config.rows, config.dropout, norm=config.norm)
        self.out = linear(width, 1)

    def items_and_events(self, batch: Impressions) -> tuple[Tensor, Tensor]:
        """With the content of each item beside its fields."""
        target, events = super().items_and_events(batch)
        if not self.config.vectors:
            return target, events
        present, (of_target, of_events) = self.features.distinct(batch.items, batch.history[batch.mask])
        content = self.project(self.frozen(present))
        return torch.cat([target, F.embedding(of_target, content)], dim=1), torch.cat([events, F.embedding(of_events, content)], dim=1)

    def attended(self, batch: Impressions) -> tuple[Tensor, Tensor]:
        """Targets (B, H), and targets plus interest (B, H)."""
        target, events = self.items_and_events(batch)
        return target, target + self.attention.packed(target, events, batch.mask)

    def logit(self, batch: Impressions) -> Tensor:
        """[target ; target + interest ; other fields] -> quadratic layers -> a number"""
        x0 = torch.cat([*self.attended(batch), self.features.others(batch.users, batch.fields).flatten(1)], dim=1)
        return self.out(self.quadratic(x0)).squeeze(1)  # type: ignore[no-any-return]
