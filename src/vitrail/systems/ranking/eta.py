"""ETA. Chen et al., DLP-KDD 2022, arXiv:2108.04468. The search of a long history compares bits: signs of fixed random projections of the vectors as they
are; the events at the smallest Hamming distances reach attention. No auxiliary loss, no gradient through the bits. Differs from the ports: padding is
never found; of events at one distance the newest are; `product` is on. Numbers: benchmarks/long_history.py makes them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vitrail.blocks.search import TwoStageSearch
from vitrail.config import PositiveInt
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import LongRanker, SearchSettings, Time


@system("eta", stage="rank", family="ranking", paper="2108.04468", year=2022, status="works")
class ETA(LongRanker):
    """Search a long history by hashed vectors, then attend."""

    class Config(SearchSettings):
        """Settings of eta."""

        bits: PositiveInt = 32
        """Signs that are compared."""
        time: Time = "none"
        """What tells attention how long ago a found event was."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        H = self.features.item_width
        self.newest, self.long = self.attend(), self.attend()
        self.ago = self.clock(config.time, config.long, H)
        self.search = TwoStageSearch("lsh", config.chosen, H, config.bits)
        self.top((5 if config.product else 3) * H)

    def logit(self, batch: Impressions) -> Tensor:
        """[target ; newest events ; found events ; other fields] -> MLP"""
        look = self.look(batch)
        places, mask = self.search(look.target, look.values, look.events, look.windows, look.window)
        return self.sided(batch, look, self.recent(self.newest, batch, look), self.found(self.long, batch, look, places, mask, self.ago))
