"""SDIM. Cao et al., CIKM 2022, arXiv:2205.10249. The whole long history counts: the interest is the sum of the events whose hash is that of the target,
the mean over hashes, which in the mean of many is attention with the weight (1 - angle / pi)^bits. The sums are made once a history, so that a candidate
costs the same whatever its length. Differs from the ports: sums are made over distinct items, each as often as the history has it; what happened is not
read; `product` is on. Numbers: benchmarks/long_history.py makes them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vitrail.blocks.search import BucketSums, multiplicities
from vitrail.config import PositiveInt
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import LongRanker, SearchSettings


@system("sdim", stage="rank", family="ranking", paper="2205.10249", year=2022, status="works")
class SDIM(LongRanker):
    """The events of a long history that collide with the target."""

    class Config(SearchSettings):
        """Settings of sdim; nothing is chosen, so `chosen` is not read."""

        hashes: PositiveInt = 2
        """Hashes whose sums are averaged."""
        bits: PositiveInt = 4
        """Signs a hash."""
        normalise: bool = True
        """The sum of each hash gets length 1, as in the paper."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        H = self.features.item_width
        self.newest = self.attend()
        self.sums = BucketSums(H, config.hashes, config.bits, normalise=config.normalise)
        self.top((5 if config.product else 3) * H)

    def logit(self, batch: Impressions) -> Tensor:
        """[target ; newest events ; sums of the long history ; other fields] -> MLP"""
        look = self.look(batch)
        counts = multiplicities(look.events, look.windows, look.values.shape[0])
        long = self.sums(look.target, look.values, counts, look.windows.of)
        return self.sided(batch, look, self.recent(self.newest, batch, look), long)
