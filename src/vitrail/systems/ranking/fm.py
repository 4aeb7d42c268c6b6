"""Factorization machine. Rendle, ICDM 2010. A bias, a weight a code, and the dot product of each pair of fields, in linear time. Of a field with several
values the mean vector is one field: pairs inside it are not counted. Differs from the paper: Adam in place of SGD and ALS; the history is read too, as the
mean of its events, with the vectors of the items.
Numbers: none yet."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vitrail.blocks.interact import pair_sum
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.field_ranker import FieldRanker


@system("fm", stage="rank", family="ranking", year=2010, status="works")
class FM(FieldRanker):
    """Every pair of fields by the dot product of their vectors."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().build(config, sizes, given)
        self.linear = self.first_order(bias=True)

    def logit(self, batch: Impressions) -> Tensor:
        """w0 + sum w_i + sum over pairs of v_i . v_j"""
        return self.linear(batch.items, batch.users, batch.fields) + pair_sum(self.vectors(batch))
