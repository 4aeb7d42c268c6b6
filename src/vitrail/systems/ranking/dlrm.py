"""DLRM. Naumov et al., 2019, arXiv:1906.00091. Numbers go through a bottom MLP to one vector of width D; its dot products with the vectors of the other fields,
and theirs with each other, and the vector itself are read by a top MLP. Differs: a number is the place of its bucket among the buckets of the training rows,
from 0 to 1, with 0 and a mark of its own where it is missing (the paper: logarithms of counts); the history is read too, as one more field a field of
the item (the mean of its events)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vitrail.blocks.interact import Tower, pair_dots
from vitrail.config import PositiveInt
from vitrail.data.batches import Impressions
from vitrail.data.fields import UNSEEN
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.field_ranker import FieldRanker, TowerSettings


@system("dlrm", stage="rank", family="ranking", paper="1906.00091", year=2019, status="works")
class DLRM(FieldRanker):
    """Dot products of all pairs of fields, with the numbers as one of them."""

    toy = {"dim": 16}

    class Config(FieldRanker.Config, TowerSettings):
        """Settings of dlrm."""

        bottom: list[PositiveInt] = [64]
        """Widths of the MLP over numbers, before its last layer of width D."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().build(config, sizes, given)
        single = [f for f in self.spec.fields if f.kind != "categories"]
        self.numbers = [place for place, f in enumerate(single) if f.kind == "number"]
        self.register_buffer("buckets", torch.tensor([max(single[place].codes - 3, 1) for place in self.numbers]), persistent=False)
        n = len(self.numbers)
        self.bottom = Tower(2 * n, [*config.bottom, self.features.dim], config.activation) if n else None
        kept = self.kept()
        self.register_buffer("sparse", torch.tensor(kept), persistent=False)
        vectors = len(kept) + (n > 0)
        self.top = self.mlp(config, vectors * (vectors - 1) // 2 + self.features.dim * (n > 0), 1)

    def kept(self) -> list[int]:
        """Places of the fields, among `vectors`, that are no numbers: of the history, those of the item again."""
        own = self.spec.owned("item")
        item = [f.kind for f in own if f.kind != "categories"] + ["categories"] * (self.features.item_fields - sum(f.kind != "categories" for f in own))
        kinds = [*item, *(f.kind for whose in ("user", "event") for f in self.spec.owned(whose)), *(item if self.config.history else ())]
        return [place for place, kind in enumerate(kinds) if kind != "number"]

    def dense(self, batch: Impressions) -> Tensor:
        """(B, 2 n) the numbers, from 0 to 1, and which of them are there."""
        codes = self.features.codes(batch.items, batch.users, batch.fields)[:, self.numbers]
        there = (codes > UNSEEN).float()
        return torch.cat([(codes - 2).clamp(min=0) / self.get_buffer("buckets") * there, there], dim=1)

    def logit(self, batch: Impressions) -> Tensor:
        """[dot products ; vector of the numbers] -> MLP"""
        vectors = self.vectors(batch)[:, self.get_buffer("sparse")]
        if self.bottom is None:
            return self.top(pair_dots(vectors)).squeeze(-1)  # type: ignore[no-any-return]
        numbers = self.bottom(self.dense(batch))
        dots = pair_dots(torch.cat([numbers[:, None], vectors], dim=1))
        return self.top(torch.cat([dots, numbers], dim=1)).squeeze(-1)  # type: ignore[no-any-return]
