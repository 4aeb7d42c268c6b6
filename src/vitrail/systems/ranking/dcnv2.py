"""DCN V2. Wang et al., WWW 2021, arXiv:2008.13535. Cross layers x0 * (W x + b) + x, of full rank or as a mixture of low-rank experts, beside or below an MLP.
Differs from click-through libraries: the history is read too, as one more field a field of the item (the mean of its events). Numbers:
recipes/dcnv2.tallrec-movielens.yaml."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from vitrail.blocks.interact import CrossMix, CrossNet, linear
from vitrail.config import PositiveInt
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.field_ranker import FieldRanker, TowerSettings


@system("dcnv2", stage="rank", family="ranking", paper="2008.13535", year=2021, status="works")
class DCNv2(FieldRanker):
    """Explicit crosses of fields of bounded degree, and an MLP."""

    class Config(FieldRanker.Config, TowerSettings):
        """Settings of dcnv2."""

        cross: Literal["full", "mix"] = "full"
        """Matrices of full rank, or a mixture of low-rank experts."""
        cross_layers: PositiveInt = 3
        """Cross layers; the degree of the crosses is one more."""
        rank: PositiveInt = 16
        """Rank of an expert (mix)."""
        experts: PositiveInt = 4
        """Experts of a layer (mix)."""
        structure: Literal["parallel", "stacked", "stacked_parallel", "crossnet_only"] = "parallel"
        """Where the MLP stands: beside the crosses, on them, both, or nowhere."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().build(config, sizes, given)
        width = self.fields * self.features.dim
        mix = config.cross == "mix"
        self.crosses = CrossMix(width, config.cross_layers, config.rank, config.experts) if mix else CrossNet(width, config.cross_layers)
        deep = config.structure != "crossnet_only"
        self.tower = self.mlp(config, width) if deep else None
        self.beside = self.mlp(config, width) if "_parallel" in config.structure else None
        ends = {"crossnet_only": width, "stacked": config.hidden[-1], "parallel": width + config.hidden[-1], "stacked_parallel": 2 * config.hidden[-1]}
        self.out = linear(ends[config.structure], 1)

    def logit(self, batch: Impressions) -> Tensor:
        """Fields side by side are x0 (B, width)."""
        return self.out(self.interact(self.vectors(batch).flatten(1))).squeeze(-1)  # type: ignore[no-any-return]

    def interact(self, x0: Tensor) -> Tensor:
        """x0 (B, width) -> what the last layer reads"""
        crossed: Tensor = self.crosses(x0)
        if self.tower is None:
            return crossed
        if self.config.structure == "parallel":
            return torch.cat([crossed, self.tower(x0)], dim=1)
        deep: Tensor = self.tower(crossed)
        return deep if self.beside is None else torch.cat([deep, self.beside(x0)], dim=1)
