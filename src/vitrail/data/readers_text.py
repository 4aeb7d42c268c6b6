"""Text files as rows, with exact line numbers: delimited tables and per-line histories. Nothing is built row by row."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.csv

from vitrail.errors import DataError, SettingError

Int64 = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Reasons = dict[str, Int64]
"""reason -> line indices (from 0) that cannot be read"""

NOT_TEXT = "text that is not UTF-8"
NEVER_CLOSED = "a quote that is never closed"
CHUNK = 1 << 24
FAR = 1000
"""Lines a quoted field may run over; a longer one is taken for a quote that was never closed."""
HEAD = 1 << 21
"""Bytes of a file that are looked at when only a guess is wanted."""
NEWLINE, RETURN, QUOTE, SPACE, APOSTROPHE, MARK = 10, 13, 34, 32, 39, 63


class TextFile:
    """The bytes of a text file, memory-mapped where they can be, and where its L lines start."""

    def __init__(self, path: Path, encoding: str = "utf-8", head: int | None = None) -> None:
        """`head`: look at about so many bytes only. Raises DataError for an empty or binary file, SettingError for an unknown encoding."""
        self.path = path
        data = _whole_lines(_content(path), head)
        if is_plain(encoding):
            _refuse_binary(path, bytes(data[:4096]))
        else:
            data = _recoded(path, data, encoding, head)
        if bytes(data[:3]) == codecs.BOM_UTF8:
            data = data.slice(3)
        self._index(_unix_newlines(data))
        if not len(self.starts) or self.blank.all():
            raise DataError(f"{path} is empty: write it again, or leave it out.")

    @classmethod
    def stretch(cls, path: Path, data: bytes, *, begins: bool) -> TextFile:
        """Whole lines out of a file, which may be blank. `begins`: they are its first, without its byte order mark."""
        self = cls.__new__(cls)
        self.path = path
        self._index(_unix_newlines(pa.py_buffer(data), None if begins else SPACE))
        return self

    def _index(self, data: pa.Buffer) -> None:
        self.data = data
        self.bytes: Bytes = np.frombuffer(self.data, dtype=np.uint8)
        ends = _positions(self.bytes, NEWLINE)
        if len(self.bytes) and self.bytes[-1] != NEWLINE:
            ends = np.append(ends, len(self.bytes))
        self.ends = ends
        """(L,) where the line feed of each line is"""
        self.starts: Int64 = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: len(ends)]

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def blank(self) -> npt.NDArray[np.bool_]:
        """(L,) lines with nothing but spaces."""
        blank = self.ends == self.starts
        maybe = np.flatnonzero(~blank & (self.ends - self.starts <= 80))
        maybe = maybe[np.isin(self.bytes[self.starts[maybe]], (SPACE, RETURN))]
        for line in maybe.tolist():
            blank[line] = not self.text(line).strip(" ")
        return blank

    def text(self, line: int) -> str:
        """Line `line` (from 0) without its end."""
        return bytes(self.data[self.starts[line] : self.ends[line]]).decode("utf-8", errors="replace").rstrip("\r")

    def sample(self, count: int) -> Iterator[str]:
        """The first `count` lines that are not blank."""
        found = 0
        for line in range(len(self)):
            text = self.text(line)
            if text.strip(" "):
                yield text
                found += 1
            if found == count:
                return

    def not_utf8(self) -> Int64:
        """Line indices whose bytes are not UTF-8, found by halving, so a clean file costs one pass."""
        bad: list[int] = []
        step = max(1, len(self) * CHUNK // max(len(self.bytes), 1))
        todo = [(a, min(a + step, len(self))) for a in range(0, len(self), step)]
        while todo:
            first, stop = todo.pop()
            piece = bytes(self.data[self.starts[first] : self.ends[stop - 1]])
            if piece.isascii():
                continue
            try:
                piece.decode()
            except UnicodeDecodeError:
                if stop - first == 1:
                    bad.append(first)
                else:
                    middle = (first + stop) // 2
                    todo += [(first, middle), (middle, stop)]
        return np.array(sorted(bad), dtype=np.int64)

    def overwritten(self, lines: Int64, changes: dict[int, int]) -> pa.Buffer:
        """The data with bytes of `lines` changed (old -> new; key -1: every byte above 127)."""
        copy = self.bytes.copy()
        for line in lines.tolist():
            piece = copy[self.starts[line] : self.ends[line]]
            for old, new in changes.items():
                piece[piece > 127 if old < 0 else piece == old] = new
        return pa.py_buffer(copy)


def is_plain(encoding: str) -> bool:
    """Whether text is read as it stands. Raises SettingError for an unknown encoding."""
    try:
        return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
    except LookupError:
        raise SettingError(f'There is no encoding "{encoding}": try utf-8, latin-1, cp1252, utf-16 or gb18030.') from None


def is_packed(path: Path) -> bool:
    """Whether a file is compressed, by its suffix."""
    return isinstance(pa.input_stream(str(path), compression="detect"), pa.CompressedInputStream)


def lines_about(path: Path) -> int:
    """The lines of a text file, about: its size over the mean line of its head."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    return path.stat().st_size * head.count(b"\n") // max(len(head), 1)


def _content(path: Path) -> pa.Buffer:
    try:
        if not path.stat().st_size:
            raise DataError(f"{path} is empty: write it again, or leave it out.")
        stream = pa.input_stream(str(path), compression="detect")
        if isinstance(stream, pa.CompressedInputStream):
            return pa.py_buffer(stream.read())
        return pa.memory_map(str(path)).read_buffer()
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder where a file is wanted.") from None
    except PermissionError:
        raise DataError(f"{path} cannot be read: check its permissions.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be unpacked ({str(error).splitlines()[0]}): it is damaged or has the wrong suffix.") from None


def _whole_lines(data: pa.Buffer, head: int | None) -> pa.Buffer:
    if head is None or data.size <= head:
        return data
    cut = bytes(data[:head]).rfind(b"\n")
    return data.slice(0, cut + 1) if cut > 0 else data


def _refuse_binary(path: Path, start: bytes) -> None:
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError(f"{path} is UTF-16 text: pass --encoding utf-16.")
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80" or b"\x00" in start:
        raise DataError(f"{path} is not a text file: save it as CSV, TSV, JSON lines or Parquet (a pickle or a workbook is never opened).")


def _recoded(path: Path, data: pa.Buffer, encoding: str, head: int | None) -> pa.Buffer:
    try:
        return pa.py_buffer(bytes(data).decode(encoding, errors="strict" if head is None else "ignore").encode())
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not {encoding} text (byte {error.start:,}): pass another --encoding.") from None


def _positions(array: Bytes, byte: int) -> Int64:
    found = [np.flatnonzero(array[a : a + CHUNK] == byte) + a for a in range(0, len(array), CHUNK)]
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)


def _unix_newlines(data: pa.Buffer, lone_as: int | None = None) -> pa.Buffer:
    """A lone carriage return would be a line of its own to the parser: `lone_as` instead; not told: a space (a line feed where there is no other)."""
    array = np.frombuffer(data, dtype=np.uint8)
    returns = _positions(array, RETURN)
    following = array[np.minimum(returns + 1, len(array) - 1)]
    lone = returns[following != NEWLINE]
    if not len(lone):
        return data
    copy = array.copy()
    copy[lone] = lone_as or (SPACE if len(_positions(array, NEWLINE)) else NEWLINE)
    return pa.py_buffer(copy)


def read_delimited(text: TextFile, names: list[str], separator: str, first: int, *, quoted: bool) -> tuple[pl.DataFrame, Int64, Reasons]:
    """Rows of a delimited table from line index `first` on: (R rows of String columns `names`, (R,) their line indices, lines left out).

    A row with another number of fields, a quote never closed or bytes that are not UTF-8 is left out. Blank lines count for nothing.
    """
    reasons: Reasons = {}
    data, drop = text.data, text.blank.copy()
    bad = text.not_utf8()
    if len(bad):
        reasons[NOT_TEXT] = bad[bad >= first]
        drop[bad] = True
        data = text.overwritten(bad, {-1: MARK})
    continued = np.zeros(len(text), dtype=bool)
    if quoted:
        continued, stray = quote_pairs(text, separator)
        if len(stray):
            reasons[NEVER_CLOSED] = stray
            if len(bad):
                reasons[NOT_TEXT] = np.setdiff1d(reasons[NOT_TEXT], stray)
            drop[stray] = True
            array = np.frombuffer(data, np.uint8).copy()
            for line in stray.tolist():
                piece = array[text.starts[line] : text.ends[line]]
                piece[piece == QUOTE] = APOSTROPHE
            data = pa.py_buffer(array)
        if len(bad) and continued.any():
            record = np.maximum.accumulate(np.where(continued, 0, np.arange(len(text))))
            reasons[NOT_TEXT] = np.setdiff1d(record[bad][bad >= first], stray)
            drop[reasons[NOT_TEXT]] = True
    lines = np.flatnonzero(~continued)
    lines = lines[lines >= first]
    if not len(lines):
        return pl.DataFrame({name: pl.Series([], dtype=pl.String) for name in names}), lines, reasons
    data = data.slice(int(text.starts[first]))
    if len(separator.encode()) != 1:
        data, separator = pa.py_buffer(bytes(data).replace(separator.encode(), b"\x1f")), "\x1f"
    frame, wrong = _parse(data, names, separator, quoted, bool(continued.any()), int((text.ends - text.starts).max()))
    wrong = wrong[wrong < len(lines)]
    if frame.height + len(wrong) != len(lines):
        raise DataError(f"{text.path} has quotes that cannot be paired: quote every field, or none, and double a quote inside a quoted field.")
    if len(wrong):
        reasons[f"a number of fields other than {len(names)}"] = lines[wrong][~drop[lines[wrong]]]
        lines = np.delete(lines, wrong)
    gone = drop[lines]
    if gone.any():
        frame, lines = frame.filter(~gone), lines[~gone]
    return frame, lines, reasons


def _parse(data: pa.Buffer, names: list[str], separator: str, quoted: bool, multiline: bool, longest: int) -> tuple[pl.DataFrame, Int64]:
    """(rows, indices of the rows with a wrong number of fields)."""
    wrong: list[int] = []

    def note(row: pa.csv.InvalidRow) -> str:
        wrong.append(row.number - 1)
        return "skip"

    plain = [f"c{i}" for i in range(len(names))]
    table = pa.csv.read_csv(
        pa.BufferReader(data),
        read_options=pa.csv.ReadOptions(use_threads=False, column_names=plain, block_size=max(1 << 23, 4 * longest + 64)),
        parse_options=pa.csv.ParseOptions(
            delimiter=separator,
            quote_char='"' if quoted else False,
            newlines_in_values=multiline,
            ignore_empty_lines=False,
            invalid_row_handler=note,
        ),
        convert_options=pa.csv.ConvertOptions(column_types={name: pa.string() for name in plain}, strings_can_be_null=False),
    )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame.columns = names
    return frame, np.array(wrong, dtype=np.int64)


def quote_pairs(text: TextFile, separator: str) -> tuple[npt.NDArray[np.bool_], Int64]:
    """((L,) lines that go on with the record of the line before, lines whose quote is never closed)."""
    continued = np.zeros(len(text), dtype=bool)
    where = _positions(text.bytes, QUOTE)
    if not len(where):
        return continued, np.zeros(0, np.int64)
    line = np.searchsorted(text.starts, where, side="right") - 1
    odd = np.flatnonzero(np.bincount(line, minlength=len(text)) % 2)
    opening, closing = _edges(text.bytes, where, separator)
    opens, closes = np.isin(odd, line[opening]), np.isin(odd, line[closing])
    stray: list[int] = []
    i = 0
    while i < len(odd):
        if not opens[i]:
            i += 1
        elif i + 1 < len(odd) and closes[i + 1] and odd[i + 1] - odd[i] <= FAR:
            continued[odd[i] + 1 : odd[i + 1] + 1] = True
            i += 2
        else:
            stray.append(int(odd[i]))
            i += 1
    return continued, np.array(stray, dtype=np.int64)


def _edges(array: Bytes, where: Int64, separator: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """For each quote: whether it stands at the start of a field, and whether at the end of one."""
    limits = (ord(separator[0]) if ord(separator[0]) < 128 else NEWLINE, NEWLINE, RETURN)
    before, after = array[np.maximum(where - 1, 0)], array[np.minimum(where + 1, len(array) - 1)]
    return np.isin(before, limits) | (where == 0), np.isin(after, limits) | (where == len(array) - 1)


def quotes_open(text: TextFile, separator: str) -> int:
    """How many more quotes there are at the start of fields than at their ends. Where that is not 0 they are part of the text (usual in TSV)."""
    where = _positions(text.bytes, QUOTE)
    if not len(where):
        return 0
    opening, closing = _edges(text.bytes, where, separator)
    return int(opening.sum()) - int(closing.sum())


def read_lines(text: TextFile, separator: str | None) -> tuple[pl.DataFrame, Int64, Reasons]:
    """Per-line histories `user item item ...`: (R rows user, item in file order, (R,) line indices, lines left out)."""
    reasons: Reasons = {}
    offsets = np.append(text.starts, len(text.bytes)).astype(np.int64)
    array = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(text), [None, pa.py_buffer(offsets), text.data])
    keep = ~text.blank
    bad = text.not_utf8()
    if len(bad):
        reasons[NOT_TEXT] = bad
        keep[bad] = False
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    rows = pl.DataFrame({"line": np.flatnonzero(keep), "text": series.filter(keep).cast(pl.String).str.strip_chars()})
    column = pl.col("text")
    if separator is None or separator.isspace():
        rows = rows.with_columns(column.str.replace_all(r"\s+", " "))
        separator = " "
    fields = rows.select("line", fields=column.str.split(separator)).select("line", user=pl.col("fields").list.first(), item=pl.col("fields").list.slice(1))
    alone = fields["item"].list.len() == 0
    if alone.any():
        reasons["a user without items"] = fields["line"].filter(alone).to_numpy().astype(np.int64)
        fields = fields.filter(~alone)
    fields = fields.explode("item")
    return fields.select("user", "item"), fields["line"].to_numpy().astype(np.int64), reasons
