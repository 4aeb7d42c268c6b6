"""DIN. Zhou et al., KDD 2018, arXiv:1706.06978. A local activation unit weighs each event of the history in view of the target; the interest is their weighted
sum, without softmax, so that its length tells how strong it is. Differs from the public ports: padding never enters scores or the moments of Dice; softmax
and 1/sqrt(H) (the demo code of the authors) are settings; no batch normalisation in its place is the fixed affine map of that code. `attention: mean`
is the mean-pooling base model. Numbers: recipes/din.beauty-pairs.yaml, recipes/din.tallrec-movielens.yaml."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.activation import Activation
from vitrail.blocks.interact import Tower
from vitrail.blocks.interest import Scorer, TargetAttention, Weights
from vitrail.config import PositiveInt, Rate
from vitrail.data.batchers_rows import gather
from vitrail.data.batches import Impressions, Sets
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.ranker import Ranker


@system("din", stage="rank", family="ranking", paper="1706.06978", year=2018)
class DIN(Ranker):
    """The history in view of the target: what is near to it counts."""

    class Config(Ranker.Config):
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
        activation: Activation = "dice"
        """Of both MLPs."""
        hidden: list[PositiveInt] = [80, 40]
        """Widths of the MLP on top."""
        dropout: Rate = 0.0
        """In the MLP on top."""
        norm: bool = False
        """Batch normalisation in the MLP on top."""
        product: bool = True
        """The MLP reads interest * target too."""
        item_bias: bool = True
        """A number an item is added to the logit."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        H = self.features.item_width
        if config.attention == "multihead" and H % config.heads:
            raise SettingError(f"heads={config.heads} does not divide the width {H} of an item's vector (dim times its fields): choose a divisor.")
        self.attention = TargetAttention(
            H, config.attention, config.weights, hidden=config.attention_hidden, act=config.activation, heads=config.heads, scale=config.attention_scale
        )
        width = (3 if config.product else 2) * H + self.features.dim * self.features.other_fields
        self.tower = Tower(width, config.hidden, config.activation, dropout=config.dropout, norm=config.norm, out=1)
        self.bias = nn.Parameter(torch.zeros(sizes.items, 1)) if config.item_bias else None

    def logit(self, batch: Impressions) -> Tensor:
        """[interest ; target ; interest * target ; other fields] -> MLP -> plus the item's bias."""
        target, events = self.items_and_events(batch)
        interest = self.attention.packed(target, events, batch.mask)
        parts = [interest, target, *([interest * target] if self.config.product else []), self.features.others(batch.users, batch.fields).flatten(1)]
        logit: Tensor = self.tower(torch.cat(parts, dim=1)).squeeze(-1)
        return logit if self.bias is None else logit + F.embedding(batch.items, self.bias).squeeze(-1)

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
