"""Answers for everybody: block by block into Parquet, resumable."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from vitrail.errors import DataError
from vitrail.files import atomic_file, full_disk_as_sentence, read_json, write_json
from vitrail.train.progress import bar, silent


def write_blocks(out: Path, total: int, block: int, make: Callable[[int, int], pl.DataFrame], *, job: str, resume: bool, progress: bool) -> int:
    """Call `make(start, stop)` over [0, total) in blocks and write its tables as one Parquet file; returns its rows.

    Blocks done are kept in `<out>.parts`, marked with `job`; `resume` uses them. Raises DataError where they are of another job.
    """
    parts = out.with_name(out.name + ".parts")
    if parts.exists() and not resume:
        shutil.rmtree(parts)
    if parts.exists() and (not (parts / "job.json").exists() or read_json(parts / "job.json") != job):
        raise DataError(f"{parts} belongs to another question (other users, k, filter or model): run without --resume to start over.")
    with full_disk_as_sentence(out):
        parts.mkdir(parents=True, exist_ok=True)
        write_json(parts / "job.json", job)
    starts = range(0, total, block)
    done = sum((parts / f"{start:012d}.parquet").exists() for start in starts)
    with (bar("recommend", "blocks") if progress else silent)(len(starts), done) as advance:
        for start in starts:
            piece = parts / f"{start:012d}.parquet"
            if not piece.exists():
                with atomic_file(piece) as temporary:
                    make(start, min(start + block, total)).write_parquet(temporary)
                advance(1, "")
    rows = 0
    with atomic_file(out) as temporary:
        writer: pq.ParquetWriter | None = None
        for start in starts:
            table = pq.read_table(parts / f"{start:012d}.parquet")
            writer = writer or pq.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
            rows += table.num_rows
        if writer is None:
            make(0, 0).write_parquet(temporary)
        else:
            writer.close()
    shutil.rmtree(parts)
    return rows
