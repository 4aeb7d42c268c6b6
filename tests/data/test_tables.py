"""Row groups that depend on the number of rows alone, and rows that are made when they are asked for."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from vitrail.data import tables
from vitrail.data.tables import GROUP, Rows, groups, resized, scan_chunks, stretches
from vitrail.errors import DataError


def table(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"user": [f"u{k % 7}" for k in range(rows)], "item": pl.int_range(rows, eager=True).cast(pl.String)})


def chunked(frame: pl.DataFrame, step: int) -> Rows:
    return Rows(frame.height, dict(frame.schema), Rows.of(frame).seen, lambda: (frame[at : at + step] for at in range(0, frame.height, step)))


@pytest.mark.parametrize("rows", [0, 1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP + 7, 10_000_000])
def test_groups_add_up_and_are_alike(rows: int) -> None:
    sizes = groups(rows)
    assert sum(sizes) == rows and max(sizes) - min(sizes) <= 1 and max(sizes) <= 1.5 * GROUP


def test_resized_keeps_rows_and_order() -> None:
    frame = table(100)
    pieces = list(resized((frame[at : at + 7] for at in range(0, 100, 7)), [40, 25, 35]))
    assert [piece.height for piece in pieces] == [40, 25, 35] and pl.concat(pieces).equals(frame) and all(piece.n_chunks() == 1 for piece in pieces)


@pytest.mark.parametrize("rows", [0, 50, 3 * GROUP + 5])
def test_the_file_does_not_depend_on_how_the_rows_came(tmp_path: Path, rows: int) -> None:
    frame = table(rows)
    for number, one in enumerate([Rows.of(frame), *(chunked(frame, step) for step in (GROUP, 300_001))]):
        one.write(tmp_path / f"{number}.parquet")
    assert len({(tmp_path / f"{number}.parquet").read_bytes() for number in range(3)}) == 1
    assert pl.read_parquet(tmp_path / "0.parquet").equals(frame)
    assert pq.ParquetFile(tmp_path / "2.parquet").metadata.num_row_groups == (len(groups(rows)) if rows else 0)


def test_stretches_are_whole_row_groups(tmp_path: Path) -> None:
    frame = table(450)
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=100)
    parts = stretches(tmp_path / "a.parquet", 150)
    assert sum(rows for _, rows in parts) == 450 and all(rows >= 150 for _, rows in parts[:-1]) and parts[0][0] == 0
    assert pl.concat([chunk for _, chunk in scan_chunks(tmp_path / "a.parquet", ["item"], 150)]).equals(frame.select("item"))


def test_an_error_while_rows_are_made_comes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "GROUP", 10)

    def broken() -> object:
        yield table(15)
        raise DataError("No event meets it.")

    frame = table(40)
    with pytest.raises(DataError, match="No event meets it"):
        Rows(40, dict(frame.schema), {}, broken).write(tmp_path / "x.parquet")  # type: ignore[arg-type]
    with pytest.raises(pl.exceptions.PolarsError):
        Rows(40, {"other": pl.Int8()}, {}, lambda: iter([frame])).write(tmp_path / "x.parquet")
