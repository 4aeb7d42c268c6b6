"""JSON lines as rows, and whole JSON documents (`{id: text}`, `{id: {...}}`, `{id: [...]}`, `[{...}, ...]`) as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from vitrail.data.readers_text import NOT_TEXT, Int64, Reasons, TextFile
from vitrail.errors import DataError

NOT_JSON = "a line that is not a JSON object"


def as_text(dtype: Any) -> Any:
    """The type a JSON or Parquet value is read as: numbers as text, so that no id loses a digit; lists as lists of text."""
    if isinstance(dtype, pl.List | pl.Array):
        inner = as_text(dtype.inner)
        return pl.List(inner if inner == pl.String else pl.String)
    if isinstance(dtype, pl.Struct):
        return dtype
    return pl.String


def read_json_lines(text: TextFile) -> tuple[pl.DataFrame, Int64, Reasons]:
    """(R rows, (R,) line indices, lines left out). Scalars become String, lists List(String)."""
    keep = ~text.blank
    reasons: Reasons = {}
    bad = text.not_utf8()
    if len(bad):
        reasons[NOT_TEXT] = bad
        keep[bad] = False
    whole = bool(keep.all()) or not len(bad)
    frame = _parse(bytes(text.data) if whole else _joined(text, keep))
    if frame is None or frame.height != int(keep.sum()):
        wrong = np.array([line for line in np.flatnonzero(keep).tolist() if not is_object(text.text(line))], dtype=np.int64)
        reasons[NOT_JSON] = wrong
        keep[wrong] = False
        if not keep.any():
            raise DataError(f"{text.path} holds no JSON object: write one object a line, or pass --format.")
        frame = _parse(_joined(text, keep))
    if frame is None:
        raise DataError(f"{text.path} cannot be read as JSON lines: give each key values of one type (text, number, list) in all lines.")
    return frame, np.flatnonzero(keep), reasons


def _joined(text: TextFile, keep: Any) -> bytes:
    return "\n".join(text.text(line) for line in np.flatnonzero(keep).tolist()).encode()


def is_object(line: str) -> bool:
    """Whether a line is a JSON object."""
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _parse(data: bytes) -> pl.DataFrame | None:
    try:
        inferred = pl.scan_ndjson(data, infer_schema_length=None).collect_schema()
        frame = pl.read_ndjson(data, schema={name: as_text(dtype) for name, dtype in inferred.items()})
    except pl.exceptions.PolarsError:
        return None
    return flat(frame)


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Objects inside objects become columns `outer.inner`; what is still nested becomes JSON text."""
    for name, dtype in frame.schema.items():
        if isinstance(dtype, pl.Struct):
            inner = frame[name].struct.unnest()
            parts = [_plain(inner[field]).rename(f"{name}.{field}") for field in inner.columns]
            frame = frame.drop(name).with_columns(parts)
    return frame


def _plain(series: pl.Series) -> pl.Series:
    if isinstance(series.dtype, pl.Struct):
        return series.struct.json_encode()
    return series.cast(as_text(series.dtype), strict=False)


def read_document(path: Path, text: str) -> pl.DataFrame:
    """A whole JSON document as a table of String and List(String) columns; the ids of a mapping are the column `id`."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON ({error}): mend it, or write one object a line.") from None
    if isinstance(value, dict) and value:
        rows = [{"id": key} | (entry if isinstance(entry, dict) else {_name(path, entry): entry}) for key, entry in value.items()]
    elif isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        rows = value
    else:
        raise DataError(f"{path} must hold one JSON object of ids, or a list of objects.")
    data = b"\n".join(orjson.dumps(row) for row in rows)
    frame = _parse(data)
    if frame is None or frame.height != len(rows):
        raise DataError(f"{path} mixes types under one key: give each key values of one type (text, number, list) everywhere.")
    return frame


def _name(path: Path, entry: Any) -> str:
    return "text" if isinstance(entry, str) else path.name.partition(".")[0]
