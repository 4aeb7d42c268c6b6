"""Impressions: rows of (user, item, what happened, when), each with the place in the log before which its history ends. R rows, E events.

Three sources, by the split's name: `shown` reads impressions.parquet; `rated` takes every event as shown and a condition as success; `pairs` takes events
as successes and draws items the user never had. Histories are stored once, in the log; a row holds its place there. Where there is a clock, a history ends
strictly before the row's moment: of what happened at one instant, nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.data.batchers import Negatives, draws
from vitrail.data.dataset import Dataset
from vitrail.data.declare import microseconds
from vitrail.data.log import Log
from vitrail.data.past import before
from vitrail.data.splits import Pairs, Rated, Shown, SplitSettings, Temporal, parse_split
from vitrail.data.splits_labels import TEST, TRAIN, VALID, as_given, by_time, last_out
from vitrail.errors import DataError, SettingError

if TYPE_CHECKING:
    from vitrail.data.schema import DatasetInfo

Int64 = npt.NDArray[np.int64]
RESERVED = ("user", "item", "timestamp", "before", "clicked", "request", "request_id", "position", "weight", "part", "propensity", "variant",
            "outcome_known")  # fmt: skip
"""Columns of impressions.parquet that are never features: what they say is not known when an item is ranked."""
PER_ROW = ("times", "weights", "fields", "outcomes", "positions", "propensities", "known")
"""What rows may have beside what they must."""
CLICKED = "clicked"
"""The success that every row tells of."""


@dataclass(frozen=True)
class Rows:
    """R impressions over one log of histories."""

    users: Int64
    """(R,)"""
    items: Int64
    """(R,)"""
    labels: npt.NDArray[np.float32]
    """(R,) in [0, 1]"""
    stops: Int64
    """(R,) the history of a row is [log.indptr[user], stop) of the log"""
    log: Log
    """all events, those after a row too; weights say what happened where events may be failures"""
    times: Int64 | None = None
    """(R,) microseconds, where there is a clock"""
    weights: npt.NDArray[np.float32] | None = None
    """(R,)"""
    context: dict[str, pl.Series] = field(default_factory=dict)
    """column -> (R,) values known when the item is ranked"""
    fields: npt.NDArray[np.int32] | None = None
    """(R, F) coded fields of the rows, once they are learned"""
    signals: npt.NDArray[np.int8] | None = None
    """(E,) coded signals of the log, once they are learned"""
    outcomes: npt.NDArray[np.float32] | None = None
    """(R, K) further successes of the rows, 0 or 1, NaN where they are not known; for rankers of several objectives"""
    positions: npt.NDArray[np.float32] | None = None
    """(R,) places they were shown at, from 1, NaN where that is not known"""
    propensities: npt.NDArray[np.float32] | None = None
    """(R,) chances that they were looked at, NaN where that is not known"""
    known: Int64 | None = None
    """(R,) microseconds: the moments at which their labels are known, seen strictly after them; none: when they are shown"""

    def __len__(self) -> int:
        return len(self.items)

    def seen(self, matures: int) -> Int64:
        """(R,) the moments strictly after which what came of each may be counted: when it is known, or `matures` microseconds after it was shown."""
        assert self.times is not None
        return self.times + matures if self.known is None else self.known

    @property
    def starts(self) -> Int64:
        """(R,) where the history of each row begins."""
        return np.asarray(self.log.indptr[self.users], dtype=np.int64)

    def where(self, keep: npt.NDArray[np.bool_]) -> Rows:
        """The rows with `keep` (R,) true, order kept, over the same log."""
        rows = np.flatnonzero(keep)
        cut: dict[str, Any] = {name: None if (value := getattr(self, name)) is None else value[rows] for name in PER_ROW}
        context = {name: column.gather(rows) for name, column in self.context.items()}
        return replace(self, users=self.users[rows], items=self.items[rows], labels=self.labels[rows], stops=self.stops[rows], context=context, **cut)


    def slice(self, start: int, stop: int) -> Rows:
        """The rows [start, stop), over the same log."""
        if start == 0 and stop >= len(self):
            return self
        return self.where((np.arange(len(self)) >= start) & (np.arange(len(self)) < stop))

    def with_outcomes(self, conditions: Mapping[str, str]) -> Rows:
        """The rows with what holds of each condition over columns of context, which then are context no more; NaN where such a column is empty.

        Raises SettingError for a column that is not there.
        """
        from vitrail.data.conditions import columns_of, matches

        if not conditions:
            return self
        table = pl.DataFrame({**self.context})
        used = {name: columns_of(condition, table.columns) for name, condition in conditions.items()}
        lost = {name: table.select(pl.any_horizontal(pl.col(columns).is_null())).to_series().to_numpy() for name, columns in used.items()}
        outcomes = np.stack([np.where(lost[name], np.nan, matches(condition, table).to_numpy()) for name, condition in conditions.items()], axis=1)
        gone = {column for columns in used.values() for column in columns}
        context = {name: column for name, column in self.context.items() if name not in gone}
        return replace(self, context=context, outcomes=outcomes.astype(np.float32))


@dataclass(frozen=True)
class ImpressionSplit:
    """Impressions cut into train, valid and test."""

    name: str
    settings: dict[str, object]
    """every setting that shaped it, for the fingerprint"""
    train: Rows
    valid: Rows | None
    test: Rows | None
    known: Log
    """histories that may be known when it answers: train and validation, never test"""
    shown: Rows | None
    """all rows where they are things really shown (none for drawn pairs): what success rates so far are counted from"""
    leaks: tuple[str, ...] = ()
    matures: int = 0
    """microseconds after a row until its success is known"""

    def with_outcomes(self, conditions: Mapping[str, str]) -> ImpressionSplit:
        """The same cut with further successes of its rows: see `Rows.with_outcomes`."""
        parts: dict[str, Any] = {name: None if (part := getattr(self, name)) is None else part.with_outcomes(conditions) for name in ("train", "valid", "test")}
        return replace(self, **parts) if conditions else self


def rank_split(info: DatasetInfo, text: str | SplitSettings | None) -> Pairs | Rated | Shown:
    """The settings of a split for rankers; by default `shown` where impressions are there, else `pairs`. Raises SettingError for another kind of split."""
    default = "shown" if "impressions.parquet" in info.files else "pairs"
    settings = text if isinstance(text, SplitSettings) else parse_split(text or default)
    if not isinstance(settings, Pairs | Rated | Shown):
        raise SettingError(f'A ranker learns from rows, and the split "{settings.name}" makes none: use --split shown, rated or pairs.')
    return settings


def make_impressions(dataset: Dataset, settings: Pairs | Rated | Shown) -> ImpressionSplit:
    """The rows of `dataset` cut as `settings` say. Raises DataError where the data lack what the split needs or a part comes out empty."""
    seen: Rows | None = None
    said: tuple[str, ...] = ()
    told = settings.model_dump(mode="json")
    if isinstance(settings, Shown):
        rows, parts, log, of_log = _shown(dataset, settings)
        if settings.within is None:  # splits without a window keep the fingerprint they had
            told = settings.model_dump(mode="json", exclude={"within", "objective", "pending", "largest_weight"})
        else:
            from vitrail.data.attribution import attributed

            rows, seen, parts, said = attributed(rows, parts, log, dataset, settings)
    else:
        log = dataset.log(ties=settings.ties, seed=settings.seed)
        of_log = _cut(log, settings, dataset)
        rows, parts = _pairs(log, of_log, settings) if isinstance(settings, Pairs) else _rated(dataset, log, of_log, settings)
        log = rows.log
    train, valid, test = (rows.where(parts == part) for part in (TRAIN, VALID, TEST))
    for name, part in (("train", train), ("test", test)):
        if not len(part):
            raise DataError(f'The split "{settings.text}" of data set "{dataset.info.name}" leaves no {name} row: use another share or another split.')
    return ImpressionSplit(
        name=settings.name, settings=told, train=train, valid=valid if len(valid) else None, test=test,
        known=log.where(of_log != TEST), shown=None if isinstance(settings, Pairs) else rows if seen is None else seen, leaks=(*_leaks(train, test), *said),
        matures=microseconds(settings.within) if isinstance(settings, Shown) and settings.within else 0,
    )  # fmt: skip


def _leaks(train: Rows, test: Rows) -> tuple[str, ...]:
    if train.times is None or test.times is None:
        return ()
    late = float((train.times > test.times.min()).mean())
    return (f"{late:.1%} of the training rows happen after the first test row, as this split has it by design.",) if late > 0 else ()


def _cut(log: Log, settings: Pairs | Rated, dataset: Dataset) -> npt.NDArray[np.int8]:
    """(E,) the part of each event."""
    info = dataset.info
    if info.order == "none":
        raise DataError(f'The split "{settings.name}" needs ordered events, and data set "{info.name}" has no timestamp or position: ingest it --ordered.')
    if settings.cut == "predefined":
        return as_given(log, parse_split("predefined"), dataset)  # type: ignore[arg-type]
    if settings.cut == "position":
        return last_out(log)
    return _by_time(log, settings, info)


def _by_time(log: Log, settings: Pairs | Rated | Shown, info: DatasetInfo) -> npt.NDArray[np.int8]:
    if log.times is None:
        raise DataError(f'Data set "{info.name}" has no clock times to cut by: use cut=position, or ingest it again with --timestamp COLUMN.')
    return by_time(log, Temporal(valid=settings.valid, test=settings.test)).labels


def _stops(log: Log, users: Int64, times: Int64 | None, places: Int64) -> Int64:
    """Where histories end: strictly before a moment where there is a clock, else before a place."""
    return places if times is None else before(log, users, times)


def _pairs(log: Log, parts: npt.NDArray[np.int8], settings: Pairs) -> tuple[Rows, npt.NDArray[np.int8]]:
    """An event of each user but the first, then the items drawn for it: 1 + negatives rows side by side."""
    place = np.arange(len(log))
    chosen = np.flatnonzero(place > np.repeat(log.indptr[:-1], log.lengths))
    if not len(chosen):
        raise DataError("No user has two events, so there is nothing to pair: use a larger data set.")
    users = log.users[chosen]
    drawn = Negatives(log, settings.power)(draws(settings.seed, 0, 0, purpose=11), users, settings.negatives)
    width = 1 + settings.negatives
    items = np.concatenate([np.asarray(log.items[chosen], dtype=np.int64)[:, None], drawn], axis=1).reshape(-1)
    labels = np.zeros((len(chosen), width), dtype=np.float32)
    labels[:, 0] = 1.0
    times = None if log.times is None else np.asarray(log.times[chosen])
    plain = replace(log, weights=None)  # events are all successes here
    stops = _stops(plain, users, times, chosen)
    rows = Rows(np.repeat(users, width), items, labels.reshape(-1), np.repeat(stops, width), plain, None if times is None else np.repeat(times, width))
    return rows, np.repeat(parts[chosen], width)


def _rated(dataset: Dataset, log: Log, parts: npt.NDArray[np.int8], settings: Rated) -> tuple[Rows, npt.NDArray[np.int8]]:
    """Every event, with the success of each as the weight of the log's events."""
    from vitrail.data.conditions import compile_condition

    if dataset.info.positive:
        raise DataError(f'Data set "{dataset.info.name}" counts only events with {dataset.info.positive}: ingest it again without --positive to have failures.')
    assert log.rows is not None
    held = dataset.interactions.select(compile_condition(settings.label, dataset.interactions.columns).alias("held"))["held"].fill_null(False)
    labels = held.to_numpy()[log.rows].astype(np.float32)
    log = replace(log, weights=labels)
    times = None if log.times is None else np.asarray(log.times)
    users = log.users
    return Rows(users, np.asarray(log.items, dtype=np.int64), labels, _stops(log, users, times, np.arange(len(log))), log, times), parts


def _known(table: pl.DataFrame, times: Int64, name: str) -> Int64 | None:
    """(R,) when the outcome of each row is known, as `outcome_known` tells, microseconds; where that is empty, the moment it was shown.

    Raises DataError where an outcome is known before its row was shown.
    """
    if "outcome_known" not in table.columns:
        return None
    known = table["outcome_known"].dt.epoch("us").fill_null(pl.Series(times)).to_numpy().astype(np.int64)
    if (known < times).any():
        raise DataError(f'The impressions of data set "{name}" have an outcome_known before their timestamp: write the moment from which the outcome is known.')
    return known


def _shown(dataset: Dataset, settings: Shown) -> tuple[Rows, npt.NDArray[np.int8], Log, npt.NDArray[np.int8]]:
    """The rows of impressions.parquet, and the part of every event of the log: that of the rows at its time."""
    table, info = dataset.impressions, dataset.info
    log = dataset.log()
    if settings.within is not None and "clicked" not in table.columns:
        table = table.with_columns(clicked=pl.lit(0.0))
    if lack := [name for name in ("user", "item", "clicked") if name not in table.columns]:
        raise DataError(f'impressions.parquet of data set "{info.name}" has no column "{lack[0]}": write it again with user, item, clicked and timestamp.')
    if log.weights is None and log.rows is not None and "value" in dataset.interactions.columns and not dataset.interactions["value"].null_count():
        log = replace(log, weights=dataset.interactions["value"].cast(pl.Float32).to_numpy()[log.rows])
    # the order of the file must not matter: codes are hashes of the ids
    by = [name for name in ("timestamp", "before") if name in table.columns]
    codes = {"user_code": dataset.user_ids.encode(table["user"]), "item_code": dataset.item_ids.encode(table["item"])}
    table = table.with_columns(**{name: pl.Series(found) for name, found in codes.items()}).sort("user_code", *by, "item_code", "clicked")
    users, items = table["user_code"].to_numpy(), table["item_code"].to_numpy()
    table = table.drop(*codes)
    times = None
    if "timestamp" in table.columns and log.times is not None:
        times = table["timestamp"].dt.epoch("us").to_numpy().astype(np.int64)
        stops = before(log, users, times)
    elif "before" in table.columns:
        stops = log.indptr[users] + np.minimum(table["before"].to_numpy().astype(np.int64), log.lengths[users])
    else:
        raise DataError(f'impressions.parquet of data set "{info.name}" has neither a timestamp nor "before", so no history can be found: write it again.')
    weights = table["weight"].cast(pl.Float32).to_numpy() if "weight" in table.columns else None
    context = {name: table[name] for name in table.columns if name not in RESERVED}
    positions, chances = (table[name].cast(pl.Float32).fill_null(np.nan).to_numpy() if name in table.columns else None for name in ("position", "propensity"))
    rows = Rows(
        users, items, table["clicked"].cast(pl.Float32).to_numpy(), stops, log, times, weights, context, positions=positions, propensities=chances,
        known=None if times is None or settings.within is not None else _known(table, times, info.name),
    )  # fmt: skip
    if settings.cut == "given" and "part" in table.columns:
        parts = table["part"].replace_strict({"train": TRAIN, "valid": VALID, "test": TEST}, return_dtype=pl.Int8).to_numpy()
    elif times is None:
        raise DataError(f'The impressions of data set "{info.name}" have neither parts nor times to cut by: write them with a column "part" or "timestamp".')
    else:
        parts = _by_time(Log(np.array([0, len(rows)]), items.astype(np.int32), log.n_items, times), settings, info)
    # an event is known unless it comes at or after the first test row of its user, or of anybody where the cut is one in time
    first = np.full(log.n_users, len(log), dtype=np.int64)
    np.minimum.at(first, users[parts == TEST], stops[parts == TEST])
    late = np.arange(len(log)) >= first[log.users]
    if times is not None and log.times is not None and (parts == TEST).any() and times[parts != TEST].max(initial=0) < times[parts == TEST].min():
        late |= log.times >= times[parts == TEST].min()
    return rows, parts, log, np.where(late, TEST, TRAIN).astype(np.int8)
