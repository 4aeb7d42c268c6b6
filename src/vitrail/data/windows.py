"""Events of keys in time order, asked for windows: how many, how many distinct, how much, when last. The index behind every feature of the past.

R questions, E events. A question is a key and the moments [since, until) of its window, in microseconds; `until` is never later than the moment that is
asked about, so that nothing of that instant or after is seen. Every answer is exact whatever else is in the index: sums are of whole numbers, whose order
does not matter, and so a table made at once and a service that hears of events one by one give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]
Values = npt.NDArray[Any]
NEVER = int(np.iinfo(np.int64).min)
"""The moment of what did not happen."""


class Stream:
    """Events sorted by key and time."""

    def __init__(self, keys: Int64, times: Int64, values: Mapping[str, Values] | None = None, earlier: Stream | None = None) -> None:
        """`keys` and `times` (E,) and by name `values` (E,) of events in any order; `earlier`: other events, none of which, where distinct values are
        counted, is later than any of these."""
        order = np.lexsort([times, keys])
        self.keys, places, self.times = keys[order], np.empty(0, dtype=np.int64), times[order]
        self.known, places = np.unique(self.keys, return_index=True)
        self.starts = np.append(places, len(order)).astype(np.int64)
        self.moments = np.unique(times)
        self.ranks = np.repeat(np.arange(len(self.known)), np.diff(self.starts))
        self._marks = self.ranks * (len(self.moments) + 1) + np.searchsorted(self.moments, self.times)
        self._values = {name: array[order] for name, array in (values or {}).items()}
        self._order, self._earlier = order, earlier
        self._made: dict[tuple[str, str], tuple[Values, ...]] = {}

    def __len__(self) -> int:
        return len(self.times)

    def hold(self, name: str, values: Values) -> None:
        """Keep `values` (E,), in the order in which the events were given."""
        self._values[name] = values[self._order]

    def holds(self, name: str) -> bool:
        """Whether there are such values."""
        return name in self._values

    def spans(self, keys: Int64, since: Int64 | None, until: Int64) -> tuple[Int64, Int64]:
        """(R,) and (R,): the events of each key in [since, until) are the places [start, stop); `since` none: from the first on."""
        if not len(self):
            return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.int64)
        rank = np.minimum(np.searchsorted(self.known, keys), len(self.known) - 1)
        there, row = self.known[rank] == keys, rank * (len(self.moments) + 1)
        stop = np.searchsorted(self._marks, row + self._when(until))
        start = self.starts[rank] if since is None else np.searchsorted(self._marks, row + self._when(since))
        return np.where(there, start, 0).astype(np.int64), np.where(there, stop, 0).astype(np.int64)

    def _when(self, moments: Int64) -> Int64:
        """(R,) how many of the distinct moments here come before each; looked up once where all are one, as for the candidates of one person."""
        return np.searchsorted(self.moments, moments[:1] if len(moments) and (moments == moments[0]).all() else moments)

    def newest(self, start: Int64, stop: Int64) -> Int64:
        """(R,) the moment of the last event of each span; NEVER of an empty one."""
        return np.where(stop > start, self.times[np.maximum(stop - 1, 0)], NEVER) if len(self) else np.full(len(start), NEVER)

    def total(self, name: str, start: Int64, stop: Int64) -> Int64:
        """(R,) sums of whole numbers; they may pass 2 ** 63 on the way, as long as none of them does."""
        (sums,) = self._kept("total", name, lambda values: (np.concatenate([[0], np.cumsum(values.astype(np.int64))]),))
        return np.asarray(sums[stop] - sums[start])

    def least(self, name: str, start: Int64, stop: Int64) -> Float:
        """(R,) the smallest number of each span, infinity of an empty one: over stretches of 1, 2, 4 ... places, of which two cover any span."""
        lengths = stop - start
        level = np.log2(np.maximum(lengths, 1)).astype(np.int64)
        level -= (1 << level) > np.maximum(lengths, 1)  # a logarithm may round up
        tables: list[Values] = [self._values[name].astype(np.float64)]
        for step in range(int(level.max(initial=0))):
            (table,) = self._kept(f"least {step}", name, partial(_wider, tables[-1], 1 << step))
            tables.append(table)
        found = np.full(len(start), np.inf)
        for step, table in enumerate(tables):
            rows = np.flatnonzero((level == step) & (lengths > 0))
            found[rows] = np.minimum(table[start[rows]], table[stop[rows] - (1 << step)])
        return found

    def distinct(self, name: str, start: Int64, stop: Int64, since: Int64 | None) -> Int64:
        """(R,) distinct whole numbers in each span that begins at `since`: the events whose like came last before it."""
        before = np.full(len(start), NEVER + 1) if since is None else since
        values, *levels = self._kept("distinct", name, lambda _: self._wavelet(name))
        return _below(levels, start, stop, np.searchsorted(values, before))

    def _kept(self, what: str, name: str, make: Callable[[Values], tuple[Values, ...]]) -> tuple[Values, ...]:
        if (what, name) not in self._made:
            self._made[what, name] = make(self._values[name])
        return self._made[what, name]

    def _wavelet(self, name: str) -> tuple[Values, ...]:
        """The moments at which the like of each event came last, distinct and sorted, then for every bit of their ranks, from the highest, how many of
        the first places have it unset, in the order that sorting by the bits above gives (a wavelet matrix: Claude, Navarro and Ordonez, 2015)."""
        rank, value = self._pairs(name)
        order = np.lexsort([value, rank])
        last = np.full(len(self), NEVER)
        same = (rank[order][1:] == rank[order][:-1]) & (value[order][1:] == value[order][:-1])
        last[order[1:]] = np.where(same, self.times[order[:-1]], NEVER)
        if self._earlier is not None:
            first = np.flatnonzero(last == NEVER)
            last[first] = self._earlier.last_of(name, self.keys[first], value[first])
        moments = np.unique(last)
        ranks, levels = np.searchsorted(moments, last), []
        for bit in range(len(moments).bit_length() - 1, -1, -1):
            unset = (ranks >> bit & 1) == 0
            levels.append(np.concatenate([[0], np.cumsum(unset)]).astype(np.int32 if len(self) < 2**31 else np.int64))
            ranks = np.concatenate([ranks[unset], ranks[~unset]])
        return (moments, *levels)

    def _pairs(self, name: str) -> tuple[Int64, Int64]:
        return self.ranks, self._values[name].astype(np.int64)

    def last_of(self, name: str, keys: Int64, values: Int64) -> Int64:
        """(R,) the moment at which each key last had an event with each value, in all that is here; NEVER where it had none."""
        distinct, codes, moments = self._kept("last", name, lambda _: self._lasts(name))
        if not len(self):
            return np.full(len(keys), NEVER)
        rank = np.minimum(np.searchsorted(self.known, keys), len(self.known) - 1)
        code = np.minimum(np.searchsorted(distinct, values), len(distinct) - 1)
        asked = rank * len(distinct) + code
        place = np.minimum(np.searchsorted(codes, asked), len(codes) - 1)
        there = (self.known[rank] == keys) & (distinct[code] == values) & (codes[place] == asked)
        return np.where(there, moments[place], NEVER)

    def _lasts(self, name: str) -> tuple[Values, ...]:
        rank, value = self._pairs(name)
        distinct, code = np.unique(value, return_inverse=True)
        codes = rank * len(distinct) + code.reshape(-1)
        order = np.argsort(codes, kind="stable")  # of one pair the newest stays last
        ends = np.append(codes[order][1:] != codes[order][:-1], True) if len(order) else np.empty(0, dtype=bool)
        return distinct, codes[order][ends], self.times[order][ends]


def _wider(table: Values, width: int, _: Values) -> tuple[Values, ...]:
    """The smallest of stretches twice as long, from those of `width` places."""
    return (np.minimum(table[:-width], table[width:]),)


def _below(levels: Sequence[Values], start: Int64, stop: Int64, bound: Int64) -> Int64:
    """(R,) how many of the places [start, stop) have a rank below `bound` (R,)."""
    low, high, found = start.copy(), stop.copy(), np.zeros(len(start), dtype=np.int64)
    for place, zeros in enumerate(levels):
        bit = bound >> (len(levels) - 1 - place) & 1 == 1
        a, b, all_zeros = zeros[low].astype(np.int64), zeros[high].astype(np.int64), int(zeros[-1])
        found += np.where(bit, b - a, 0)
        low, high = np.where(bit, all_zeros + low - a, a), np.where(bit, all_zeros + high - b, b)
    return found


class Streams:
    """What is known, old and new: a large index, and a small one of what was heard since."""

    def __init__(self, parts: Sequence[Stream]) -> None:
        """`parts`, oldest first; each was told of the one before it."""
        self.parts = [part for part in parts if len(part)] or list(parts[:1])

    @cached_property
    def moment(self) -> int:
        """When the last event of all happened; NEVER without events."""
        return max((int(part.moments[-1]) for part in self.parts if len(part)), default=NEVER)

    def asked(self, keys: Int64, since: Int64 | None, until: Int64) -> Answers:
        """What happened to each key (R,) in [since, until) (R,); `since` none: ever before."""
        return Answers(self.parts, [part.spans(keys, since, until) for part in self.parts], since)


class Answers:
    """The events of R windows."""

    def __init__(self, parts: Sequence[Stream], spans: Sequence[tuple[Int64, Int64]], since: Int64 | None) -> None:
        self._parts, self._spans, self._since = parts, spans, since

    @cached_property
    def count(self) -> Int64:
        """(R,) events"""
        return np.sum([stop - start for start, stop in self._spans], axis=0)  # type: ignore[no-any-return]

    @property
    def newest(self) -> Int64:
        """(R,) the moment of the last, NEVER without one"""
        return np.max([part.newest(*span) for part, span in self._each()], axis=0)  # type: ignore[no-any-return]

    def total(self, name: str) -> Int64:
        """(R,) the sum of whole numbers"""
        return np.sum([part.total(name, *span) for part, span in self._each()], axis=0)  # type: ignore[no-any-return]

    def least(self, name: str) -> Float:
        """(R,) the smallest number, infinity without one"""
        return np.min([part.least(name, *span) for part, span in self._each()], axis=0)  # type: ignore[no-any-return]

    def distinct(self, name: str) -> Int64:
        """(R,) distinct whole numbers"""
        return np.sum([part.distinct(name, *span, self._since) for part, span in self._each()], axis=0)  # type: ignore[no-any-return]

    def _each(self) -> list[tuple[Stream, tuple[Int64, Int64]]]:
        return list(zip(self._parts, self._spans, strict=True))
