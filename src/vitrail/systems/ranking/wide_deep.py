"""Wide & Deep. Cheng et al., DLRS 2016, arXiv:1606.07792. A linear model over fields and over crosses of fields (an AND of one value each), which
memorises, and an MLP, which generalises, under one loss. Crosses are hashed tuples of codes; one with a value that training never saw, or that is missing,
weighs nothing. Differs: Adam for both halves (the paper: FTRL with L1, AdaGrad); numbers are buckets by quantiles; the history is read by the deep half, as
one more field a field of the item (the mean of its events)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.compress import folded, hashed, polynomial
from vitrail.config import PositiveInt
from vitrail.data.batches import Impressions
from vitrail.data.fields import UNSEEN
from vitrail.errors import SettingError, unknown
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.field_ranker import FieldRanker, TowerSettings


@system("wide-deep", stage="rank", family="ranking", paper="1606.07792", year=2016, status="works")
class WideDeep(FieldRanker):
    """Weights of fields and of their crosses beside an MLP."""

    class Config(FieldRanker.Config, TowerSettings):
        """Settings of wide-deep."""

        crosses: list[list[str]] = []
        """Each a list of fields with one value: what they are together has a weight. Take no pair that names single events of training, as user and item."""
        cross_space: PositiveInt = 100_000
        """Weights of each cross, into which its values are hashed; at least 4 times as many as there are values."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().build(config, sizes, given)
        self.linear = self.first_order(bias=True)
        self.deep = self.mlp(config, self.fields * self.features.dim, 1)
        single = [f.name for f in self.spec.fields if f.kind != "categories"]
        for name in (name for cross in config.crosses for name in cross):
            if name not in single:
                raise unknown("field of one value", name, single)
        if any(len(set(cross)) < 2 for cross in config.crosses):
            raise SettingError(f"A cross is made of at least two fields, and crosses={config.crosses} has one of fewer: name another field, or leave it out.")
        self.members = [[single.index(name) for name in cross] for cross in config.crosses]
        self.crosses = nn.ParameterList(nn.Parameter(torch.zeros(config.cross_space, 1)) for _ in config.crosses)

    def logit(self, batch: Impressions) -> Tensor:
        """Fields and crosses by their weights, and all fields through the MLP."""
        wide = self.linear(batch.items, batch.users, batch.fields) + self.crossed(batch)
        return wide + self.deep(self.vectors(batch).flatten(1)).squeeze(-1)  # type: ignore[no-any-return]

    def crossed(self, batch: Impressions) -> Tensor:
        """(B,) the weights of the crosses."""
        total, codes = torch.zeros_like(batch.labels), self.features.codes(batch.items, batch.users, batch.fields)
        for place, (members, weights) in enumerate(zip(self.members, self.crosses, strict=True)):
            values = codes[:, members]
            mixing = polynomial(place, 1)
            rows = hashed(folded(values, mixing[0]), mixing, len(weights))
            total = total + F.embedding(rows, weights).squeeze(-1) * (values > UNSEEN).all(1)
        return total
