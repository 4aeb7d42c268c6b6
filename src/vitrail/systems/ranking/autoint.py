"""AutoInt. Song et al., CIKM 2019, arXiv:1810.11921. Fields read each other in layers of self-attention with a residual map; a linear layer reads what comes
out. With `hidden` an MLP over the same fields is added: AutoInt+. `variant` chooses the equations of the paper (the default) or of the code of the authors.
Differs: numbers are buckets by quantiles, not multiples of one vector; the history is read too, as one more field a field of the item (the mean of its
events)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from vitrail.blocks.interact import FieldAttention, Interacting, linear
from vitrail.config import NonNegativeInt, PositiveInt, Rate
from vitrail.data.batches import Impressions
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.field_ranker import FieldRanker, TowerSettings


@system("autoint", stage="rank", family="ranking", paper="1810.11921", year=2019, status="works")
class AutoInt(FieldRanker):
    """Crosses of fields of growing degree by self-attention."""

    class Config(FieldRanker.Config, TowerSettings):
        """Settings of autoint."""

        layers: NonNegativeInt = 3
        """Layers of attention; 0: a linear model over the vectors."""
        heads: PositiveInt = 2
        """Heads of a layer; must divide `attention_width`."""
        attention_width: PositiveInt = 64
        """Width of the fields that a layer gives, over all heads."""
        variant: Interacting = "paper"
        """Equations of the paper, or of the code of the authors: ReLU and bias in all maps, scaled scores, layer normalisation."""
        residual: bool = True
        """A map of the fields is added to what they read."""
        attention_dropout: Rate = 0.0
        """On the attention."""
        hidden: list[PositiveInt] = []
        """Widths of an MLP beside the attention (AutoInt+); none: no MLP."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().build(config, sizes, given)
        if config.attention_width % config.heads:
            raise SettingError(f"heads={config.heads} does not divide attention_width={config.attention_width}: choose a divisor.")
        widths = [self.features.dim, *[config.attention_width] * config.layers]
        kind = {"residual": config.residual, "dropout": config.attention_dropout}
        self.layers = nn.Sequential(*(FieldAttention(a, b, config.heads, config.variant, **kind) for a, b in pairwise(widths)))
        self.out = linear(self.fields * widths[-1], 1)
        self.deep = self.mlp(config, self.fields * self.features.dim, 1) if config.hidden else None

    def logit(self, batch: Impressions) -> Tensor:
        """A weight a number of what comes out of the layers, plus the MLP where there is one."""
        vectors = self.vectors(batch)
        logit: Tensor = self.out(self.layers(vectors).flatten(1)).squeeze(-1)
        return logit if self.deep is None else logit + self.deep(vectors.flatten(1)).squeeze(-1)
