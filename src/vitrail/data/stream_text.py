"""Large delimited text in chunks: stretches of whole lines are read as a whole file is and kept as Parquet beside the output, which `stream` goes through.

A stretch ends where the rows before it read the same whatever comes after: no quoted field is open there. Lines, reasons and the
text of rejected rows are those of the file.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from vitrail.data import readers_text, stream
from vitrail.data.clean import LINE, Ledger
from vitrail.data.ingest import IngestSettings
from vitrail.data.readers import SAMPLE, RawTable, find_layout, first_row, is_parquet, text_kind
from vitrail.data.readers_folder import Source, Sources
from vitrail.data.readers_text import HEAD, NEVER_CLOSED, NOT_TEXT, Reasons, TextFile, is_packed, is_plain, quote_pairs, quotes_open, read_delimited
from vitrail.data.stream import File, NotStreamed
from vitrail.data.tables import scan_chunks
from vitrail.data.times import dates_share
from vitrail.errors import DataError
from vitrail.files import full_disk_as_sentence, under_way

STRETCH = 1 << 25
"""Bytes of a stretch of lines, about."""
LONGEST = 16
"""Times that is the longest stretch, where quotes are long in closing."""
TIMES_TEXT = 8
"""Memory over the size of a text file that is read as a whole."""
PACKED = 4
"""Size of a compressed text file's content over its own."""
TRIES = 1000
"""Lines that are looked at for a place to cut."""


def disk(sources: Sources) -> int:
    """Bytes that text takes as Parquet, at most."""
    return sum(source.path.stat().st_size for source in sources.events if not is_parquet(source.path))


def whole_memory(sources: Sources) -> float:
    """Bytes that reading all rows at once takes, about: by rows and columns where a file tells them, else by its size."""
    need = 0.0
    for source in sources.events:
        if is_parquet(source.path):
            rows, columns = stream.extent(source.path)
            need += 48 * rows * columns
        else:
            need += source.path.stat().st_size * TIMES_TEXT * (PACKED if is_packed(source.path) else 1)
    return need


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """A temporary folder on the disk of `out`, gone in the end."""
    home = next(place for place in out.absolute().parents if place.is_dir())
    with under_way(home / out.name) as folder:
        yield folder


def survey(source: Source, told: IngestSettings) -> File:
    """What must be known of a whole file. Raises DataError where it cannot be read, NotStreamed where it needs the way through memory."""
    return stream.survey(source) if is_parquet(source.path) else TextRows(source, told)


class TextRows(File):
    """A delimited text file of events."""

    def __init__(self, source: Source, told: IngestSettings) -> None:
        """Lays the file out by its head. Raises DataError where it cannot be read, NotStreamed where it is none or its head does not tell."""
        self.size = source.path.stat().st_size
        with source.path.open("rb") as file:
            head = file.read(HEAD)
        if not is_plain(told.encoding):
            raise NotStreamed(f"its encoding is {told.encoding}")
        if self.size > HEAD and sum(1 for line in head.split(b"\n")[:-1] if line.strip(b" \r")) < SAMPLE:
            raise NotStreamed("its lines are very long")
        text = TextFile(source.path, told.encoding, HEAD)
        kind = text_kind(text, told.format)
        if kind in ("json", "jsonl"):
            raise NotStreamed("it is JSON")
        self.layout = find_layout(text, format=kind, separator=told.separator, header=told.header)
        if self.layout.format == "lines":
            raise NotStreamed("its lines are histories")
        if LINE in self.layout.names:
            raise NotStreamed(f"it has a column {LINE}")
        super().__init__(source, {}, dict.fromkeys(self.layout.names, pl.String()), {}, types=self.layout.types)
        self.separator = str(self.layout.separator)
        self.begins = 3 if head.startswith(codecs.BOM_UTF8) else 0
        self.at = first_row(text, self.layout)
        """index of the line where the rows begin"""
        self.lines = 0
        """lines that were walked"""
        self.cuts: list[tuple[int, int, int]] = []
        """(index of the first line, first byte, bytes) of each stretch"""
        self.stored = source.path
        self.first_rows = pl.DataFrame()
        self._held: tuple[int, TextFile] | None = None
        self.quoted = False
        if self.layout.format != "atomic":
            self.quoted = self.separator != "\t" or not sum(quotes_open(text, "\t") for _, text in self._walk())
            self.cuts.clear()

    @property
    def path(self) -> Path:
        """The Parquet file that holds the rows."""
        return self.stored

    @property
    def span(self) -> int:
        """The lines of the file."""
        return self.lines

    def _lines(self, first: int, count: int) -> TextFile:
        """The lines in `count` bytes from byte `first` on; one that is not whole is left out, except at the end of the file."""
        with self.source.path.open("rb") as file:
            file.seek(first)
            data = file.read(count)
        whole = len(data) if first + len(data) >= self.size else data.rfind(b"\n") + 1
        return TextFile.stretch(self.source.path, data[:whole], begins=first == self.begins)

    def _cut(self, first: int) -> TextFile:
        """The stretch that begins at byte `first`."""
        count = STRETCH
        while count <= LONGEST * STRETCH:
            text = self._lines(first, count)
            lines = self._settled(text, ends=first + len(text.bytes) >= self.size)
            if lines:
                return text if lines == len(text) else self._lines(first, int(text.ends[lines - 1]) + 1)
            count *= 2
        raise NotStreamed("it has quotes that are long in closing")

    def _settled(self, text: TextFile, *, ends: bool) -> int:
        """The lines, stream.CHUNK at most, that read the same whatever follows. `ends`: nothing does."""
        lines = min(len(text), stream.CHUNK)
        if not self.quoted or (ends and lines == len(text)) or readers_text.QUOTE not in text.bytes:
            return lines
        continued, stray = quote_pairs(text, self.separator)
        if len(stray) and len(text) - stray[-1] <= readers_text.FAR + 1:  # a line to come may close it
            lines = min(lines, int(stray[-1]))
        field = rf'(?:(?:(?!{re.escape(self.separator)})[^"])*|"(?:[^"]|"")*")'
        plain = re.compile(rf"{field}(?:{re.escape(self.separator)}{field})*")
        for line in range(lines, max(lines - TRIES, 0), -1):
            if not (line < len(text) and continued[line]) and plain.fullmatch(text.text(line - 1)):
                return line
        return 0

    def _walk(self) -> Iterator[tuple[int, TextFile]]:
        """(index of its first line, the stretch) of all stretches."""
        at, first = self.begins, 0
        for number in range(self.size):
            if at >= self.size:
                break
            text = self._lines(at, self.cuts[number][2]) if number < len(self.cuts) else self._cut(at)
            if number == len(self.cuts):
                self.cuts.append((first, at, len(text.bytes)))
            yield first, text
            at, first = at + len(text.bytes), first + len(text)
        self.lines = first

    def _tables(self) -> Iterator[tuple[pl.DataFrame, npt.NDArray[np.int64], Reasons]]:
        """(rows, their lines, reason -> lines that could not be read) of all stretches, lines from 1."""
        for first, text in self._walk():
            try:
                frame, lines, reasons = read_delimited(text, self.layout.names, self.separator, max(self.at - first, 0), quoted=self.quoted)
            except (DataError, pa.ArrowInvalid):
                raise NotStreamed("it has quotes that cannot be paired") from None
            yield frame, lines + first + 1, {reason: where + first + 1 for reason, where in reasons.items() if len(where)}

    def _text(self, line: int) -> str:
        number = bisect_right(self.cuts, line - 1, key=lambda cut: cut[0]) - 1
        if self._held is None or self._held[0] != number:
            self._held = number, self._lines(*self.cuts[number][1:])
        return self._held[1].text(line - 1 - self.cuts[number][0])

    def raw(self, frame: pl.DataFrame, lines: npt.NDArray[np.int64]) -> RawTable:
        """Rows (R,) of the file and their lines."""
        layout = self.layout
        return RawTable(self.source.path, layout.format, frame, lines, {}, self._text, layout.separator, layout.header, layout.types)

    def sample(self, rows: int) -> RawTable:
        """The first `rows`; where there are none, why."""
        frames, lines, reasons = [], [], dict[str, list[npt.NDArray[np.int64]]]()
        for frame, where, unread in self._tables():
            frames.append(frame.head(rows))
            lines.append(where[:rows])
            for reason, places in unread.items():
                reasons.setdefault(reason, []).append(places)
            rows -= frames[-1].height
            if not rows:
                break
        raw = self.raw(pl.concat(frames), np.concatenate(lines))
        raw.reasons.update({reason: np.concatenate(places) for reason, places in reasons.items()})
        self.first_rows = raw.frame
        return raw

    def store(self, path: Path, ledger: Ledger) -> None:
        """Write the rows to `path`, a row group for a stretch."""
        import pyarrow.parquet as pq

        if "timestamp" in self.roles and dates_share(self.first_rows[self.roles["timestamp"].column]) > 0.5:
            raise NotStreamed(f"its times ({self.roles['timestamp'].column}) are text")
        schema = pa.schema([*((name, pa.large_string()) for name in self.layout.names), (LINE, pa.int64())])
        self.reasons |= {NOT_TEXT: (0, 0), NEVER_CLOSED: (0, 0)}
        with full_disk_as_sentence(path.parent), ExitStack() as closing:
            path.parent.mkdir(exist_ok=True)
            packing: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "column_encoding": {LINE: "DELTA_BINARY_PACKED"}}
            writer = closing.enter_context(pq.ParquetWriter(path, schema, use_dictionary=False, write_statistics=False, **packing))
            for frame, lines, reasons in self._tables():
                raw = self.raw(frame, lines)
                for reason, where in reasons.items():
                    ledger.note(raw, reason, where)
                    count, first = self.reasons.get(reason, (0, 0))
                    self.reasons[reason] = count + len(where), first or int(where[0])
                    self.unread += len(where)
                self.rows += frame.height
                if frame.height:
                    table = frame.with_columns(pl.Series(LINE, lines)).to_arrow(compat_level=pl.CompatLevel.oldest())
                    writer.write_table(table.cast(schema), row_group_size=frame.height)
        self.stored = path

    def frames(self) -> Iterator[tuple[pl.DataFrame, npt.NDArray[np.int64]]]:
        """The rows and their lines, a stretch at a time."""
        for _, frame in scan_chunks(self.path, [*self.schema, LINE], 1):
            yield frame.drop(LINE), frame[LINE].to_numpy()

    def shown(self, line: int) -> RawTable:
        """A table that knows the text of `line`."""
        return self.raw(pl.DataFrame(schema=self.schema), np.zeros(0, np.int64))
