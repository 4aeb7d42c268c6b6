"""Answers for everybody: block by block into Parquet, resumable."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl

from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import DataError
from vitrail.files import atomic_file, fingerprint, full_disk_as_sentence, read_json, write_json
from vitrail.train.progress import bar, silent


class AnswersEverybody(ABC):
    """What answers `recommend`, and so can answer everybody."""

    user_ids: Vocabulary
    info: dict[str, Any]

    @abstractmethod
    def recommend(
        self,
        users: Sequence[str] | None = None,
        histories: Sequence[Sequence[str]] | None = None,
        k: int = 10,
        *,
        include_seen: bool = False,
        filter: str | None = None,
    ) -> pl.DataFrame:
        """The k best items for each of `users` (ids) or `histories`, a row an item; query: the place of the question."""

    def answer_everyone(
        self,
        users: Literal["all"] | Sequence[str],
        out: str | Path,
        k: int = 10,
        *,
        include_seen: bool = False,
        filter: str | None = None,
        resume: bool = False,
        progress: bool = True,
        block: int = 8192,
    ) -> int:
        """Recommend for `users` in blocks, straight to a Parquet file `out`; returns its rows.

        Whole blocks are kept in `<out>.parts` until the file is complete, so with `resume` a killed job goes on where it
        stopped. Raises as `recommend`, and DataError where `resume` is asked with other settings.
        """
        ids = self.user_ids.ids if isinstance(users, str) else pl.Series(list(users), dtype=pl.String)
        job = fingerprint([self.info.get("files"), ids.len(), fingerprint(ids.head(100).to_list()), k, include_seen, filter, block])

        def make(start: int, stop: int) -> pl.DataFrame:
            return self.recommend(ids[start:stop].to_list(), k=k, include_seen=include_seen, filter=filter).drop("query")

        return write_blocks(Path(out), len(ids), block, make, job=job, resume=resume, progress=progress)


def write_blocks(out: Path, total: int, block: int, make: Callable[[int, int], pl.DataFrame], *, job: str, resume: bool, progress: bool) -> int:
    """Call `make(start, stop)` over [0, total) in blocks and write its tables as one Parquet file; returns its rows.

    Blocks done are kept in `<out>.parts`, marked with `job`; `resume` uses them. Raises DataError where they are of another job.
    """
    import pyarrow.parquet as pq

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
