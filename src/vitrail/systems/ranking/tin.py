"""TIN. Zhou et al., WWW 2024, arXiv:2308.08487. Events and target carry the vector of how long ago they were; attention weighs events by their dot product
with the target, and the interest is the weighted sum times the target, so that vector and time count on both sides. Differs from the released code: `form:
released` feeds the tower [W pooled ; target ; W pooled * target] as it does, the default the paper's [interest ; target]; positions further back than the
table share its last row; no batch normalisation in place of a fixed affine map. Numbers: benchmarks/rank_pairs.py makes them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from vitrail.blocks.interact import linear
from vitrail.blocks.interest import TargetAttention
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import HistoryRanker, Time


@system("tin", stage="rank", family="ranking", paper="2308.08487", year=2024, status="works")
class TIN(HistoryRanker):
    """What an event says of the target, by how long ago it was."""

    shares: ClassVar[bool] = True

    class Config(HistoryRanker.Config):
        """Settings of tin."""

        time: Time = "position"
        """What tells how long ago: the place from the end, the interval in seconds (needs a clock), or nothing."""
        form: Literal["paper", "released"] = "paper"
        """What the tower reads: the product of pooled history and target, or also pooled history through a layer."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        H = self.features.item_width
        self.ago = self.clock(config.time, config.length, H)
        self.attention = TargetAttention(H, "dot", "softmax", scale=True)
        self.pooled = linear(H, H) if config.form == "released" else None
        self.top(3 * H if config.form == "released" else 2 * H)

    def logit(self, batch: Impressions) -> Tensor:
        """Pool the timed events by the timed target, and multiply with it."""
        target, events = self.timed(batch)
        interest = self.attention.packed(target, events, batch.mask)
        if self.pooled is None:
            return self.finish(batch, interest * target, target)
        interest = self.pooled(interest)
        return self.finish(batch, interest, target, interest * target)

    def timed(self, batch: Impressions) -> tuple[Tensor, Tensor]:
        """Targets (B, H) and events (E, H) with the vectors of their times added."""
        target, events = self.items_and_events(batch)
        if self.ago is None:
            return target, events
        row, place = batch.mask.nonzero(as_tuple=True)
        timed = batch.times is not None and batch.now is not None
        times, now = (batch.times[batch.mask], batch.now[row]) if timed else (None, None)  # type: ignore[index]
        ids = self.ago.ids(place, batch.mask.sum(1)[row], times, now)
        return target + self.ago(ids.new_zeros(1)), events + self.ago(ids)
