"""Features of the past: what was known just before a moment, for any number of (history, item, moment) at once.

R rows asked, E events, N items, U users. Everything comes from events strictly before the moment of a row: of one instant, none. Training and serving call
the same functions, so that their values are equal. Missing is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vitrail.data.log import Log
from vitrail.data.windows import NEVER, Stream, Streams

Int64 = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]
DAY = 86_400_000_000
"""Microseconds."""
FRESH = 1 << 16
"""Events that may be heard before all are sorted anew."""
SUCCESS, UNIT = "success", 2.0**-32
"""Successes are added up in whole numbers of this, so that sums are exact."""


def before(log: Log, owners: Int64, moments: Int64) -> Int64:
    """(R,) the place in `log` of the first event of each of `owners` (R,) that is not strictly before its moment (R,), in microseconds."""
    assert log.times is not None
    known = np.unique(log.times)
    keys = log.users * (len(known) + 1) + np.searchsorted(known, log.times)
    return np.searchsorted(keys, owners * (len(known) + 1) + np.searchsorted(known, moments)).astype(np.int64)


@dataclass(frozen=True)
class ItemPast:
    """The events of every item, so that any moment can be asked: how often, when last, with what success."""

    n_items: int
    items: Int64
    """(E,) item of each event"""
    times: Int64
    """(E,) microseconds since 1970"""
    labels: npt.NDArray[np.float32] | None = None
    """(E,) success of each event, where events are things shown"""
    later: ItemPast | None = None
    """what was heard since"""

    @cached_property
    def _stream(self) -> Stream:
        return self._of(None)

    def _of(self, earlier: Stream | None) -> Stream:
        labels = {} if self.labels is None else {SUCCESS: np.rint(self.labels.astype(np.float64) / UNIT).astype(np.int64)}
        return Stream(self.items, self.times, labels, earlier)

    @cached_property
    def _streams(self) -> Streams:
        return Streams([self._stream] if self.later is None else [self._stream, self.later._of(self._stream)])

    def heard(self, items: Int64, times: Int64) -> ItemPast:
        """This, once more events have happened."""
        more = ItemPast(self.n_items, items, times)
        later = more if self.later is None else self.later._and(more)
        if len(later.items) > FRESH:
            return ItemPast(self.n_items, self.items, self.times, self.labels)._and(later)
        found = replace(self, later=later)
        found.__dict__["_stream"] = self._stream  # the large index stays
        return found

    def _and(self, more: ItemPast) -> ItemPast:
        labels = None if self.labels is None or more.labels is None else np.concatenate([self.labels, more.labels])
        return ItemPast(self.n_items, np.concatenate([self.items, more.items]), np.concatenate([self.times, more.times]), labels)

    @property
    def moment(self) -> int:
        """When the newest event happened; NEVER without one."""
        return self._streams.moment

    def count(self, items: Int64, now: Int64) -> Float:
        """(R,) events of each item before each moment."""
        return self._streams.asked(items, None, now).count.astype(np.float64)

    def gap(self, items: Int64, now: Int64) -> Float:
        """(R,) days since the item's last event; NaN where there was none."""
        return days_since(self._streams.asked(items, None, now).newest, now)

    def rate(self, items: Int64, now: Int64) -> Float:
        """(R,) mean success of the item's events; NaN where there was none."""
        asked = self._streams.asked(items, None, now)
        successes = np.zeros(len(items), dtype=np.int64) if self.labels is None else asked.total(SUCCESS)
        return np.where(asked.count > 0, successes * UNIT / np.maximum(asked.count, 1), np.nan)


def days_since(moments: Int64, now: Int64) -> Float:
    """(R,) days from each moment to `now`; NaN where it is NEVER."""
    there = moments != NEVER
    return np.where(there, (now - np.where(there, moments, 0)) / DAY, np.nan)


def user_gap(log: Log, starts: Int64, stops: Int64, now: Int64) -> Float:
    """(R,) days since the newest event of each history [start, stop) of `log`; NaN for an empty one."""
    assert log.times is not None
    if not len(log):
        return np.full(len(now), np.nan)
    return np.where(stops > starts, (now - log.times[np.maximum(stops - 1, 0)]) / DAY, np.nan)


def user_rate(log: Log, starts: Int64, stops: Int64) -> Float:
    """(R,) mean weight (success) of the events of each history; NaN for an empty one."""
    assert log.weights is not None
    total = np.concatenate([[0.0], np.cumsum(log.weights, dtype=np.float64)])
    return np.where(stops > starts, (total[stops] - total[starts]) / np.maximum(stops - starts, 1), np.nan)


def affinity(log: Log, owners: Int64, starts: Int64, stops: Int64, items: Int64, codes: npt.NDArray[np.int32]) -> Float:
    """(R,) share of each history that has a category of the item, the mean over its categories; NaN for an empty history or an item without categories.

    `codes` (N, M): categories of each item, those below 2 are none; `owners` (R,) whose history it is in `log`.
    """
    if len(items) and (starts == starts[0]).all() and (stops == stops[0]).all():  # candidates of one person
        asked = codes[items]
        counts = np.bincount(codes[log.items[starts[0] : stops[0]]].ravel(), minlength=int(asked.max(initial=0)) + 1)
        has = asked >= 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((counts[asked] * has).sum(1) / ((stops[0] - starts[0]) * has.sum(1)), dtype=np.float64)
    has = codes >= 2
    width = int(codes.max(initial=1)) + 1
    event, place = np.nonzero(has[log.items])
    groups = log.users[event] * width + codes[log.items[event], place]
    known, ranks = np.unique(groups, return_inverse=True)
    keys = np.sort(ranks * (len(log) + 1) + event)
    row, place = np.nonzero(has[items])
    asked = owners[row] * width + codes[items[row], place]
    rank = np.searchsorted(known, asked)
    found = known[np.minimum(rank, max(len(known) - 1, 0))] == asked if len(known) else np.zeros(len(asked), dtype=bool)
    # keys of a group from the start of the history up to its stop
    low = np.searchsorted(keys, rank * (len(log) + 1) + starts[row])
    high = np.searchsorted(keys, rank * (len(log) + 1) + stops[row])
    counted = np.bincount(row, weights=np.where(found, high - low, 0), minlength=len(items))
    lengths = stops - starts
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(counted / (lengths * has[items].sum(1)), dtype=np.float64)
