"""Typed batches. Letters: B batch, T time steps, E events, N items, F fields, D width.

Arrays are torch tensors on one device; ids are integer codes (an item code is a row of the item vocabulary).
Padding is always told by a mask or a length, never by a special id.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Base of all batches: moves its tensors between devices."""

    def to(self, device: torch.device) -> Self:
        """The same batch on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, object] = {name: value.to(device, non_blocking=True) for name, value in values.items() if isinstance(value, Tensor)}
        moved |= {name: value.to(device) for name, value in values.items() if isinstance(value, Batch)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Pairs(Batch):
    """Positive (user, item) pairs with sampled negatives."""

    users: Tensor
    """(B,) int64"""
    items: Tensor
    """(B,) int64"""
    negatives: Tensor
    """(B, K) int64, none of them in the user's training items; or (K,), shared by the batch"""
    weights: Tensor | None = None
    """(B,) float32"""


@dataclass(frozen=True)
class Sets(Batch):
    """Ragged histories of B users, oldest event first; a system that ignores order reads them as sets."""

    users: Tensor
    """(B,) int64; -1 for a user unknown to the vocabulary"""
    indptr: Tensor
    """(B + 1,) int64: events of query b are [indptr[b], indptr[b + 1])"""
    items: Tensor
    """(E,) int64"""
    times: Tensor | None = None
    """(E,) int64 microseconds since 1970, where the data have clock times"""
    weights: Tensor | None = None
    """(E,) float32"""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> Tensor:
        """(B,) events of each query."""
        return self.indptr[1:] - self.indptr[:-1]

    def slice(self, start: int, stop: int) -> Sets:
        """Queries [start, stop) as a batch of their own."""
        a, b = int(self.indptr[start]), int(self.indptr[stop])
        return Sets(
            self.users[start:stop],
            self.indptr[start : stop + 1] - a,
            self.items[a:b],
            None if self.times is None else self.times[a:b],
            None if self.weights is None else self.weights[a:b],
        )

    def take(self, rows: Tensor) -> Sets:
        """The queries `rows` (R,) int64 as a batch of their own."""
        lengths = self.lengths[rows]
        indptr = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        where = torch.repeat_interleave(self.indptr[rows] - indptr[:-1], lengths) + torch.arange(int(indptr[-1]), device=self.items.device)
        times, weights = (None if table is None else table[where] for table in (self.times, self.weights))
        return Sets(self.users[rows], indptr, self.items[where], times, weights)

    def before(self, count: int) -> Sets:
        """The same histories without the items from code `count` on."""
        kept = self.items < count
        if bool(kept.all()):
            return self
        indptr = torch.nn.functional.pad(kept.cumsum(0), (1, 0))[self.indptr]
        times, weights = (None if table is None else table[kept] for table in (self.times, self.weights))
        return Sets(self.users, indptr, self.items[kept], times, weights)

    def last(self, length: int) -> Sequences:
        """The newest `length` events of each query, left-aligned: `items` (B, T), T = the longest kept (at least 1)."""
        lengths = self.lengths.clamp(max=length)
        width = max(int(lengths.max()) if len(lengths) else 0, 1)
        steps = torch.arange(width, device=self.items.device)
        mask = steps < lengths[:, None]
        where = (self.indptr[1:, None] - lengths[:, None] + steps).clamp(0, max(len(self.items) - 1, 0))
        if len(self.items) == 0:
            items = torch.zeros(mask.shape, dtype=torch.int64, device=self.items.device)
            return Sequences(self.users, items, mask, None)
        items = self.items[where].masked_fill(~mask, 0)
        times = None if self.times is None else self.times[where].masked_fill(~mask, 0)
        return Sequences(self.users, items, mask, times)


@dataclass(frozen=True)
class Sequences(Batch):
    """Padded histories, left-aligned, oldest event first."""

    users: Tensor
    """(B,) int64; -1 for an unknown user"""
    items: Tensor
    """(B, T) int64; 0 where the mask is false"""
    mask: Tensor
    """(B, T) bool, true where an event is"""
    times: Tensor | None = None
    """(B, T) int64 microseconds, or none"""
    targets: Tensor | None = None
    """(B, T) int64: the item to predict at each position, or none at inference"""
    negatives: Tensor | None = None
    """(B, T, K) or (K,) int64: sampled items"""
    share: float = 1.0
    """positions of this batch over the mean of all batches: the weight that makes every position of an epoch count alike,
    however batches were formed"""


@dataclass(frozen=True)
class Windows(Batch):
    """Long histories of a batch without a copy a row: the events of its people once, the distinct windows among them, and which of them each row has.

    E events of all people together, W windows; one person's candidates share one window.
    """

    items: Tensor
    """(E,) int32"""
    starts: Tensor
    """(W,) int64: window w is [starts[w], stops[w]) of the events, oldest first"""
    stops: Tensor
    """(W,) int64"""
    of: Tensor
    """(B,) int64: the window of each row"""
    times: Tensor | None = None
    """(E,) int64 microseconds"""
    signals: Tensor | None = None
    """(E,) int8: what happened at each event, coded"""

    @property
    def lengths(self) -> Tensor:
        """(W,) events of each window."""
        return self.stops - self.starts

    def places(self) -> tuple[Tensor, Tensor]:
        """(W, T) places among the events, left-aligned, and the mask of those that are there; T = the longest window, at least 1. A place off the mask is 0."""
        lengths = self.lengths
        if torch.onnx.is_in_onnx_export():  # a graph is for windows of all lengths
            steps = torch.arange(lengths.max().clamp(min=1))  # type: ignore[call-overload]
        else:
            steps = torch.arange(max(int(lengths.max()) if len(lengths) else 0, 1), device=lengths.device)
        mask = steps < lengths[:, None]
        return (self.starts[:, None] + steps).masked_fill(~mask, 0), mask


@dataclass(frozen=True)
class Impressions(Batch):
    """Items that were shown, with what happened: the batch of rankers.

    Where all rows have one history in common, the candidates of one person, a ranker that says so (`Ranker.shares`) gets it once: `history`, `mask`,
    `signals` and `times` are (1, T) then, and T is its length (1 where it is empty).
    """

    users: Tensor
    """(B,) int64; -1 for an unknown user"""
    items: Tensor
    """(B,) int64"""
    labels: Tensor
    """(B,) float32"""
    history: Tensor
    """(B, T) int64: items strictly before the impression, left-aligned, oldest first"""
    mask: Tensor
    """(B, T) bool"""
    fields: Tensor
    """(B, F) int64: coded fields of the impression itself: context, and features of its past"""
    signals: Tensor | None = None
    """(B, T) int64: what happened at each event of the history, coded; 0 where that is not known"""
    times: Tensor | None = None
    """(B, T) int64 microseconds of the history"""
    now: Tensor | None = None
    """(B,) int64 microseconds of the impression"""
    weights: Tensor | None = None
    """(B,) float32"""
    long: Windows | None = None
    """the long histories, of rankers that search them"""
    outcomes: Tensor | None = None
    """(B, K) float32: further successes, 0 or 1, NaN where they are not known"""


@dataclass(frozen=True)
class Queries(Batch):
    """Search queries: the batch of retrievers."""

    vectors: Tensor
    """(B, D) float32"""
    texts: tuple[str, ...] = ()
    """B strings, where the query came as text"""
