"""data ingest, describe and simulate: flags and settings are the same, tables for people, one JSON document for programs."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from vitrail import cli
from vitrail.cli import data
from vitrail.data.ingest import IngestSettings
from vitrail.data.simulate import SimulatorSettings

CSV = "user_id,item_id,rating,timestamp\n" + "".join(f"u{u},{u * 7 % 5:03d},{1 + u % 5},{1600000000 + 60 * u}\n" for u in range(12)) + "u1,,5,1600000000\n"


def vitrail(*words: Any) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="vitrail")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A small log with one row that lacks its item."""
    file = tmp_path / "log.csv"
    file.write_text(CSV)
    return file


@pytest.mark.parametrize(("verb", "settings"), [(data.ingest, IngestSettings), (data.simulate, SimulatorSettings)])
def test_every_setting_is_a_flag(verb: Any, settings: Any) -> None:
    flags = inspect.signature(verb).parameters
    assert set(settings.model_fields) <= set(flags), "a setting without a flag"
    others = {"files", "out", "train", "valid", "test", "items", "users", "events", "look", "overwrite", "quiet", "json"}
    assert set(flags) - set(settings.model_fields) <= others, "a flag that is no setting"


def test_ingest_shows_its_guess_and_what_became_of_the_rows(log: Path, tmp_path: Path) -> None:
    result = vitrail("data", "ingest", log, "--out", tmp_path / "d", "--positive", "value >= 2")
    assert result.exit_code == 0, result.output
    for piece in ("user_id", "item_id", "timestamp", "u0", "kept 12 events", "rejected 1", "rejects.parquet", "vitrail fit"):
        assert piece in result.stdout, piece
    assert pl.read_parquet(tmp_path / "d" / "rejects.parquet")["line"].to_list() == [14]
    result = vitrail("data", "ingest", log, "--out", tmp_path / "e", "--json", "--timestamp", "none", "--ordered", "--min-user-events", 1)
    report = json.loads(result.stdout)
    assert report["kept"] == 12
    assert report["guess"]["order"] == "position"
    assert pl.read_parquet(tmp_path / "e" / "items.parquet")["item"].sort().to_list() == ["000", "001", "002", "003", "004"]


def test_a_look_writes_nothing(log: Path, tmp_path: Path) -> None:
    result = vitrail("data", "ingest", log, "--look", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["files"][0]["format"] == "csv"
    assert "user_id" in vitrail("data", "ingest", log, "--look").stdout
    assert list(tmp_path.iterdir()) == [log]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "OUT"], "Name the files"),
        (["LOG"], "--out FOLDER"),
        (["absent.csv", "--out", "OUT"], "absent.csv"),
        (["LOG", "--out", "OUT", "--user", "usr_id"], "usr_id"),
        (["LOG", "--out", "OUT", "--format", "cvs"], '"format"'),
        (["LOG", "--out", "OUT", "--weights", "buy"], "name=value"),
        (["LOG", "--out", "OUT", "--weights", "buy=many"], "weights"),
        (["LOG", "--out", "OUT", "--columns", "rating=nmber"], "columns"),
        (["LOG", "--out", "OUT", "--min-user-events", "-1"], "min_user_events"),
        (["LOG", "--out", "TAKEN", "--overwrite"], "not a data set"),
        (["LOG", "--out", "TAKEN"], "exists already"),
    ],
)
def test_refusals_leave_nothing(log: Path, tmp_path: Path, words: list[str], sentence: str) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    places = {"LOG": log, "OUT": tmp_path / "out", "TAKEN": taken}
    result = vitrail("data", "ingest", *(places.get(word, word) for word in words))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [log, taken]
    assert (taken / "mine.txt").read_text() == "mine"


def test_simulate_then_describe(tmp_path: Path) -> None:
    size = ("--users", 40, "--items", 30, "--events", 600, "--no-pictures", "--seed", 5)
    result = vitrail("data", "simulate", "--out", tmp_path / "shop", *size, "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert (made["users"], made["items"], made["events"]) == (40, 30, 600)
    facts = json.loads(vitrail("data", "describe", tmp_path / "shop", "--json").stdout)
    assert (facts["users"], facts["items"], facts["events"]) == (40, 30, 600)
    assert 0 < facts["density"] < 1
    text = vitrail("data", "describe", tmp_path / "shop", "--plots", tmp_path / "plots").stdout
    assert "density" in text
    assert "category" in text
    assert list((tmp_path / "plots").glob("*.png"))
    again = vitrail("data", "simulate", "--out", tmp_path / "shop", *size)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert vitrail("data", "simulate", "--out", tmp_path / "shop", *size, "--overwrite", "--quiet").exit_code == 0
    assert vitrail("data", "simulate", "--out", tmp_path / "x", "--drift", 2).exit_code == 2
    assert not (tmp_path / "x").exists()
    file = tmp_path / "shop" / "dataset.yaml"
    file.write_text(file.read_text().replace("features: {}", "features:\n  views_7d: {kind: count, by: item, window: 7d}"))
    assert "views_7d" in (told := vitrail("data", "describe", tmp_path / "shop").stdout) and "events of interactions by item, 7d back" in told
    assert "no data set" in vitrail("data", "describe", tmp_path / "nowhere").stderr
