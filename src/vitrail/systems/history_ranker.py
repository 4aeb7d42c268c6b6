"""Skeletons of rankers that read a history in view of the target: HistoryRanker ends with the tower they share, LongRanker searches a long history first.

Letters: B batch, E events, n distinct items, K events chosen, T time steps, W windows, H width of an item.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.activation import Activation
from vitrail.blocks.interact import Tower
from vitrail.blocks.interest import RelativeTime, TargetAttention
from vitrail.blocks.modality import UnitStore
from vitrail.config import PositiveInt, Rate
from vitrail.data.batches import Impressions, Windows
from vitrail.errors import SettingError
from vitrail.systems.base import ContentSettings, Given
from vitrail.systems.ranker import Ranker, RankerSettings

Time = Literal["none", "position", "interval"]


class HistorySettings(RankerSettings):
    """Settings of the tower."""

    activation: Activation = "dice"
    """Of the MLPs."""
    hidden: list[PositiveInt] = [80, 40]
    """Widths of the MLP on top."""
    dropout: Rate = 0.0
    """In the MLP on top."""
    norm: bool = False
    """Batch normalisation in the MLP on top."""
    item_bias: bool = True
    """A number an item is added to the logit."""


class HistoryRanker(Ranker):
    """A ranker that ends with an MLP over [its own parts ; the other fields], plus the item's bias."""

    class Config(HistorySettings):
        """Settings of rankers with a tower."""

    def top(self, width: int) -> None:
        """Make the tower over parts of `width` numbers together."""
        c = self.config
        self.tower = Tower(width + self.features.dim * self.features.other_fields, c.hidden, c.activation, dropout=c.dropout, norm=c.norm, out=1)
        self.bias = nn.Parameter(torch.zeros(self.sizes.items, 1)) if c.item_bias else None

    def finish(self, batch: Impressions, *parts: Tensor) -> Tensor:
        """parts (B, ...) -> (B,) logits"""
        logit: Tensor = self.tower(torch.cat([*parts, self.features.others(batch.users, batch.fields).flatten(1)], dim=1)).squeeze(-1)
        return logit if self.bias is None else logit + F.embedding(batch.items, self.bias).squeeze(-1)

    def content(self, given: Given) -> UnitStore:
        """The frozen content vectors that the settings name."""
        return UnitStore(*given.content(self.config.vectors))

    def clock(self, kind: Time, rows: int, dim: int) -> RelativeTime | None:
        """How long ago events were, as vectors (D); none where that is not to be read. Raises SettingError for intervals without a clock."""
        if kind == "interval" and self.source.events is None:
            raise SettingError(f'System "{self.card.name}" cannot read intervals from data without clock times: use time=position or time=none.')
        return None if kind == "none" else RelativeTime(kind, rows, dim, self.config.scale)


class LongSettings(HistorySettings):
    """Settings of rankers that search."""

    long: PositiveInt = 1000
    """Newest events that are searched, those of `length` among them."""
    chosen: PositiveInt = 50
    """Events K that the search gives to attention."""
    attention: Literal["multihead", "mlp"] = "multihead"
    """How events are scored: by dot products of projections, or by DIN's MLP over [q ; k ; q - k ; q * k]; a softmax follows."""
    attention_hidden: list[PositiveInt] = [64]
    """Widths of the scoring MLP."""
    attention_dim: PositiveInt = 64
    """Width A that queries, keys and values are projected to (multihead)."""
    heads: PositiveInt = 2
    """Heads of attention; must divide `attention_dim` (multihead)."""
    batch: PositiveInt = 256
    """Impressions a step."""

    @property
    def searched(self) -> int:
        """Events of a history that are searched beside the newest `length`."""
        return self.long


class SearchSettings(LongSettings):
    """Settings of those with attention to the newest events beside a long interest."""

    product: bool = True
    """The MLP reads interest * target too, as that of DIN does; else what is side by side alone."""


class StoredContent(ContentSettings):
    """Settings of rankers that read frozen content vectors by themselves, not as fields; they stand before those of rankers, which read none."""

    vectors: tuple[str, ...] = ("text", "image")
    """Names of the vectors of the data set that are read (`vitrail content list DATA` shows them)."""

    store: Literal["int8", "float32"] = "int8"
    """How they are kept: a byte a number changes a cosine by less than .01."""


@dataclass(frozen=True)
class Look:
    """A batch with each item looked up once, when it is needed."""

    items: Tensor
    """(n,) codes of the items: distinct ones, but for the events of a single window, which follow one another as they happened"""
    at: Tensor
    """(B,) the target of each row among them"""
    newest: Tensor
    """(E,) the newest events of all rows among them, in the order of `batch.mask`"""
    events: Tensor
    """(E',) the events of the windows among them"""
    windows: Windows
    item: Callable[[Tensor], Tensor]
    """item codes -> their vectors"""
    window: slice | None = None
    """where the events of the only window stand in a row among the items, outside training; none: there are several, or none has an event"""

    @property
    def single(self) -> bool:
        """Whether all rows have one window: the candidates of one person."""
        return len(self.windows.starts) == 1

    @cached_property
    def values(self) -> Tensor:
        """(n, H) the vectors of all items"""
        return self.item(self.items)

    def vectors(self, at: Tensor) -> Tensor:
        """(...) places among the items -> (..., H)"""
        return self.item(self.items[at]) if self.single and "values" not in self.__dict__ else F.embedding(at, self.values)

    @cached_property
    def target(self) -> Tensor:
        """(B, H)"""
        return self.vectors(self.at)


class LongRanker(HistoryRanker):
    """Searches the newest `long` events of a history for those that matter to the target."""

    shares: ClassVar[bool] = True

    class Config(LongSettings):
        """Settings of rankers that search."""

    def attend(self) -> TargetAttention:
        """Attention of the target, as the settings say. Raises SettingError where heads do not fit."""
        c = self.config
        if c.attention == "mlp":
            return TargetAttention(self.features.item_width, "mlp", "softmax", hidden=c.attention_hidden, act=c.activation)
        if c.attention_dim % c.heads:
            raise SettingError(f"heads={c.heads} does not divide attention_dim={c.attention_dim}: choose a divisor.")
        return TargetAttention(self.features.item_width, "multihead", "softmax", heads=c.heads, scale=True, inner=c.attention_dim)

    def recent(self, attention: TargetAttention, batch: Impressions, look: Look) -> Tensor:
        """(B, H) the interest in the newest `length` events."""
        return attention.packed(look.target, self.happened(look.vectors(look.newest), batch), batch.mask)

    def found(self, attention: TargetAttention, batch: Impressions, look: Look, places: Tensor, mask: Tensor, clock: RelativeTime | None) -> Tensor:
        """(B, H) the interest in the events at `places` (B, K) of the windows that `mask` (B, K) has, each with how long ago it was."""
        events = self.happened(look.vectors(look.events[places]), batch, places)
        interest: Tensor = attention(look.target, events if clock is None else events + clock(self.gap(clock, batch, places)), mask)
        return interest

    def look(self, batch: Impressions) -> Look:
        """Look up what the batch has."""
        assert batch.long is not None
        items, history, long = batch.items, batch.history[batch.mask], batch.long.items.long()
        if torch.onnx.is_in_onnx_export():  # a graph is for batches of all sizes, also for those without an event
            present = torch.cat([items, history, long, items[:1]])
            places, n = torch.arange(present.shape[0]), items.shape[0]
            newest = places[n : n + history.shape[0]]
            return Look(present, places[:n], newest, places[n + history.shape[0] :], batch.long, self.features.item)
        if len(batch.long.starts) != 1 or len(batch.mask) != 1 or self.training:
            present, (at, newest, events) = self.features.distinct(items, history, long)
            return Look(present, at, newest, events, batch.long, self.features.item)
        present = torch.cat([items, history, long])  # one person's candidates: to find out what is of one item costs more than it saves
        at, newest, events = torch.arange(len(present), device=present.device).split([len(items), len(history), len(long)])
        window = slice(len(present) - len(long), len(present)) if int(batch.long.stops[0]) else None
        return Look(present, at, newest, events, batch.long, self.features.item, window)

    def happened(self, vectors: Tensor, batch: Impressions, places: Tensor | None = None) -> Tensor:
        """vectors of the newest events (E, H), or of those at `places` (B, K, H) of the windows, with what happened at each added where it is known"""
        if self.signals is None or batch.signals is None:
            return vectors
        assert batch.long is not None and batch.long.signals is not None
        codes = batch.signals[batch.mask] if places is None else batch.long.signals[places].long()
        return vectors + self.signals(codes)  # type: ignore[no-any-return]

    def gap(self, clock: RelativeTime, batch: Impressions, places: Tensor) -> Tensor:
        """(B, K) rows of `clock` of the events at `places` (B, K) of the windows"""
        long = batch.long
        assert long is not None
        timed = long.times is not None and batch.now is not None and clock.kind == "interval"
        times, now = (long.times[places], batch.now[:, None]) if timed else (None, None)  # type: ignore[index]
        return clock.ids(places, long.stops[long.of][:, None], times, now)

    def sided(self, batch: Impressions, look: Look, *interests: Tensor) -> Tensor:
        """[target ; interests (B, H) ; their products with the target where `product` is set ; other fields] -> (B,) logits"""
        products = [interest * look.target for interest in interests] if self.config.product else []
        return self.finish(batch, look.target, *interests, *products)

    def category(self, name: str) -> Tensor:
        """(N,) codes of the item field `name` (none: the first categorical one), of several values the first. Raises SettingError where there is none."""
        spec = [f for f in self.spec.owned("item") if f.kind in ("category", "categories")]
        found = next((f for f in spec if f.name == name or not name), None)
        if found is None:
            raise SettingError(f'System "{self.card.name}" searches by a categorical attribute of items and there is no "{name}": name one of '
                               f"{', '.join(f.name for f in spec) or 'those that the data set is given'} with --set category=NAME.")  # fmt: skip
        if found.kind == "categories":
            return torch.from_numpy(self.source.catalogue.lists[found.name][:, 0].copy())
        single = [f for f in self.spec.owned("item") if f.kind != "categories"]
        return self.features.get_buffer("item_codes")[:, single.index(found)]
