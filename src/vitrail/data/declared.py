"""What declared features are computed by: the same definitions and the same code for a table of training rows and for one question of a service.

R rows asked, E events, N items, U users, M values of a cell. A row sees the events strictly before its moment, those of the same instant not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.data.declare import Feature, microseconds
from vitrail.data.fields import MISSING, UNSEEN, FeatureSpec, Field, Float, Int32, Int64, code_numbers
from vitrail.data.happened import Arrays, Past, joined, numbers, tokens
from vitrail.data.log import Log
from vitrail.data.past import FRESH, days_since
from vitrail.data.vocabulary import mix
from vitrail.data.windows import NEVER, Stream, Streams


@dataclass(frozen=True)
class Declaration:
    """Features and what training rows taught of them."""

    features: dict[str, Feature]
    """each after those it reads, its columns named by their tables"""
    of: dict[str, Field] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)
    """column -> the power of two in which its numbers are added up"""

    @cached_property
    def keys(self) -> dict[str, Int64]:
        """Category -> the values that have codes."""
        return {name: np.asarray(f.keys, dtype=np.int64) for name, f in self.of.items()}

    @classmethod
    def in_(cls, spec: FeatureSpec) -> Declaration:
        """That of the fields of a ranker."""
        return cls(spec.declared, {f.name: f for f in spec.fields if f.name in spec.declared}, spec.units)


@dataclass(frozen=True)
class Asked:
    """R rows: for whom, which item, when."""

    who: Int64
    """(R,) users, -1 for a stranger"""
    items: Int64
    """(R,)"""
    now: Int64 | None = None
    """(R,) microseconds; none: there is no clock"""
    context: Mapping[str, pl.Series] = field(default_factory=dict)
    """column -> (R,) what is known of the impression"""
    log: Log | None = None
    """histories that came with the question; of strangers nothing else is known"""
    owners: Int64 | None = None
    """(R,) whose history it is there"""

    @cached_property
    def strange(self) -> Int64:
        """Rows of strangers with a history whose times are known."""
        return np.flatnonzero(self.who < 0) if self.log is not None and self.log.times is not None else np.empty(0, dtype=np.int64)

    @cached_property
    def told(self) -> Past | None:
        """The histories of strangers: of their events only items and times are known."""
        if not len(self.strange) or self.log is None or self.log.times is None:
            return None
        return Past(self.log.users, np.asarray(self.log.items, dtype=np.int64), np.asarray(self.log.times), {}, strange=True)


@dataclass(frozen=True)
class Declared:
    """Declared features, what is known of items and users, and the events so far."""

    told: Declaration
    numbers: dict[str, Float]
    """`items.NAME` (N,), `users.NAME` (U + 1,), the last that of an unknown user"""
    tokens: dict[str, Int64]
    """`items.NAME` (N, M), `users.NAME` (U + 1, M)"""
    pasts: dict[str, Past]
    """source -> events"""
    fresh: dict[str, Past] = field(default_factory=dict)
    """source -> events heard since"""
    _old: dict[Any, Stream] = field(default_factory=dict, repr=False, compare=False)
    _new: dict[Any, Stream] = field(default_factory=dict, repr=False, compare=False)

    # events

    def over(self, pasts: Mapping[str, Past]) -> Declared:
        """The same features over other events of some sources."""
        return replace(self, pasts=self.pasts | dict(pasts), **self._without(pasts))

    def _without(self, sources: Iterable[str]) -> dict[str, Any]:
        """What was heard, and indexes, of other sources."""
        gone = set(sources)
        kept = {name: {key: made for key, made in getattr(self, name).items() if key[0] not in gone} for name in ("_old", "_new")}
        return {"fresh": {name: past for name, past in self.fresh.items() if name not in gone}, **kept}

    def heard(self, source: str, more: Past) -> Declared:
        """The same features once more events have happened; they are seen from the moment after theirs on."""
        if not len(more) or source not in self.pasts:
            return self
        old, new = self.pasts[source], self.fresh[source].and_(more) if source in self.fresh else more
        if len(new) > FRESH:
            return self.over({source: old.and_(new)})._ready(source)
        return replace(self, fresh=self.fresh | {source: new}, _new=self._without([source])["_new"])._ready(source)

    def _ready(self, source: str) -> Declared:
        """The same with its indexes made: whoever hears waits for them, and nobody who asks."""
        none = np.zeros(0, dtype=np.int64)
        for f in self.told.features.values():
            if f.past and f.source == source and self._reads(f):
                self._answer(f, self._streams(f), none, none if f.window else None, none, none)
        return self

    @property
    def moment(self) -> int:
        """When the newest known event happened; NEVER without one."""
        return max((int(past.times.max()) for past in (*self.pasts.values(), *self.fresh.values()) if len(past)), default=NEVER)

    # values

    def codes(self, names: Iterable[str], asked: Asked) -> dict[str, Int32]:
        """The codes (R,) of features by name."""
        wanted = list(names)
        values = self.values(wanted, asked)
        return {name: self.code(name, values[name]) for name in wanted}

    def values(self, names: Iterable[str], asked: Asked) -> dict[str, Float | Int64]:
        """The features before they are coded, each (R,): numbers with NaN where missing, or hashes of categories with 0 there."""
        found: dict[str, Float | Int64] = {}

        def of(name: str) -> Float | Int64:
            if name not in found:
                f = self.told.features[name]
                found[name] = self._filled(f, made(name, f))
            return found[name]

        def made(name: str, f: Feature) -> Float | Int64:
            if f.kind == "column":
                assert f.column is not None
                return self._cell(f.column, asked, number=not f.category)
            if f.kind == "cross":
                return joined(*(self._part(part, of, asked)[:, None] for part in f.columns))[:, 0]
            if f.kind == "ratio":
                over, under = (of(other).astype(np.float64) for other in f.parts)
                return _share(over, under, f.prior)
            values = self._past(f, asked.who, asked)
            if asked.told is not None and asked.owners is not None and "user" in f.by:
                alone = replace(self, pasts={"interactions": asked.told}, fresh={}, _old={}, _new={})
                rows = asked.strange
                cut = Asked(asked.who[rows], asked.items[rows], None if asked.now is None else asked.now[rows])
                values[rows] = alone._past(f, asked.owners[rows], cut)
            return values

        for name in names:
            of(name)
        return {name: found[name] for name in names}

    def _filled(self, f: Feature, values: Float | Int64) -> Float | Int64:
        if f.missing is None:
            return values
        if values.dtype == np.int64:
            return np.where(values == 0, tokens(pl.Series([str(f.missing)]))[0], values)
        return np.where(np.isnan(values), float(f.missing), values)

    def _cell(self, name: str, asked: Asked, *, number: bool) -> Float | Int64:
        """(R,) a column of one value."""
        whose, _, column = name.partition(".")
        if whose == "context":
            if column not in asked.context:
                return np.full(len(asked.items), np.nan) if number else np.zeros(len(asked.items), dtype=np.int64)
            return numbers(asked.context[column]) if number else tokens(asked.context[column])
        rows = asked.items if whose == "items" else asked.who
        return self.numbers[name][rows] if number else self.tokens[name][rows, 0]

    def _part(self, part: str, of: Any, asked: Asked) -> Int64:
        """(R,) a part of a cross as hashes: another feature by its code, or a category."""
        if part in self.told.features:
            return self.code(part, of(part)).astype(np.int64)  # missing is 0 in both
        return np.asarray(self._cell(part, asked, number=False), dtype=np.int64)

    def code(self, name: str, values: Float | Int64) -> Int32:
        """(R,) codes of the values of a feature."""
        f = self.told.of[name]
        if f.kind == "number":
            return code_numbers(values.astype(np.float64), f.edges)
        if f.hashed:
            return np.where(values == 0, MISSING, 2 + mix(values.astype(np.uint64), 0) % np.uint64(f.codes - 2)).astype(np.int32)
        keys = self.told.keys[name]
        place = np.minimum(np.searchsorted(keys, values), max(len(keys) - 1, 0))
        seen = keys[place] == values if len(keys) else np.zeros(len(values), dtype=bool)
        return np.where(values == 0, MISSING, np.where(seen, 2 + place, UNSEEN)).astype(np.int32)

    # windows of events

    def _keys(self, by: tuple[str, ...], who: Int64, users: Int64, items: Int64) -> Int64:
        """(R, M) keys of rows, or of events, 0 where there is none."""
        cells = []
        for part in by:
            if part in ("user", "item"):
                codes = who if part == "user" else items
                cells.append(np.maximum(codes + 1, 0)[:, None])
            else:
                cells.append(self.tokens[part][items if part.startswith("items.") else users])
        return joined(*cells)

    def _past(self, f: Feature, who: Int64, asked: Asked) -> Float:
        """(R,) what the events before say; `who` (R,) are the users by whom they are looked up."""
        items, now = asked.items, asked.now
        nothing = np.full(len(items), np.nan)
        if now is None or not self._reads(f):
            return nothing
        until = now - (microseconds(f.lag) if f.lag else 0)
        since = until - microseconds(f.window) if f.window else None
        keys = self._keys(f.by, who, asked.who, items)
        streams = self._streams(f)
        if keys.shape[1] == 1:
            return np.where(keys[:, 0] == 0, np.nan, self._answer(f, streams, keys[:, 0], since, until, now))
        row, place = np.nonzero(keys)
        found = self._answer(f, streams, keys[row, place], None if since is None else since[row], until[row], now[row])
        there = ~np.isnan(found)  # an item of several values: the mean over those of which something is known
        count = np.bincount(row[there], minlength=len(items))
        with np.errstate(invalid="ignore"):
            return np.asarray(np.bincount(row[there], weights=found[there], minlength=len(items)) / np.where(count, count, np.nan))

    def _reads(self, f: Feature) -> bool:
        """Whether the events are here with all that it reads of them."""
        return f.source in self.pasts and all(name in self.pasts[f.source].columns for name in _wanted(f))

    def _answer(self, f: Feature, streams: Streams, keys: Int64, since: Int64 | None, until: Int64, now: Int64) -> Float:
        asked = streams.asked(keys, since, until)
        if f.kind == "count":
            return asked.count.astype(np.float64)
        if f.kind == "recency":
            return days_since(asked.newest, now)
        if f.kind == "rate":
            assert f.hit is not None
            return _share(asked.total(f.hit).astype(np.float64), asked.count.astype(np.float64), f.prior)
        assert f.column is not None
        if f.kind == "distinct":
            return asked.distinct(f.column).astype(np.float64)
        if f.kind in ("min", "max"):
            least = asked.least(f"{f.kind} {f.column}")
            return np.where(np.isinf(least), np.nan, least if f.kind == "min" else -least)
        total = (asked.total(f.column) * self.told.units[f.column]).astype(np.float64)
        return np.asarray(total if f.kind == "sum" else _share(total, asked.count.astype(np.float64), None))

    def _streams(self, f: Feature) -> Streams:
        """The index that answers it: shared by features of the same events by the same key."""
        key = (f.source, f.by, f.where, f.column, f.kind == "distinct")
        old = self._stream(self._old, key, f, self.pasts[f.source], None)
        if f.source not in self.fresh:
            return Streams([old])
        before, fresh = self.pasts[f.source], self.fresh[f.source]
        if f.kind == "distinct" and len(before) and int(fresh.times.min()) < int(before.times.max()):  # which of two alike came last has changed
            return Streams([self._stream(self._new, key, f, before.and_(fresh), None)])
        return Streams([old, self._stream(self._new, key, f, fresh, old)])

    def _stream(self, kept: dict[Any, Stream], key: Any, f: Feature, past: Past, earlier: Stream | None) -> Stream:
        stream = kept.get(key)
        values = self._of_events(f, past)
        if stream is None or any(not stream.holds(name) for name in values):
            keys = self._keys(f.by, past.users, past.people, past.items)
            counted = np.ones(len(past), dtype=bool) if f.where is None else past.columns[f"holds {f.where}"].astype(bool)  # a copy
            if f.column is not None:  # events without a value do not count
                counted &= self._token(f.column, past) != 0 if f.kind == "distinct" else ~np.isnan(self._number(f.column, past))
            row, place = np.nonzero((keys != 0) & counted[:, None])
            arrays = {name: make()[row] for name, make in values.items()}
            if stream is None:
                stream = kept[key] = Stream(keys[row, place], past.times[row], arrays, earlier)
            else:
                for name, array in arrays.items():
                    stream.hold(name, array)
        return stream

    def _of_events(self, f: Feature, past: Past) -> dict[str, Any]:
        """What a feature reads of every event: name -> what makes it."""
        column = f.column or ""
        if f.kind == "rate":
            return {str(f.hit): lambda: past.columns[f"holds {f.hit}"].astype(np.int64)}
        if f.kind == "distinct":
            return {column: lambda: self._token(column, past)}
        if f.kind in ("min", "max"):
            return {f"{f.kind} {column}": lambda: self._number(column, past) * (1.0 if f.kind == "min" else -1.0)}
        if f.kind in ("sum", "mean"):
            limit = float(1 << 62)  # numbers far beyond all that training saw
            return {column: lambda: np.clip(np.nan_to_num(np.rint(self._number(column, past) / self.told.units[column])), -limit, limit).astype(np.int64)}
        return {}

    def _number(self, name: str, past: Past) -> Float:
        whose, _, column = name.partition(".")
        if whose == "events":
            return past.columns[f"number {column}"].astype(np.float64)
        return self.numbers[name][past.items if whose == "items" else past.people]

    def _token(self, name: str, past: Past) -> Int64:
        if name in ("user", "item"):
            return (past.users if name == "user" else past.items) + 1
        whose, _, column = name.partition(".")
        return past.columns[f"token {column}"].astype(np.int64) if whose == "events" else self.tokens[name][past.items if whose == "items" else past.people, 0]

    # the artifact

    def arrays(self) -> Arrays:
        """Named arrays, for the artifact."""
        found: Arrays = {f"declared.number.{name}": array for name, array in self.numbers.items()}
        found |= {f"declared.token.{name}": array for name, array in self.tokens.items()}
        for source, old in self.pasts.items():
            past = old.and_(self.fresh[source]) if source in self.fresh else old
            found |= {f"declared.{source}.{name}": getattr(past, name) for name in ("users", "items", "times")}
            found |= {f"declared.{source}.column.{name}": column for name, column in past.columns.items()}
        return found

    @classmethod
    def of(cls, told: Declaration, arrays: Mapping[str, npt.NDArray[Any]]) -> Declared:
        """What `arrays` packed."""
        found = {key.removeprefix("declared."): array for key, array in arrays.items() if key.startswith("declared.")}
        pasts = {}
        for source in ("interactions", "impressions"):
            if f"{source}.items" in found:
                start = f"{source}.column."
                columns = {key.removeprefix(start): array for key, array in found.items() if key.startswith(start)}
                users, items, times = (found[f"{source}.{name}"] for name in ("users", "items", "times"))
                pasts[source] = Past(users, items, times, columns)
        numbers_of = {key.removeprefix("number."): array for key, array in found.items() if key.startswith("number.")}
        return cls(told, numbers_of, {key.removeprefix("token."): array for key, array in found.items() if key.startswith("token.")}, pasts)


def _share(over: Float, under: Float, prior: tuple[float, float] | None) -> Float:
    a, b = prior or (0.0, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(under + b > 0, (over + a) / np.where(under + b > 0, under + b, 1.0), np.nan)


def _wanted(f: Feature) -> list[str]:
    """What a feature reads of the columns of its source."""
    found = [f"holds {text}" for text in f.conditions]
    whose, _, column = (f.column or "").partition(".")
    if whose == "events":
        found.append(f"{'token' if f.kind == 'distinct' else 'number'} {column}")
    return found


def wanted_of(features: Mapping[str, Feature], source: str) -> list[str]:
    """What all features read of the columns of a source."""
    return list(dict.fromkeys(name for f in features.values() if f.past and f.source == source for name in _wanted(f)))

