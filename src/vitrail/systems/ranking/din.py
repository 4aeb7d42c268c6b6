"""DIN. Zhou et al., KDD 2018, arXiv:1706.06978. A local activation unit weighs each event of the history in view of the target; the interest is their weighted
sum, without softmax, so that its length tells how strong it is. Differs from the public ports: padding never enters scores or the moments of Dice; softmax
and 1/sqrt(H) (the demo code of the authors) are settings; no batch normalisation in its place is the fixed affine map of that code. `attention: mean`
is the mean-pooling base model. Numbers: recipes/din.beauty-pairs.yaml, recipes/din.tallrec-movielens.yaml."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from vitrail.blocks.interest import Scorer, TargetAttention, Weights
from vitrail.config import PositiveInt
from vitrail.data.batchers_rows import gather
from vitrail.data.batches import Impressions, Sets
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import HistoryRanker


@system("din", stage="rank", family="ranking", paper="1706.06978", year=2018, status="works")
class DIN(HistoryRanker):
    """The history in view of the target: what is near to it counts."""

    shares: ClassVar[bool] = True

    class Config(HistoryRanker.Config):
        """Settings of din."""

        attention: Scorer = "mlp"
        """How an event is scored: an MLP over [q ; k ; q - k ; q * k], a dot product, bilinear, multihead; mean: not at all (the base model)."""
        weights: Weights = "raw"
        """What is made of scores: they are the weights (the paper), softmax (the demo code), relu."""
        attention_scale: bool = False
        """Divide scores by sqrt(H)."""
        attention_hidden: list[PositiveInt] = [64]
        """Widths of the scoring MLP."""
        heads: PositiveInt = 1
        """Heads of multihead; must divide H."""
        product: bool = True
        """The MLP reads interest * target too."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        H = self.features.item_width
        if config.attention == "multihead" and H % config.heads:
            raise SettingError(f"heads={config.heads} does not divide the width {H} of an item's vector (dim times its fields): choose a divisor.")
        self.attention = TargetAttention(
            H, config.attention, config.weights, hidden=config.attention_hidden, act=config.activation, heads=config.heads, scale=config.attention_scale
        )
        self.top((3 if config.product else 2) * H)

    def logit(self, batch: Impressions) -> Tensor:
        """[interest ; target ; interest * target ; other fields] -> MLP -> plus the item's bias."""
        target, events = self.items_and_events(batch)
        interest = self.attention.packed(target, events, batch.mask)
        return self.finish(batch, interest, target, *([interest * target] if self.config.product else []))

    def attention_to(self, histories: Sets, items: Tensor) -> tuple[Tensor, Tensor] | None:
        """One history, items (1, K) -> (1, T) its newest events, and (1, K, T) how much of the interest in each item each of them is: positive weights,
        the mean over heads, as shares. None where the mean of the history is taken whatever the item, or there is no event."""
        if self.config.attention == "mean" or not len(histories.items):
            return None
        batch = gather(self.rows_at(histories, items), np.arange(items.shape[1]), self.config.length).to(next(self.parameters()).device)
        target, events = self.items_and_events(batch)
        weights = self.attention.weigh(target, events, batch.mask, batch.mask.nonzero()[:, 0], bool(batch.mask.all())).mean(1).clamp(min=0)
        spread = weights.new_zeros(batch.mask.shape).masked_scatter(batch.mask, weights)
        shares = spread / spread.sum(1, keepdim=True).clamp(min=1e-12)
        return batch.history[:1].masked_fill(~batch.mask[:1], -1).cpu(), shares[None].cpu()
