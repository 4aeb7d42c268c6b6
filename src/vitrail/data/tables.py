"""Event tables too large for memory: what is to be written, chunk by chunk, in row groups that do not depend on how it came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

GROUP = 122_880
"""Rows of a row group, about; the layout is a function of the number of rows alone, so the checksum of a table is one of its content."""


@dataclass(frozen=True)
class Rows:
    """E rows that are made when they are asked for."""

    height: int
    """E"""
    schema: dict[str, pl.DataType]
    seen: dict[str, pl.Series]
    """user, item -> distinct ids in order of appearance"""
    chunks: Callable[[], Iterator[pl.DataFrame]]
    """all rows in order, any number at a time"""

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Rows:
        """The rows of a table that is there."""
        seen = {role: frame[role].unique(maintain_order=True) for role in ("user", "item")}
        return cls(frame.height, dict(frame.schema), seen, lambda: iter([frame]))

    def write(self, path: Path) -> None:
        """Write a Parquet file in the standard row groups."""
        from polars.io.plugins import register_io_source

        if self.height < GROUP:
            frames = list(self.chunks())
            (pl.concat(frames).rechunk() if frames else pl.DataFrame(schema=self.schema)).write_parquet(path)
            return

        raised: list[Exception] = []

        def pieces(with_columns: object, predicate: object, n_rows: object, batch_size: object) -> Iterator[pl.DataFrame]:
            try:
                yield from resized(self.chunks(), groups(self.height))
            except Exception as error:  # polars would make an error of its own of it
                raised.append(error)
                raise

        try:
            register_io_source(pieces, schema=self.schema).sink_parquet(path)
        except pl.exceptions.PolarsError:
            if raised:
                raise raised[0] from None
            raise


def groups(rows: int) -> list[int]:
    """The rows of each row group of a table of `rows`: equal but for one, GROUP where it can be."""
    count = max(round(rows / GROUP), 1)
    return [rows // count + (number < rows % count) for number in range(count)]


def resized(chunks: Iterator[pl.DataFrame], sizes: list[int]) -> Iterator[pl.DataFrame]:
    """The same rows, `sizes` of them at a time, each a table of one chunk."""
    held: list[pl.DataFrame] = []
    waiting = iter(sizes)
    size = next(waiting, None)
    for chunk in chunks:
        held.append(chunk)
        while size is not None and sum(frame.height for frame in held) >= size:
            whole = pl.concat(held) if len(held) > 1 else held[0]
            yield whole[:size].rechunk()
            held = [whole[size:]]
            size = next(waiting, None)


def stretches(path: Path, least: int) -> list[tuple[int, int]]:
    """(first row, rows) of the stretches of a Parquet file that are read at once: whole row groups, `least` rows or more."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]).tolist()
    cuts = [0]
    for end in ends:
        if end - cuts[-1] >= least or end == ends[-1]:
            cuts.append(end)
    return [(start, stop - start) for start, stop in pairwise(cuts) if stop > start]


def scan_chunks(path: Path, columns: list[str], least: int = 1 << 20) -> Iterator[tuple[int, pl.DataFrame]]:
    """(first row, the `columns` of a stretch of rows), in order. Raises what polars raises."""
    table = pl.scan_parquet(path).select(columns)
    for start, rows in stretches(path, least):
        yield start, table.slice(start, rows).collect()
