"""SIM. Pi et al., CIKM 2020, arXiv:2006.05639. Of a long history only the events that a search finds for the target reach attention, which also reads how
long ago they were; beside it attention over the newest events. `search: hard` takes the newest events of the target's category; `soft` those of the
largest inner products (Wa target).(Wb event), which an auxiliary prediction from their weighted sum teaches, as the search itself passes no gradient.
Differs from the ports: the sum of the auxiliary prediction is a mean, so that 10 and 10,000 events are of one scale; padding is never found; `product` is
on. Numbers: benchmarks/long_history.py makes them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from vitrail.blocks.interact import Tower, linear
from vitrail.blocks.search import TwoStageSearch, multiplicities
from vitrail.config import NonNegativeFloat, PositiveInt
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import LongRanker, Look, SearchSettings, Time


@system("sim", stage="rank", family="ranking", paper="2006.05639", year=2020, status="works")
class SIM(LongRanker):
    """Search a long history for the target's like, then attend."""

    class Config(SearchSettings):
        """Settings of sim."""

        search: Literal["soft", "hard"] = "soft"
        """By learned inner products, or by category."""
        category: str = ""
        """The item attribute of the hard search; none: the first categorical one."""
        time: Time = "position"
        """What tells attention how long ago a found event was."""
        auxiliary: NonNegativeFloat = 1.0
        """Weight of the auxiliary prediction (soft)."""
        auxiliary_hidden: list[PositiveInt] = [64]
        """Widths of its MLP."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        H = self.features.item_width
        self.newest, self.long = self.attend(), self.attend()
        self.ago = self.clock(config.time, config.long, H)
        self.search = TwoStageSearch("hard" if config.search == "hard" else "dot", config.chosen)
        if config.search == "hard":
            self.register_buffer("categories", self.category(config.category), persistent=False)
        else:
            self.of_target, self.of_event = linear(H, H), linear(H, H)
            self.foresees = Tower(2 * H, config.auxiliary_hidden, config.activation, out=1)
        self.top((5 if config.product else 3) * H)

    def logit(self, batch: Impressions) -> Tensor:
        """[target ; newest events ; found events ; other fields] -> MLP"""
        return self._read(batch, self.look(batch))

    def loss(self, batch: Impressions) -> Tensor:
        """Log loss, and that of the auxiliary prediction."""
        look = self.look(batch)
        loss = self.loss_of(self._read(batch, look), batch)
        if self.config.search == "hard" or not self.config.auxiliary:
            return loss
        return loss + self.config.auxiliary * self.loss_of(self.auxiliary(look), batch)

    def _read(self, batch: Impressions, look: Look) -> Tensor:
        places, mask = self.search(*self._asked(look), look.events, look.windows, look.window)
        return self.sided(batch, look, self.recent(self.newest, batch, look), self.found(self.long, batch, look, places, mask, self.ago))

    def _asked(self, look: Look) -> tuple[Tensor, Tensor]:
        """What is searched with (B, ...), and in (n, ...)."""
        if self.config.search == "hard":
            codes = self.get_buffer("categories")[look.items]
            return codes[look.at], codes
        return self.of_target(look.target), self.of_event(look.values)

    def auxiliary(self, look: Look) -> Tensor:
        """(B,) logits from [target ; mean over the window of score x event]: a sum over distinct items, each as often as the window has it."""
        query, keys = self._asked(look)
        counts = multiplicities(look.events, look.windows, len(keys))
        share = counts / counts.sum(1, keepdim=True).clamp(min=1)
        pooled = (query @ keys.T * share[look.windows.of]) @ look.values
        return self.foresees(torch.cat([look.target, pooled], dim=1)).squeeze(1)  # type: ignore[no-any-return]
