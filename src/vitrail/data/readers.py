"""Files of events, items or users as raw tables of text: the format is found, columns are named, every row keeps its line."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from vitrail.data.readers_json import as_text, flat, is_object, read_document, read_json_lines
from vitrail.data.readers_text import Int64, Reasons, TextFile, quotes_open, read_delimited, read_lines
from vitrail.data.roles import is_name, is_number
from vitrail.data.times import looks_like_time
from vitrail.errors import DataError

Format = Literal["csv", "tsv", "jsonl", "parquet", "atomic", "lines"]
ATOMIC = re.compile(r"^([^:]+):(token|token_seq|float|float_seq)$")
SEPARATORS = ("\t", ",", ";", "|", "::", "\x01", " ")
SAMPLE = 200
"""Lines that decide the format."""


@dataclass(frozen=True)
class RawTable:
    """R rows as they stand in one file; every column is String or List(String), times of Parquet excepted."""

    path: Path
    format: str
    frame: pl.DataFrame
    lines: Int64
    """(R,) line of each row, from 1, as an editor shows it (a Parquet file: the row)"""
    reasons: Reasons
    """reason -> lines (from 1) that could not be read"""
    text: Callable[[int], str]
    """line (from 1) -> what stands there"""
    separator: str | None = None
    header: bool = False
    types: dict[str, str] = field(default_factory=dict)
    """column -> token, token_seq, float or float_seq, where the file says so"""


@dataclass(frozen=True)
class Layout:
    """How a text file is laid out."""

    format: str
    separator: str | None
    header: bool
    names: list[str]
    types: dict[str, str]


def read_table(
    path: Path, *, format: str | None = None, separator: str | None = None, header: bool | None = None, encoding: str = "utf-8", head: int | None = None
) -> RawTable:
    """Read one file; what is not told is found out. `head`: only about so many bytes, for a guess.

    Raises DataError for a file that is absent, empty, binary, damaged, or has one column where several are wanted.
    """
    if not path.exists():
        raise DataError(f"There is no file {path}.")
    if format == "parquet" or (format is None and is_parquet(path)):
        return _read_parquet(path, head)
    kind = format or _json_kind(path)
    text = TextFile(path, encoding, None if kind == "json" else head)
    kind = _seen_kind(text, kind)
    if kind == "json":
        frame = read_document(path, bytes(text.data).decode(errors="replace"))
        return RawTable(path, "json", frame, np.arange(1, frame.height + 1), {}, lambda row: orjson.dumps(frame.row(row - 1, named=True)).decode())
    if kind == "jsonl":
        frame, lines, reasons = read_json_lines(text)
        return _raw(text, Layout("jsonl", None, False, [], {}), frame, lines, reasons)
    layout = find_layout(text, format=kind, separator=separator, header=header)
    if layout.format == "lines":
        return _raw(text, layout, *read_lines(text, layout.separator))
    assert layout.separator is not None
    at = first_row(text, layout)
    quoted = layout.format != "atomic" and (layout.separator != "\t" or not quotes_open(text, "\t"))
    return _raw(text, layout, *read_delimited(text, layout.names, layout.separator, at, quoted=quoted))


def first_row(text: TextFile, layout: Layout) -> int:
    """Index of the line where the rows begin. Raises DataError for a header that cannot be read, or that stands alone."""
    at = int(np.flatnonzero(~text.blank)[0]) + layout.header
    if layout.header and "\ufffd" in text.text(at - 1):
        raise DataError(f"The header of {text.path} is not UTF-8 text: pass its --encoding, e.g. --encoding latin-1.")
    if at >= len(text) or text.blank[at:].all():
        raise DataError(f"{text.path} holds a header and no rows: nothing to read.")
    return at


def text_kind(text: TextFile, format: str | None) -> str | None:
    """The format of a text file as told, or as its name and first lines tell: jsonl, json, or none where only `find_layout` can say."""
    return _seen_kind(text, format or _json_kind(text.path))


def _seen_kind(text: TextFile, kind: str | None) -> str | None:
    first = next(iter(text.sample(1))).strip()
    if kind == "json" and is_object(first) and len(list(text.sample(2))) == 2:
        return "jsonl"
    if kind is None and first.startswith("{") and (is_object(first) or first.endswith("}")):
        return "jsonl"
    return kind


def _json_kind(path: Path) -> str | None:
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    return "jsonl" if suffixes & {".jsonl", ".ndjson"} else "json" if ".json" in suffixes else None


def _raw(text: TextFile, layout: Layout, frame: pl.DataFrame, lines: Int64, reasons: Reasons) -> RawTable:
    return RawTable(
        text.path,
        layout.format,
        frame,
        lines + 1,
        {reason: where + 1 for reason, where in reasons.items() if len(where)},
        lambda line: text.text(line - 1),
        layout.separator,
        layout.header,
        layout.types,
    )


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its name or its first bytes."""
    if path.suffix in (".parquet", ".pq"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        raise DataError(f"{path} cannot be opened: see that it is a file, and its permissions.") from None


def _read_parquet(path: Path, head: int | None) -> RawTable:
    try:
        frame = pl.read_parquet(path, n_rows=None if head is None else 20_000)
    except (pl.exceptions.PolarsError, OSError):
        raise DataError(f"{path} is not readable Parquet: it is truncated or damaged; copy or write it again.") from None
    if not frame.height:
        raise DataError(f"{path} holds no rows: nothing to read.")
    frame = flat(frame)
    frame = frame.with_columns(as_read(frame[name]) for name in frame.columns)
    return RawTable(path, "parquet", frame, np.arange(1, frame.height + 1), {}, lambda row: orjson.dumps(frame.row(row - 1, named=True), default=str).decode())


def as_read(series: pl.Series, whole: bool | None = None) -> pl.Series:
    """Text, except for times. Whole numbers that were stored as floats (a pandas column with gaps) are whole numbers again; `whole` tells it of a part."""
    if series.dtype.is_temporal():
        return series
    if series.dtype in (pl.Binary, pl.Categorical, pl.Enum):
        return series.cast(pl.String, strict=False)
    if series.dtype.is_float():
        gaps = series.is_not_nan() & series.is_not_null()
        if _all_whole(series.filter(gaps)) if whole is None else whole:
            return series.cast(pl.Int64, strict=False).cast(pl.String).zip_with(gaps, series.cast(pl.String))
    return series.cast(as_text(series.dtype), strict=False)


def _all_whole(known: pl.Series) -> bool:
    return bool(known.is_finite().all() and (known == known.round(0)).all() and len(known) and (known.abs() < 2**53).all())


def find_layout(text: TextFile, *, format: str | None, separator: str | None, header: bool | None) -> Layout:
    """The layout of a text file, from its first lines; what is told is kept. Raises DataError where one column is found."""
    lines = list(text.sample(SAMPLE))
    if separator is not None:
        separator = separator.encode().decode("unicode_escape") if "\\" in separator else separator
        if not separator or set(separator) & set('"\r\n'):
            raise DataError("The separator must be a character other than a quote or a line end: pass e.g. --separator ';'.")
    if format in (None, "atomic"):
        fields = lines[0].split(separator or "\t")
        if format == "atomic" or all(ATOMIC.match(name) for name in fields):
            return _atomic(text.path, fields, separator or "\t")
    if format == "lines":
        return Layout("lines", separator or _token_separator(lines), False, ["user", "item"], {})
    suffix = next((s for s in (".csv", ".tsv") if s in text.path.name.lower()), None)
    told = separator or {"csv": ",", "tsv": "\t"}.get(format or "")
    found = told or _separator(lines, suffix)
    if format is None and told is None and header is None and suffix is None and found in (None, " ") and _is_per_line(lines, found):
        return Layout("lines", _token_separator(lines), False, ["user", "item"], {})
    if found is None:
        found = {".csv": ",", ".tsv": "\t"}.get(suffix or "", ",")
    rows = _split(lines, found)
    width = Counter(len(row) for row in rows).most_common(1)[0][0]
    if width == 1 and len(rows[0]) == 1:
        shown = {"\t": "a tab", " ": "a space"}.get(found, f'"{found}"')
        raise DataError(f"{text.path} has one column only when split at {shown} (its first line: {lines[0][:80]!r}): pass the right --separator.")
    named = _has_header(rows) if header is None else header
    names = [name.strip() for name in rows[0]] if named else [f"column{i}" for i in range(1, len(rows[0]) + 1)]
    names = [name or f"column{i}" for i, name in enumerate(names, 1)]
    if named and width == len(names) + 1:  # R writes row names without naming their column
        names.insert(0, "row")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f'{text.path} has two columns named "{twice[0]}": rename one (or pass --no-header where its first line holds data).')
    return Layout("tsv" if found == "\t" else "csv", found, named, names, {})


def _atomic(path: Path, fields: Sequence[str], separator: str) -> Layout:
    matches = [ATOMIC.match(name.strip()) for name in fields]
    if not all(matches):
        raise DataError(f'{path} has no atomic header: its first line must name columns as "name:type", type one of token, token_seq, float, float_seq.')
    types = {m[1]: m[2] for m in matches if m}
    if len(types) < len(fields):
        raise DataError(f"{path} names a column twice: rename one.")
    return Layout("atomic", separator, True, list(types), types)


def _split(lines: Sequence[str], separator: str) -> list[list[str]]:
    if len(separator) > 1:
        return [line.split(separator) for line in lines]
    limit = csv.field_size_limit(1 << 30)
    try:
        return [next(csv.reader([line], delimiter=separator, quoting=csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL), [""]) for line in lines]
    finally:
        csv.field_size_limit(limit)


def _separator(lines: Sequence[str], suffix: str | None) -> str | None:
    """The separator that cuts most lines into one same number of fields; between equals the one that cuts into most, then the suffix decides."""
    bare = [re.sub(r'"[^"]*"', '""', line) for line in lines]
    records = re.sub(r'"[^"]*"', '""', "\n".join(lines)).split("\n")
    return _most_even(bare, suffix) or _most_even(records, suffix)


def _most_even(bare: Sequence[str], suffix: str | None) -> str | None:
    best, best_rank = None, (0.6, 0, False)
    for separator in SEPARATORS:
        counts = Counter(line.count(separator) for line in bare)
        number, hits = max(counts.items(), key=lambda pair: (pair[1], pair[0]))
        rank = (round(hits / len(bare), 2), number, {".csv": ",", ".tsv": "\t"}.get(suffix or "") == separator)
        if number and bare[0].count(separator) == number and rank > best_rank and not (separator == " " and best):
            best, best_rank = separator, rank
    return best


def _token_separator(lines: Sequence[str]) -> str | None:
    """None: any white space."""
    spaced = sum(len(line.split()) > 1 for line in lines)
    comma = sum("," in line for line in lines)
    return "," if comma > spaced else None


def _is_per_line(lines: Sequence[str], separator: str | None) -> bool:
    """Whether lines read as `user item item ...` rather than as rows of a table."""
    split = [line.split(_token_separator(lines)) for line in lines]
    tokens = [token for line in split for token in line]
    if sum(any(c.isdigit() for c in token) for token in tokens) < 0.5 * len(tokens):
        return False
    if separator is None:
        return sum(len(line) > 1 for line in split) >= 0.5 * len(lines)
    width = len(split[0])
    columns: list[npt.NDArray] = [np.array([line[i] for line in split if len(line) == width]) for i in range(width)]
    timed = any(looks_like_time(pl.Series(column)) for column in columns[2:])
    rated = width == 3 and len(lines) > 20 and len(set(columns[2].tolist())) <= 11
    return not (timed or rated or _has_header(split))


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: its names are known, or unlike what stands below."""
    first, below = [name.strip() for name in rows[0]], rows[1:]
    known = [i for i, name in enumerate(first) if is_name(name)]
    if len(known) > 1:
        return True
    if any(map(is_number, first)):
        return False
    digits = any(any(map(str.isdigit, name)) for name in first)
    if known and not digits and first[known[0]] not in {row[known[0]].strip() for row in below if len(row) > known[0]}:
        return True
    if "" in first or len(set(first)) < len(first):
        return False
    for i, name in enumerate(first):
        column = [row[i] for row in below if len(row) == len(first) and row[i]]
        if column and sum(map(is_number, column)) >= 0.9 * len(column):
            return True
        if column and not any(map(str.isdigit, name)) and sum(any(map(str.isdigit, cell)) for cell in column) >= 0.9 * len(column):
            return True
    return False
