"""Logistic regression over fields, the baseline of click-through benchmarks (Richardson, Dominowska and Ragno, WWW 2007). A weight for each code of each
field, and a bias, all 0 at first; of a multi-valued field the mean weight. The history enters through the features of the past only. Differs from online
variants: Adam in place of FTRL. Numbers: recipes/logistic.tallrec-movielens.yaml."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.config import PositiveFloat
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.ranker import Ranker


@system("logistic", stage="rank", family="ranking", year=2007, status="works")
class Logistic(Ranker):
    """The sum of a weight a field."""

    toy = {"lr": 0.1, "epochs": 30}
    shares = True

    class Config(Ranker.Config):
        """Settings of logistic."""

        scale: PositiveFloat = 1e-12
        """Standard deviation weights start with."""
        lr: PositiveFloat = 1e-2
        """Learning rate of Adam."""

    def width(self, config: Any) -> int:
        return 1

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        self.bias = nn.Parameter(torch.zeros(()))

    def logit(self, batch: Impressions) -> Tensor:
        """The bias, and the weights of all fields of the item, the user and the impression."""
        return self.bias + self.features.item(batch.items).sum(-1) + self.features.others(batch.users, batch.fields).sum((-1, -2))
