"""DARE. Feng et al., ICLR 2025, arXiv:2410.02604. Two sets of tables: one decides what of a long history matters, the other says what it means, so that
neither spoils the other. Scores of item and of time are scaled each by its own width; the best events reach a softmax of their own; an auxiliary head
reads the softmax over all. `decoupled: false` is the baseline TWIN: one set for both. Differs from the released code: padding is never chosen, batch
normalisation is a setting and off, weights start as the house's do, and it is measured in evaluation mode. Numbers: benchmarks/long_history.py makes them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.blocks.activation import Activation
from vitrail.blocks.features import FeatureEmbedding
from vitrail.blocks.interact import Tower
from vitrail.blocks.interest import FAR, RelativeTime, shares
from vitrail.blocks.search import best, nearest
from vitrail.config import NonNegativeFloat, PositiveInt
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import HistorySettings, LongRanker, Look


@system("dare", stage="rank", family="ranking", paper="2410.02604", year=2025, status="works")
class DARE(LongRanker):
    """What matters and what it means are learned apart."""

    class Config(HistorySettings):
        """Settings of dare."""

        long: PositiveInt = 1000
        """Newest events that are searched."""
        chosen: PositiveInt = 20
        """Events K that reach the second softmax."""
        batch: PositiveInt = 256
        """Impressions a step."""
        search_dim: PositiveInt = 16
        """Width of a field in the tables that decide; half of `dim` costs little."""
        decoupled: bool = True
        """Two sets of tables; else one for both (TWIN)."""
        auxiliary: NonNegativeFloat = 1.0
        """Weight of the head that reads all events."""
        hidden: list[PositiveInt] = [200, 80]
        """Widths of the MLP on top."""
        activation: Activation = "prelu"
        """Of the MLPs."""

        @property
        def searched(self) -> int:
            """As of other systems that search."""
            return self.long

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        self.ago = RelativeTime("position", config.long, config.dim, config.scale)
        if config.decoupled:
            several = [f for f in self.spec.owned("item") if f.kind == "categories"]
            self.deciding = FeatureEmbedding(
                config.search_dim,
                items=self.features.get_buffer("item_codes"),
                item_sizes=[f.codes for f in self.spec.owned("item") if f.kind != "categories"],
                lists={f.name: self.features.get_buffer(f"list_{place}") for place, f in enumerate(several)},
                list_sizes=[f.codes for f in several],
                scale=config.scale,
            )
            self.deciding_ago = RelativeTime("position", config.long, config.search_dim, config.scale)
        width = 3 * (self.features.item_width + config.dim)
        self.beside = Tower(width, config.hidden[:1], config.activation, out=1) if config.auxiliary else None
        self.top(width)

    def logit(self, batch: Impressions) -> Tensor:
        """[target ; interest ; target * interest ; other fields] -> MLP"""
        look = self.look(batch)
        interest = self.chosen(look, *self.weighed(look)) if look.window is None else self.answered(look, look.window)
        return self.finish(batch, *self._crossed(look, interest))

    def loss(self, batch: Impressions) -> Tensor:
        """Log loss of both heads."""
        look = self.look(batch)
        told = self.weighed(look)
        loss = self.loss_of(self.finish(batch, *self._crossed(look, self.chosen(look, *told))), batch)
        if self.beside is None:
            return loss
        everything = torch.cat(self._crossed(look, self.everything(look, *told)), dim=1)
        return loss + self.config.auxiliary * self.loss_of(self.beside(everything).squeeze(1), batch)

    def weighed(self, look: Look) -> tuple[Tensor, Tensor]:
        """Scores of items (B, n), and of how long ago (rows of the time table,), which is the same for every target."""
        query, keys, scale, ago = self._deciding(look)
        return query @ keys.T * scale, ago.weight @ ago.weight[0] / ago.weight.shape[1] ** 0.5

    def _deciding(self, look: Look) -> tuple[Tensor, Tensor, float, RelativeTime]:
        """Of what decides: targets (B, H), items (n, H), what their products are multiplied by, and the table of time."""
        keys = self.deciding.item(look.items) if self.config.decoupled else look.values
        return F.embedding(look.at, keys), keys, keys.shape[1] ** -0.5, self.deciding_ago if self.config.decoupled else self.ago

    def everything(self, look: Look, semantic: Tensor, time: Tensor) -> Tensor:
        """(B, H + D) the softmax over all events of each window; weights of one item, and of one place, are added up before vectors are read."""
        places, there = look.windows.places()
        of, at = look.windows.of, look.events[places]
        ids = self.ago.ids(places, look.windows.stops[:, None], None, None)
        scores = semantic.gather(1, at[of]) + time[ids][of]
        weights = torch.softmax(scores.masked_fill(~there[of], FAR), dim=1) * there[of]
        of_items = torch.zeros_like(semantic).scatter_add(1, at[of], weights)
        of_times = weights.new_zeros(len(of), len(time)).scatter_add(1, ids[of], weights)
        return torch.cat([of_items @ look.values, of_times @ self.ago.weight], dim=1)

    def chosen(self, look: Look, semantic: Tensor, time: Tensor) -> Tensor:
        """(B, H + D) the softmax over the best events of each window."""
        windows = look.windows
        with torch.no_grad():
            bias = time[self.ago.ids(windows.places()[0], windows.stops[:, None], None, None)]
        places, mask = best(semantic, look.events, windows, self.config.chosen, bias)
        ids = self.ago.ids(places, windows.stops[windows.of][:, None], None, None)
        return self._read(look, places, ids, shares(semantic.gather(1, look.events[places]) + time[ids], mask))

    def answered(self, look: Look, window: slice) -> Tensor:
        """The same for the candidates of one person, whose scores of all events are never held at once."""
        query, keys, scale, ago = self._deciding(look)
        onto, T = keys[window].T, window.stop - window.start
        bias = (ago.weight @ ago.weight[0] / ago.weight.shape[1] ** 0.5)[self.ago.ids(torch.arange(T, device=keys.device), look.windows.stops, None, None)]
        scores, places = nearest(lambda rows: torch.addmm(bias, query[rows], onto, alpha=scale), len(query), T, self.config.chosen)
        return self._read(look, places, self.ago.ids(places, look.windows.stops, None, None), torch.softmax(scores, dim=1))

    def _read(self, look: Look, places: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """(B, H + D) the sum of the events at `places` (B, K), so long ago (B, K), by `weights` (B, K)"""
        events = torch.cat([look.vectors(look.events[places]), self.ago(ids)], dim=2)
        return torch.einsum("bk,bkh->bh", weights, events)

    def _crossed(self, look: Look, interest: Tensor) -> tuple[Tensor, ...]:
        target = torch.cat([look.target, self.ago.weight[:1].expand(look.at.shape[0], -1)], dim=1)
        return target, interest, target * interest
