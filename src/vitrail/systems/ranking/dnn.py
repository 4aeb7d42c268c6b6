"""An MLP over the vectors of all fields: the deep half of Wide & Deep (Cheng et al., DLRS 2016, arXiv:1606.07792) and the baseline that tuned click-through
benchmarks (BARS) find hard to beat. Differs: the history is read too, as one more field a field of the item (the mean of its events).
Numbers: none yet."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.field_ranker import FieldRanker, TowerSettings


@system("dnn", stage="rank", family="ranking", paper="1606.07792", year=2016, status="works")
class DNN(FieldRanker):
    """All fields through an MLP."""

    class Config(FieldRanker.Config, TowerSettings):
        """Settings of dnn."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().build(config, sizes, given)
        self.deep = self.mlp(config, self.fields * self.features.dim, 1)

    def logit(self, batch: Impressions) -> Tensor:
        """The fields side by side through the MLP."""
        return self.deep(self.vectors(batch).flatten(1)).squeeze(-1)  # type: ignore[no-any-return]
