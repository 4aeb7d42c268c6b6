"""DeepFM. Guo et al., IJCAI 2017, arXiv:1703.04247. A factorization machine and an MLP over the same vectors, added. Differs: the history is read too, as
one more field a field of the item (the mean of its events).
Numbers: none yet."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vitrail.blocks.interact import pair_sum
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.field_ranker import FieldRanker, TowerSettings


@system("deepfm", stage="rank", family="ranking", paper="1703.04247", year=2017, status="works")
class DeepFM(FieldRanker):
    """Pairs of fields by dot products, and all of them by an MLP."""

    class Config(FieldRanker.Config, TowerSettings):
        """Settings of deepfm."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().build(config, sizes, given)
        self.linear = self.first_order(bias=True)
        self.deep = self.mlp(config, self.fields * self.features.dim, 1)

    def logit(self, batch: Impressions) -> Tensor:
        """Linear part, pairs and MLP, the last two over the same vectors."""
        vectors = self.vectors(batch)
        return self.linear(batch.items, batch.users, batch.fields) + pair_sum(vectors) + self.deep(vectors.flatten(1)).squeeze(-1)  # type: ignore[no-any-return]
