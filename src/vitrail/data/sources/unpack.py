"""Downloaded files -> the tables ingest reads: only the members a record names are opened, one line in, one line out."""

from __future__ import annotations

import ast
import gzip
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import orjson

from vitrail.data.sources.fetch import room
from vitrail.data.sources.record import Member, SourceFile, SourceRecord
from vitrail.errors import DataError
from vitrail.files import full_disk_as_sentence

CHUNK = 1 << 20
SWELL = 100
"""A table that is more than so many times its archive is taken for a trap (text grows 3 to 15 times)."""
SMALL = 64 << 20
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
DAMAGED = (zipfile.BadZipFile, gzip.BadGzipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError)


def unpack(record: SourceRecord, files: Mapping[str, Path], work: Path) -> dict[str, list[Path]]:
    """Role (events, train, valid, test, items, users) -> tables, in `work` where they are not already fit to read.

    `files`: name of a file of the record -> where it is. Raises DataError for a damaged archive and a missing member, ResourceError for a full disk.
    """
    tables: dict[str, list[Path]] = {}
    todo = [(file, member) for file in record.files for member in file.members]
    for number, (file, member) in enumerate(sorted(todo, key=lambda pair: pair[1].seen is not None)):
        source = files[file.file]
        if file.archive == "none" and member.dialect == "text" and not member.columns and member.encoding == "utf-8":
            table = source
        else:
            table = work / f"{number}" / _name(file, member)
            table.parent.mkdir()
            seen = _ids(tables, record.ingest.item) if member.seen else None
            with full_disk_as_sentence(table), _opened(source, file, member) as stream, table.open("wb") as out:
                _convert(_Limited(stream, max(SMALL, SWELL * source.stat().st_size), source), out, member, seen)
        tables.setdefault(member.role, []).append(table)
    return tables


def _name(file: SourceFile, member: Member) -> str:
    if member.dialect != "text":
        return f"{member.role}.jsonl"
    return PurePosixPath(member.path).name or file.file.removesuffix(".gz")


@contextmanager
def _opened(source: Path, file: SourceFile, member: Member) -> Iterator[IO[bytes]]:
    """The bytes of a member. Only what is named is opened, and nothing is written under a name of the archive's."""
    try:
        if file.archive == "zip":
            with zipfile.ZipFile(source) as archive:
                entry = archive.getinfo(member.path)
                room(source.parent, entry.file_size, f"{member.path} of {source.name}")
                with archive.open(entry) as stream:
                    yield stream
        elif file.archive == "tar.gz":
            with tarfile.open(source, "r:gz") as tar:
                inside = tar.getmember(member.path)
                stream_ = tar.extractfile(inside) if inside.isreg() else None
                if stream_ is None:
                    raise DataError(f"{member.path} in {source} is no plain file: get the right archive.")
                yield stream_
        elif file.archive == "gz":
            with gzip.open(source, "rb") as unzipped:
                yield unzipped  # type: ignore[misc]
        else:
            with source.open("rb") as plain:
                yield plain
    except KeyError:
        raise DataError(f'{source} has no member "{member.path}": it is not the archive the record speaks of.') from None
    except DAMAGED as error:
        raise DataError(f"{source} cannot be unpacked ({str(error) or type(error).__name__}): it is damaged; delete it and get it again.") from None


class _Limited(io.RawIOBase):
    """A stream that refuses to grow without end."""

    def __init__(self, stream: IO[bytes], limit: int, source: Path) -> None:
        self.stream, self.left, self.source = stream, limit, source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.stream.read(len(buffer))
        self.left -= len(piece)
        if self.left < 0:
            raise DataError(f"{self.source} unpacks to more than {SWELL} times its size: it is not the file it should be; delete it.")
        buffer[: len(piece)] = piece
        return len(piece)


def _convert(raw: _Limited, out: IO[bytes], member: Member, seen: set[str] | None) -> None:
    stream = io.BufferedReader(raw, CHUNK)
    if member.dialect != "text":
        out.writelines(_objects(stream, member, seen))
        return
    if member.marks:
        out.writelines(_gathered(io.TextIOWrapper(stream, encoding=member.encoding, errors="replace"), member))
        return
    if member.columns:
        out.write((member.separator.join(member.columns) + "\n").encode())
    if member.encoding == "utf-8":
        while piece := stream.read(CHUNK):
            out.write(piece)
    else:
        text = io.TextIOWrapper(stream, encoding=member.encoding, errors="replace", newline="")
        while words := text.read(CHUNK):
            out.write(words.encode())


def _gathered(lines: Iterable[str], member: Member) -> Iterator[bytes]:
    """Lines split at tabs, where columns of 0 and 1 are one column that lists the names of those with a 1."""
    place = {name: number for number, name in enumerate(member.columns)}
    groups = [[(name, place[name]) for name in names] for names in member.marks.values()]
    marked = {number for group in groups for _, number in group}
    plain = [number for number in place.values() if number not in marked]
    yield ("\t".join([*(member.columns[number] for number in plain), *member.marks]) + "\n").encode()
    for line in lines:
        cells = line.rstrip("\n").split(member.separator)
        if len(cells) == len(place):
            cells = [*(cells[number] for number in plain), *("|".join(name for name, number in group if cells[number] == "1") for group in groups)]
        yield ("\t".join(cells) + "\n").encode()


def _objects(lines: Iterable[bytes], member: Member, seen: set[str] | None) -> Iterator[bytes]:
    """JSON lines of the keys that are kept. A line that is no object goes through as it is, for ingest to reject with its number."""
    early = re.compile(rb"""^\s*\{\s*['"]%b['"]\s*:\s*['"]([^'"\\]+)['"]""" % re.escape((member.seen or "").encode()))
    for line in lines:
        if seen is not None and (found := early.match(line)) and found[1].decode(errors="replace") not in seen:
            continue  # most items are never bought, and a literal of Python takes long to read
        try:
            value = ast.literal_eval(line.decode()) if member.dialect == "python" else orjson.loads(line)
            row = {key: value[key] for key in member.keep or value if key in value}
            if seen is not None and str(row[member.seen or ""]) not in seen:
                continue
            yield orjson.dumps({key: _value(key, cell, member) for key, cell in row.items()}) + b"\n"
        except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
            yield line.rstrip(b"\r\n").replace(b"\n", b" ") + b"\n"


def _value(key: str, cell: Any, member: Member) -> Any:
    if key in member.numbers:
        found = NUMBER.search(str(cell))
        return float(found[0].replace(",", "")) if found else None
    if isinstance(cell, list):
        if key in member.joined:
            return " ".join(str(piece) for piece in cell)
        if any(isinstance(inner, list) for inner in cell):  # paths of categories: each name once
            return list(dict.fromkeys(str(name) for inner in cell for name in (inner if isinstance(inner, list) else [inner])))
    return cell


def _ids(tables: Mapping[str, list[Path]], item: str | None) -> set[str]:
    """The item ids of the events unpacked so far."""
    import polars as pl

    key = item or "item"
    found: set[str] = set()
    for path in (path for role, paths in tables.items() if role in ("events", "train", "valid", "test") for path in paths):
        if path.suffix == ".jsonl":
            with path.open("rb") as lines:
                found |= {str(row[key]) for row in map(_object, lines) if key in row}
        else:
            rows = pl.scan_csv(path, infer_schema=False, ignore_errors=True, truncate_ragged_lines=True)
            found |= set(rows.select(pl.col(key).unique()).collect(engine="streaming").to_series().drop_nulls().to_list())
    return found


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}
