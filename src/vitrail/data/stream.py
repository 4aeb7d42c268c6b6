"""Ingest of large files in chunks: the data set that the way through memory writes, byte for byte, in a memory that hardly grows with the rows.

The rows of Parquet files (`stream_text` makes them of text) are read three times: for what must be known of a whole column (how its numbers
read), for what is wrong with each row and its hash (equal rows are only looked for among equal hashes), and to be written. What a source of
another form needs is `NotStreamed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from vitrail.data.clean import CANONICAL, FILE, LINE, Ledger, clean_rows, repeated
from vitrail.data.conditions import compile_condition
from vitrail.data.ingest import IngestSettings
from vitrail.data.kinds import SAMPLE, KindGuess, cleaned, convert, guess_kind
from vitrail.data.readers import RawTable, as_read, is_parquet
from vitrail.data.readers_folder import Source, Sources
from vitrail.data.readers_text import is_packed, lines_about
from vitrail.data.roles import RoleGuess, examples
from vitrail.data.tables import Rows, scan_chunks
from vitrail.data.times import LIMITS, PER_SECOND
from vitrail.errors import DataError

FROM = 2_000_000
"""Rows from which files are read in chunks."""
CHUNK = 1 << 20
"""Rows read at once, or a row group where it is larger."""
DAYS = 19_000_000, 21_000_000
"""Whole numbers between these may be days (20140723)."""
PENDING = 1 << 22
"""Ids that are held before repeated ones go."""
HEAD = 1000
"""Values that examples are taken from."""
DATED = 1000
"""Values that decide, in the way through memory, whether times are dates."""


class NotStreamed(Exception):
    """Why a source is read as a whole."""


def extent(path: Path) -> tuple[int, int]:
    """(rows, columns) of a Parquet file, from its last bytes; nothing where it is none: what is wrong with it is said where it is read."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return file.metadata.num_rows, file.metadata.num_columns
    except (OSError, ValueError):
        return 0, 0


def worth(sources: Sources, told: IngestSettings) -> bool:
    """Whether the events are Parquet or plain text of so many rows that they are read in chunks."""
    for source in sources.events:
        if not source.path.is_file():
            return False
        binary = is_parquet(source.path)
        if (told.format is not None and (told.format == "parquet") != binary) or (not binary and is_packed(source.path)):
            return False
    return rows_about(sources) >= FROM


def memory(sources: Sources) -> int:
    """Bytes that reading in chunks takes at its peak, about: a hash of every row, sorted, and a few chunks."""
    return 24 * rows_about(sources) + 600 * CHUNK


def rows_about(sources: Sources) -> int:
    """The rows of all files of events; of text an estimate."""
    return sum(extent(source.path)[0] if is_parquet(source.path) else lines_about(source.path) for source in sources.events)


@dataclass
class File:
    """A file of events and what must be known of it before its rows are read."""

    source: Source
    roles: dict[str, RoleGuess]
    schema: dict[str, Any]
    whole: dict[str, bool]
    """columns of floats -> whether all of them are whole numbers, which then read as such"""
    unit: str | None = None
    rows: int = 0
    first: int = 0
    """place of its first row among the rows of all files"""
    reasons: dict[str, tuple[int, int]] = field(default_factory=dict)
    """reason -> (rows rejected, line of the first)"""
    unread: int = 0
    """rows that are not among `rows`, for they could not be read"""
    types: dict[str, str] = field(default_factory=dict)
    """what an atomic header says of its columns"""

    @property
    def path(self) -> Path:
        """The Parquet file that holds the rows."""
        return self.source.path

    @property
    def span(self) -> int:
        """The line of its last row, or more."""
        return self.rows

    def sample(self, rows: int) -> RawTable:
        """The first `rows`, as text."""
        return RawTable(self.path, "parquet", self.text(pl.scan_parquet(self.path).head(rows).collect()), np.arange(1, min(rows, self.rows) + 1), {}, str)

    def store(self, path: Path, ledger: Ledger) -> None:
        """Make what its rows are read from, where the file itself will not do: in `path`. What cannot be read is kept in `ledger`."""

    def text(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows as text, as a whole file is read."""
        return frame.with_columns(as_read(frame[name], self.whole.get(name)) for name in frame.columns)

    def raw(self, frame: pl.DataFrame, lines: npt.NDArray[np.int64]) -> RawTable:
        """Rows (R,) of the file and their lines; numbers of the roles that read numbers stay numbers."""
        numbers = {guess.column for role, guess in self.roles.items() if role in ("timestamp", "value", "position") and self._plain(guess.column)}
        read = frame.with_columns(as_read(frame[name], self.whole.get(name)) for name in frame.columns if name not in numbers)

        @cache  # most chunks have no row that must be shown
        def shown() -> pl.DataFrame:
            return self.text(frame)

        def text(line: int) -> str:
            return orjson.dumps(shown().row(int(np.searchsorted(lines, line)), named=True), default=str).decode()

        return RawTable(self.source.path, "parquet", read, lines, {}, text)

    def _plain(self, name: str) -> bool:
        return self.schema[name].is_integer() or self.schema[name] == pl.Float64 or self.schema[name].is_temporal()

    def frames(self) -> Iterator[tuple[pl.DataFrame, npt.NDArray[np.int64]]]:
        """The rows as they are stored and their lines, a chunk at a time."""
        for start, frame in scan_chunks(self.path, list(self.schema), CHUNK):
            yield frame, np.arange(start + 1, start + 1 + frame.height)

    def chunks(self) -> Iterator[RawTable]:
        """The rows, a chunk at a time."""
        for frame, lines in self.frames():
            yield self.raw(frame, lines)

    def shown(self, line: int) -> RawTable:
        """A table that knows the text of `line`."""
        return self.raw(pl.scan_parquet(self.path).slice(line - 1, 1).collect(), np.array([line]))


def refuse(sources: Sources, told: IngestSettings) -> None:
    """Raises NotStreamed for what looks at all rows at once."""
    if any(source.part for source in sources.events):
        raise NotStreamed("the files come split")
    for name in ("ordered", "min_user_events", "min_item_events"):
        if getattr(told, name):
            raise NotStreamed(f"--{name.replace('_', '-')} looks at all rows at once")


def survey(source: Source) -> File:
    """What must be known of a whole file. Raises DataError where it cannot be read, NotStreamed where it holds other than plain columns."""
    path = source.path
    try:
        table = pl.scan_parquet(path)
        schema = dict(table.collect_schema())
        for name, dtype in schema.items():
            if not (dtype == pl.String or dtype.is_integer() or dtype in (pl.Float32, pl.Float64, pl.Boolean, pl.Date) or isinstance(dtype, pl.Datetime)):
                raise NotStreamed(f"its column {name} holds {dtype}")
        floats = [name for name, dtype in schema.items() if dtype.is_float()]
        facts = {}
        for name in floats:
            x = pl.col(name)
            known = x.filter(x.is_not_null() & x.is_not_nan())
            facts[name] = known.is_finite().all() & (known == known.round(0)).all() & (known.len() > 0) & (known.abs() < 2**53).all()
        whole = table.select(**facts).collect(engine="streaming").row(0) if facts else ()
        rows = table.select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError):
        raise DataError(f"{path} is not readable Parquet: it is truncated or damaged; copy or write it again.") from None
    return File(source, {}, schema, dict(zip(floats, map(bool, whole), strict=True)), rows=rows)


def time_unit(file: File, told: str | None) -> str | None:
    """The unit of times that are numbers, as all rows of the file tell it. Raises NotStreamed for times of another form."""
    if "timestamp" not in file.roles:
        return None
    column = file.roles["timestamp"].column
    dtype = file.schema[column]
    if dtype.is_temporal():
        return told
    if not dtype.is_integer() and dtype != pl.String:
        raise NotStreamed(f"its times ({column}) are fractions")
    if told is not None:
        return told
    cells = pl.col(column) if dtype.is_integer() else pl.col(column).str.strip_chars()
    x = cells.cast(pl.Float64, strict=False)
    known = cells.is_not_null() if dtype.is_integer() else cells.fill_null("") != ""
    size, edges = x.filter(x.is_finite() & (x >= 0)), [LIMITS[unit] for unit in ("s", "ms", "us")]
    below = [(size < edge).sum().alias(f"below{place}") for place, edge in enumerate(edges)]
    days = x.is_between(*DAYS).sum().alias("days")
    counted = (*below, size.len().alias("all"), days, known.sum().alias("known"), (known & x.is_null()).sum().alias("words"))
    facts = pl.scan_parquet(file.path).select(counted).collect(engine="streaming").row(0, named=True)
    if facts["words"] > min(facts["known"], DATED) // 2:  # so many that they may be taken for dates
        raise NotStreamed(f"its times ({column}) are text")
    if facts["days"]:
        raise NotStreamed(f"some of its times ({column}) may be days")
    counts = np.diff([0, facts["below0"], facts["below1"], facts["below2"], facts["all"]])
    return list(PER_SECOND)[int(counts.argmax())]


class Stream:
    """The rows of all files, cleaned a chunk at a time."""

    def __init__(self, files: list[File], told: IngestSettings, ledger: Ledger) -> None:
        """`files` with their roles known. Raises DataError where more than half of the rows of a file cannot be used."""
        self.files, self.told, self.ledger = files, told, ledger
        self.repaired: dict[str, int] = {}
        self.drop: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.kinds: dict[str, KindGuess] = {}
        self.examples: dict[str, tuple[str, ...]] = {}
        self.seen: dict[str, list[pl.Series]] = {"user": [], "item": []}
        self.events: set[str | None] = set()
        self.kept = 0
        for before, file in zip([0, *np.cumsum([file.span for file in files]).tolist()], files, strict=False):
            file.first = before
        self._judge()

    def cleaned(self, file: File, raw: RawTable, ledger: Ledger) -> tuple[pl.DataFrame, dict[str, npt.NDArray[np.int64]]]:
        """(rows that can be used, reason -> lines that cannot)."""
        frame, reasons, _ = clean_rows(raw, file.roles, ledger, part=None, event=file.source.event, time_unit=file.unit)
        return frame, reasons

    def _judge(self) -> None:
        """What is wrong with each row, which rows are there twice, and who and what is seen."""
        hashes: list[npt.NDArray[np.uint64]] = []
        places: list[npt.NDArray[np.int64] | None] = []
        shape: list[tuple[str, Any]] | None = None
        for file in self.files:
            own = _Counted()
            for raw in file.chunks():
                frame, reasons = self.cleaned(file, raw, own)
                for reason, lines in reasons.items():
                    count, first = file.reasons.get(reason, (0, 0))
                    file.reasons[reason] = (count + len(lines), first or int(lines[0]) if len(lines) else first)
                    self.ledger.note(raw, reason, lines)
                rows = frame.drop(LINE)
                if shape is not None and shape != list(rows.schema.items()):
                    raise NotStreamed("the files have different columns")
                shape = list(rows.schema.items())
                if not self.told.keep_duplicates:
                    hashes.append(rows.hash_rows(seed=0).to_numpy())
                    places.append(None if frame.height == len(raw.lines) else np.searchsorted(raw.lines, frame[LINE].to_numpy()))
                self.kept += frame.height
                self._see(rows)
            self._settle(file, own)
        if not self.kept:
            raise DataError("No row is left that can be used: see the files and the roles of their columns.")
        if hashes:
            self._find_repeated(hashes, places)
        self.schema = dict(shape or [])
        self.kept -= len(self.drop)

    def _see(self, rows: pl.DataFrame) -> None:
        for role, pending in self.seen.items():
            pending.append(rows[role].unique(maintain_order=True))
            if sum(map(len, pending[1:])) > PENDING:
                pending[:] = [pl.concat(pending).unique(maintain_order=True)]
        if self.told.weights is not None and "event" in rows.columns:
            self.events |= set(rows["event"].unique().to_list())

    def _settle(self, file: File, own: Ledger) -> None:
        """Count what one file brought. Raises DataError where more than half of it cannot be used."""
        found = {reason: (count, line) for reason, (count, line) in file.reasons.items() if count}
        rows = file.rows + file.unread
        if sum(count for count, _ in found.values()) > rows / 2:
            reason, (_, line) = max(found.items(), key=lambda pair: pair[1][0])
            lines = {name: np.full(count, line) for name, (count, _) in found.items()}
            Ledger().reject(file.shown(line), {reason: lines.pop(reason), **lines}, rows)
        for reason, (count, _) in found.items():
            self.ledger.rejected[reason] += count
        for reason, count in own.repaired.items():
            self.ledger.repair(reason, count)

    def _find_repeated(self, hashes: list[npt.NDArray[np.uint64]], places: list[npt.NDArray[np.int64] | None]) -> None:
        """The rows that equal an earlier one in every column, among those whose hash is not alone."""
        whole = np.concatenate(hashes)
        hashes.clear()
        ordered = np.sort(whole)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        del ordered
        if not len(twice):
            return
        alike: list[pl.DataFrame] = []
        raws: list[RawTable] = []
        start = number = 0
        for file in self.files:
            for frame, lines in file.frames():
                kept = places[number]
                rows = np.arange(frame.height) if kept is None else kept
                start, number, rows = start + len(rows), number + 1, rows[np.isin(whole[start : start + len(rows)], twice)]
                if len(rows):
                    raws.append(file.raw(frame[rows], lines[rows]))
                    alike.append(self.cleaned(file, raws[-1], Ledger())[0].with_columns(pl.lit(file.first).alias(FILE)))
        table = pl.concat(alike)
        again = repeated(table)
        if not again.any():
            return
        self.ledger.repair("exact duplicate rows", int(again.sum()))
        self.drop = table.filter(again).select(pl.col(FILE) + pl.col(LINE) - 1).to_series().to_numpy()
        begin = 0
        for raw in raws:
            self.ledger.note(raw, "an exact duplicate row, kept once", raw.lines[again[begin : begin + len(raw.lines)]])
            begin += len(raw.lines)

    def raw_rows(self, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        """The rows that are kept, with the columns of their roles and context columns as they were read."""
        ledger = Ledger()
        for file in self.files:
            for raw in file.chunks():
                frame, _ = self.cleaned(file, raw, ledger)
                place = frame[LINE].to_numpy() - 1 + file.first
                near = self.drop[np.searchsorted(self.drop, place[0]) : np.searchsorted(self.drop, place[-1], side="right")] if len(place) else self.drop[:0]
                if len(near):
                    frame = frame.filter(~np.isin(place, near))
                yield frame.drop(LINE) if columns is None else frame.select(columns)

    @property
    def context(self) -> list[str]:
        """Columns without a role."""
        return [name for name in self.schema if name not in CANONICAL]

    def guess_context(self) -> None:
        """The kinds of the context columns, by the rows that the way through memory looks at. Raises NotStreamed where cells would be lost."""
        names = self.context
        if not names:
            return
        known = dict.fromkeys(names, 0)
        for frame in self.raw_rows(names):
            for name in names:
                known[name] += cleaned(frame[name]).drop_nulls().len()
        at = dict.fromkeys(names, 0)
        sample: dict[str, list[pl.Series]] = {name: [] for name in names}
        first: dict[str, list[pl.Series]] = {name: [] for name in names}
        for frame in self.raw_rows(names):
            for name in names:
                values, step = frame[name].filter(cleaned(frame[name]).is_not_null()), max(1, known[name] // SAMPLE)
                sample[name].append(values.gather(np.arange(-at[name] % step, len(values), step)))
                if at[name] < HEAD:
                    first[name].append(values.head(HEAD - at[name]))
                at[name] += len(values)
        types = {name: kind for file in self.files for name, kind in file.types.items()}
        for name in names:
            some = pl.concat(sample[name])
            guess = guess_kind(some, types.get(name))
            told = self.told.columns.get(name, guess.kind)
            if told != guess.kind or (guess.kind == "categories" and guess.separator is None) or (guess.kind == "date" and not some.dtype.is_temporal()):
                raise NotStreamed(f"its column {name} is read as {told}")
            self.kinds[name] = guess
            self.examples[name] = examples(convert(pl.concat(first[name]), guess)[0])

    def rows(self) -> Rows:
        """What is written. Making it raises NotStreamed where a cell does not read as its column, DataError where no row is what is said to count."""
        names = [name for name in CANONICAL if name in self.schema] + self.context
        types = {name: convert(pl.Series(name, [], dtype=self.schema[name]), guess)[0].dtype for name, guess in self.kinds.items()}
        seen = {role: pl.concat(pending).unique(maintain_order=True) for role, pending in self.seen.items()}
        return Rows(self.kept, {name: types.get(name, self.schema[name]) for name in names}, seen, lambda: self._made(names))

    def _made(self, names: list[str]) -> Iterator[pl.DataFrame]:
        condition = compile_condition(self.told.positive, names) if self.told.positive is not None else None
        counted = condition is None
        for frame in self.raw_rows():
            for name, guess in self.kinds.items():
                column, lost = convert(frame[name], guess)
                if lost:
                    raise NotStreamed(f"its column {name} is not all {guess.kind}")
                frame = frame.with_columns(column)
            frame = frame.select(names)
            if condition is not None and not counted:
                counted = bool(frame.lazy().filter(condition).limit(1).collect().height)
            yield frame
        if not counted:
            raise DataError(f'No event meets --positive "{self.told.positive}": change it.')


class _Counted(Ledger):
    """Remembers also what was mended in no row, so that reasons keep their order over chunks."""

    def repair(self, reason: str, count: int) -> None:
        self.repaired[reason] += int(count)
