"""Large Parquet files in chunks: the same folder, byte for byte, as the way through memory, whatever is wrong with the rows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vitrail.data import stream
from vitrail.data.dataset import TABLES
from vitrail.data.ingest import IngestReport, IngestSettings, ingest
from vitrail.errors import DataError, ResourceError

N = 900


def events(seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user": [f"u{k}" for k in rng.integers(0, 40, N)],
            "item": rng.integers(0, 60, N),
            "timestamp": rng.integers(1_500_000_000, 1_600_000_000, N),
            "event": rng.choice(["view", "buy"], N),
            "value": rng.random(N).round(3),
        }
    )


def dirty() -> pl.DataFrame:
    """Everything that may be wrong with a row, and rows that are there twice, near and far."""
    table = events().with_columns(
        pl.when(pl.int_range(N) % 97 == 3).then(pl.lit("  ")).when(pl.int_range(N) % 89 == 5).then(pl.lit(" u7 ")).otherwise("user").alias("user"),
        pl.when(pl.int_range(N) % 101 == 7).then(None).otherwise("item").alias("item"),
        pl.when(pl.int_range(N) % 83 == 2).then(-5).when(pl.int_range(N) % 83 == 4).then(pl.col("timestamp") * 1000).otherwise("timestamp").alias("timestamp"),
        pl.when(pl.int_range(N) % 79 == 1).then(float("nan")).when(pl.int_range(N) % 79 == 2).then(float("inf")).otherwise("value").alias("value"),
        pl.when(pl.int_range(N) % 2 == 0).then(pl.lit("")).otherwise("event").alias("event"),
    )
    return pl.concat([table, table[10:20], table[400:405], table[10:12]])


def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *tables: pl.DataFrame, chunk: int = 250, **told: object) -> tuple[IngestReport, IngestReport]:
    """The data set by each way."""
    files = []
    for number, table in enumerate(tables):
        files.append(tmp_path / f"events{number}.parquet")
        table.write_parquet(files[-1], row_group_size=100)
    (tmp_path / "items.csv").write_text("item,price\n" + "".join(f"{k},{k}.5\n" for k in range(5, 70)))
    monkeypatch.setattr(stream, "CHUNK", chunk)
    made = []
    for least in (1, 10**9):
        monkeypatch.setattr(stream, "FROM", least)
        made.append(ingest(files, items=[tmp_path / "items.csv"], out=tmp_path / f"out{least}" / "d", settings=IngestSettings.of(told)))
    return made[0], made[1]


def same(one: IngestReport, other: IngestReport) -> None:
    assert one.dataset.fingerprint == other.dataset.fingerprint
    for name in (name for name in TABLES if name != "impressions"):
        assert (one.dataset.path / f"{name}.parquet").read_bytes() == (other.dataset.path / f"{name}.parquet").read_bytes(), name
    assert (one.dataset.path / "dataset.yaml").read_text() == (other.dataset.path / "dataset.yaml").read_text()
    assert one.to_dict() | {"dataset": ""} == other.to_dict() | {"dataset": ""}


def unread(report: IngestReport) -> list[str]:
    return [note for note in report.guess.notes if "as a whole" in note]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (events(), {}),
        (dirty(), {}),
        (dirty(), {"keep_duplicates": True, "name": "x"}),
        (dirty(), {"time_unit": "s", "positive": "value >= 0.5", "repeats": "last"}),
        (events(), {"weights": {"buy": 3.0}}),
        (events().with_columns(pl.from_epoch("timestamp").alias("timestamp")), {}),
        (events().with_columns(pl.from_epoch("timestamp").dt.replace_time_zone("Europe/Paris", ambiguous="earliest"), pl.col("value").cast(pl.Float32)), {}),
        (events().with_columns(pl.from_epoch("timestamp").dt.date().alias("timestamp"), (pl.col("value") * 10).round(0).alias("value")), {}),
        (events().drop("timestamp").with_columns(position=pl.int_range(N)), {}),
        (events().drop("timestamp", "event", "value"), {}),
        (events().with_columns(pl.col("item").cast(pl.Float64)), {}),
    ],
)
def test_both_ways_write_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: pl.DataFrame, told: dict) -> None:
    chunked, whole = both(tmp_path, monkeypatch, table, **told)
    assert not unread(chunked)
    same(chunked, whole)


def test_context_columns_and_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    context = {
        "price": rng.random(N), "count": rng.integers(0, 9, N), "shown": rng.random(N) < 0.5, "device": rng.choice(["phone", "", "desk"], N),
        "tags": rng.choice(["a|b", "b|c|d", "a"], N), "value_column": rng.integers(0, 2, N),
        "day": [datetime(2020, 1, 1 + k % 9, tzinfo=UTC) for k in range(N)],
    }  # fmt: skip
    one, two = (dirty()[:N].with_columns(**{name: pl.Series(name, values) for name, values in context.items()}) for _ in range(2))
    monkeypatch.setattr(stream, "SAMPLE", 100)
    monkeypatch.setattr("vitrail.data.kinds.SAMPLE", 100)
    chunked, whole = both(tmp_path, monkeypatch, one, two[::-1], chunk=400)
    assert not unread(chunked) and chunked.repaired["exact duplicate rows"] > 500
    same(chunked, whole)
    assert chunked.dataset.info.columns["interactions"]["tags"] == "categories" and chunked.dataset.info.columns["interactions"]["shown"] == "flag"


@pytest.mark.parametrize(
    ("table", "told", "why"),
    [
        (events().with_columns(pl.from_epoch("timestamp").cast(pl.String)), {}, "its times"),
        (events().with_columns(timestamp=20_140_101 + pl.int_range(N) % 20), {"timestamp": "timestamp"}, "may be days"),
        (events().with_columns(seen=pl.concat_list("item")), {}, "holds List"),
        (events().with_columns(part=pl.lit("train")).with_columns(pl.Series("part", ["train"] * (N - 9) + ["test"] * 9)), {}, "come split"),
        (events(), {"min_user_events": 5}, "--min-user-events"),
        (events().with_columns(size=pl.lit("3")).with_columns(pl.Series("size", ["3", "4"] * (N // 2))), {"columns": {"size": "category"}}, "is read as"),
        (events().with_columns(pl.Series("odd", ["x" if k % 2 else str(k) for k in range(N)])), {}, "is not all number"),
    ],
)
def test_what_needs_all_rows_says_so_and_is_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: pl.DataFrame, told: dict, why: str
) -> None:
    monkeypatch.setattr(stream, "SAMPLE", 450)  # every second row: what is odd is not in the sample
    chunked, whole = both(tmp_path, monkeypatch, table, **told)
    assert len(unread(chunked)) == 1 and why in unread(chunked)[0]
    assert chunked.dataset.fingerprint == whole.dataset.fingerprint


def test_files_of_other_columns_are_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunked, whole = both(tmp_path, monkeypatch, events(), events(1).drop("value"))
    assert "different columns" in unread(chunked)[0] and chunked.dataset.fingerprint == whole.dataset.fingerprint


@pytest.mark.parametrize(
    ("table", "told", "sentence"),
    [
        (events().with_columns(user=pl.when(pl.int_range(N) % 3 > 0).then(None).otherwise("user")), {}, r"600 of the 900 rows.*missing user id \(line 2: .*u"),
        (events(), {"positive": "value > 7"}, "No event meets --positive"),
        (events(), {"weights": {"bye": 3.0}}, 'No event is a "bye"'),
        (events().drop("event"), {"weights": {"buy": 3.0}}, "the files have none"),
    ],
)
def test_both_ways_refuse_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: pl.DataFrame, told: dict, sentence: str) -> None:
    found = []
    for least in (1, 10**9):
        monkeypatch.setattr(stream, "FROM", least)
        table.write_parquet(tmp_path / "e.parquet", row_group_size=100)
        with pytest.raises(DataError, match=sentence) as caught:
            ingest([tmp_path / "e.parquet"], out=tmp_path / "d", settings=IngestSettings.of(told))
        found.append(str(caught.value))
        assert not (tmp_path / "d").exists() and [path.name for path in tmp_path.iterdir()] == ["e.parquet"]
    assert found[0] == found[1]


def test_a_truncated_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FROM", 0)
    (tmp_path / "e.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="truncated or damaged"):
        ingest([tmp_path / "e.parquet"], out=tmp_path / "d")


@pytest.mark.parametrize("least", [1, 10**9])
def test_too_little_memory_or_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    events().write_parquet(tmp_path / "e.parquet")
    monkeypatch.setattr(stream, "FROM", least)
    with monkeypatch.context() as patched:
        patched.setattr("vitrail.data.assemble.free_memory", lambda: 10)
        with pytest.raises(ResourceError, match=r"needs about .* of memory, and 0.0 GiB are free"):
            ingest([tmp_path / "e.parquet"], out=tmp_path / "d")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(ResourceError, match=r"of disk at .*nothing was written"):
        ingest([tmp_path / "e.parquet"], out=tmp_path / "d")
    assert not (tmp_path / "d").exists()
