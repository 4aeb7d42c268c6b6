"""What a store kept, as tables; and the verbs that write them and that forget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from vitrail.cli import app
from vitrail.serve import export
from vitrail.serve.store.base import Event, Served, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store = open_store(tmp_path / "store.sqlite")
    served = [Served(f"r{n}", 1_000_000 * n, "v1" if n % 2 else "v2", f"u{n}" if n else None, ["a", "b"], [1.0, 0.25]) for n in range(5)]
    store.write([[Event("e1", "u1", "b", 5, request="r1"), Event("e2", "u1", "b", 6, "buy", 2.5, "r1"), Event("e3", "u2", "z", 7, request="r2")]], served)
    store.write([], [Served("empty", 9, "v1")])
    store.close()
    return tmp_path / "store.sqlite"


def told(*words: Any, code: int = 0) -> str:
    found = CliRunner().invoke(app, [str(word) for word in words])
    assert found.exit_code == code, found.output
    return found.output


@pytest.mark.parametrize("page", [2, 10_000])
def test_impressions(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(export, "PAGE", page)
    assert json.loads(told("data", "impressions", path, "--out", tmp_path / "shown.parquet", "--json"))["rows"] == 10
    table = pl.read_parquet(tmp_path / "shown.parquet")
    assert dict(table.schema) == export.IMPRESSIONS
    assert table["position"].to_list() == [1, 2] * 5
    assert table.filter("clicked").select("request_id", "item", "user", "variant").rows() == [("r1", "b", "u1", "v1")]
    assert table["propensity"].to_list() == [1.0, 0.25] * 5
    assert table["user"].null_count() == 2
    assert table["timestamp"][2].isoformat() == "1970-01-01T00:00:01+00:00"


def test_events_are_data_again(path: Path, tmp_path: Path) -> None:
    assert "3 events" in told("data", "events", path, "--out", tmp_path / "events.parquet")
    table = pl.read_parquet(tmp_path / "events.parquet")
    assert dict(table.schema) == export.EVENTS
    assert table.select("user", "item", "event", "value").rows() == [("u1", "b", "click", None), ("u1", "b", "buy", 2.5), ("u2", "z", "click", None)]
    told("data", "ingest", tmp_path / "events.parquet", "--out", tmp_path / "data")
    assert (tmp_path / "data" / "dataset.yaml").exists()


def test_an_empty_store_gives_empty_tables(tmp_path: Path) -> None:
    open_store(tmp_path / "s").close()
    for verb in ("impressions", "events"):
        assert json.loads(told("data", verb, tmp_path / "s", "--out", tmp_path / f"{verb}.parquet", "--json"))["rows"] == 0
        assert pl.read_parquet(tmp_path / f"{verb}.parquet").height == 0


def test_forget_erases_and_says_what(path: Path) -> None:
    assert "2 events and 1 answers" in told("forget", "u1", "--store", path)
    assert not any(b"u1" in file.read_bytes() for file in path.parent.glob("store.sqlite*"))
    found = json.loads(told("forget", "u2", "--store", f"sqlite:///{path}", "--json"))
    assert (found["events"], found["requests"]) == (1, 1)
    assert "no store" in told("forget", "u1", "--store", path.with_name("none"), code=2)
    assert "no store" in told("data", "events", "none.sqlite", "--out", "x.parquet", code=2)
    assert "Say which user" in told("forget", "", "--store", path, code=2)
