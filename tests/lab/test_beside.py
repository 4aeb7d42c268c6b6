"""What a comparison measures beside its table: content and splits, in its folder and budget, without touching what is finished there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import vitrail.lab.compare as module
from vitrail.cli import app
from vitrail.data.dataset import Dataset
from vitrail.errors import DataError, SettingError, VitrailError
from vitrail.lab import resplit, worth
from vitrail.lab.bench import Bench
from vitrail.lab.beside import PART, Beside
from vitrail.lab.compare import compare
from vitrail.lab.plan import PAGE
from vitrail.testing import checkerboard

SYSTEMS = ("vbpr", "content-knn", "item-knn", "popular")
GIVEN: dict[str, Any] = {
    "split": "leave-last-out", "trials": 0, "seeds": 2, "metric": "recall@5", "quiet": True,
    "settings": {"vbpr.dim": 4, "epochs": 2, "vbpr.batch": 64},
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.mktemp("data") / "board", side=36)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "write_page", lambda *a: None)
    for name, value in (("MISSING", (0.5,)), ("NOISE", (1.0,)), ("DRAWS", 1)):
        monkeypatch.setattr(worth, name, value)


@pytest.fixture(scope="module")
def bare(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A comparison without anything beside it, as it was finished before."""
    folder = tmp_path_factory.mktemp("whole") / "c"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_page", lambda *a: None)
        return folder, compare(SYSTEMS, data, out=folder, **GIVEN)


def files(folder: Path, *patterns: str) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for pattern in patterns for file in folder.glob(pattern)}


def test_a_finished_folder_goes_on_and_nothing_in_it_is_fitted_again(
    bare: tuple[Path, dict[str, Any]], data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = bare
    old = files(folder, "*/seed-*/**/*", "request.json", "plan.json")
    said: list[str] = []
    asked: dict[str, Any] = {**GIVEN, "content": True, "also_split": ["ratio:test=0.3", "temporal"], "baseline": "best", "quiet": False}
    result = compare(SYSTEMS, data, out=folder, **asked, say=said.append, report=tmp_path / "r.md")
    assert files(folder, "*/seed-*/**/*", "request.json", "plan.json") == old and result["rows"] == before["rows"]
    assert any(text.startswith("Still to do: what content does, 18 measurements of 2 systems") for text in said)
    assert any("4 systems fitted once under ratio:test=0.3 and temporal" in text for text in said)

    content = result["content"]
    assert content["kinds"] == {"vbpr": ["text", "image"], "content-knn": ["text", "image"]} and not content["late"]
    rows = {(row["system"], row["kind"], row["what"]): row for row in content["rows"]}
    assert len(rows) == 12 and rows["vbpr", "text", "missing"]["n"] == 2 and rows["content-knn", "text", "noise"]["n"] == 1
    gone = rows["vbpr", "image", "without"]
    whole = next(row["mean"]["recall@5"] for row in result["systems"] if row["system"] == "vbpr")
    assert content["whole"]["vbpr"] == pytest.approx(whole) and gone["share"] == pytest.approx(gone["mean"] / whole)
    assert any(text.startswith("Without image after the fit") for text in content["sentences"])

    split = result["splits"]
    assert [(c["split"], c["fits"]) for c in split["conditions"]] == [("leave-last-out", 2), ("ratio:test=0.3", 1), ("temporal", 1)]
    assert len(split["rows"]) == 12 and len(split["orders"]) == 3 and len(split["sentences"]) == 3
    assert {row["mean"] for row in split["rows"] if row["condition"] == 0 and row["system"] == "vbpr"} == {whole}

    assert result["baseline"].startswith("The baseline is item-knn, the best on validation") and {test["b"] for test in result["tests"]} == {"item-knn"}
    text = (tmp_path / "r.md").read_text()
    assert "## What content does" in text and "| vbpr | text |" in text and "## What the split does" in text and "Kendall's tau" in text
    assert text.index(result["baseline"]) < text.index(result["sentences"][0])
    assert "--baseline best --content --also-split ratio:test=0.3 --also-split temporal" in result["command"]
    assert json.loads((folder / "result.json").read_text())["splits"] == split

    monkeypatch.setattr("vitrail.lab.seeds.fit", None)
    monkeypatch.setattr(worth, "measured", None)
    words = ["compare", *SYSTEMS, "--data", str(data.path), "--split", "leave-last-out", "--trials", "0", "--seeds", "2", "--metric", "recall@5", "--out"]
    words += [str(folder), "--set", "vbpr.dim=4", "--set", "epochs=2", "--set", "vbpr.batch=64", "--content", "--also-split", "temporal", "--baseline", "best"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and result["baseline"] in done.stdout and "Without text after the fit" in done.stdout and "turned round" in done.stdout
    again = compare(SYSTEMS, data, out=folder, **{**asked, "quiet": True})
    assert again["content"] == content and again["splits"] == split and again["cost"]["seconds"] == pytest.approx(result["cost"]["seconds"])
    assert "content" not in compare(SYSTEMS, data, out=folder, **GIVEN), "what is not asked for is not in the report"


def test_fits_without_a_kind(data: Dataset, tmp_path: Path) -> None:
    given: dict[str, Any] = {**GIVEN, "tests": False, "seeds": 1}
    result = compare(("vbpr", "content-knn"), data, out=tmp_path / "c", **given, content=True, retrain=True)
    anew = [row for row in result["content"]["rows"] if row["what"] == worth.ANEW]
    assert [(row["system"], row["kind"], row["cut"]) for row in anew] == [
        ("vbpr", "text", False), ("vbpr", "image", False), ("content-knn", "text", False), ("content-knn", "image", False),
    ]  # fmt: skip
    assert any("from the start (fitted anew)" in text for text in result["content"]["sentences"]) and "--content --retrain" in result["command"]


def test_what_does_not_fit_the_budget_is_named_and_a_larger_one_goes_on(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {**GIVEN, "tests": False, "seeds": 1, "content": True, "also_split": ["ratio"]}
    monkeypatch.setattr("vitrail.lab.beside._left", lambda clock, end: lambda: -1.0)
    result = compare(("vbpr", "item-knn"), data, out=tmp_path / "c", budget=1, **given)
    assert not result["content"]["rows"] and result["content"]["late"] == {"vbpr": 6}
    assert [job["system"] for job in result["splits"]["late"]] == ["vbpr", "item-knn"]
    assert "Under ratio there was no time to fit vbpr, item-knn;" in result["splits"]["sentences"][-1]
    assert "changed content: vbpr (6); the same command with a larger --budget goes on" in result["content"]["sentences"][-1]
    seen: list[float] = []
    monkeypatch.setattr("vitrail.lab.beside._left", lambda clock, end: lambda: seen.append(end) or 1000.0)
    more = compare(("vbpr", "item-knn"), data, out=tmp_path / "c", budget=2, **given)
    assert len(more["content"]["rows"]) == 6 and not more["content"]["late"] and not more["splits"]["late"] and len(more["splits"]["rows"]) == 4
    assert max(seen) == pytest.approx(0.95 * 7200 - PAGE)


def test_what_cannot_be_measured_or_fitted_is_named_and_the_rest_goes_on(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seat, measured = resplit.seat, worth.measured

    def fitted(bench: Any, system: str, *more: Any) -> Any:
        if system == "popular":
            raise SettingError("It cannot be.")
        return seat(bench, system, *more)

    def read(run: Any, change: Any, *more: Any) -> Any:
        if change[1] == "image":
            raise VitrailError("The scores are NaN.")
        return measured(run, change, *more)

    monkeypatch.setattr(resplit, "seat", fitted)
    monkeypatch.setattr(worth, "measured", read)
    given: dict[str, Any] = {**GIVEN, "settings": {}, "tests": False, "seeds": 1, "content": True, "also_split": ["ratio"]}
    result = compare(("content-knn", "popular"), data, out=tmp_path / "c", **given)
    assert result["content"]["failed"] == {"content-knn": "The scores are NaN."} and {row["kind"] for row in result["content"]["rows"]} == {"text"}
    assert result["splits"]["failed"] == [{"system": "popular", "split": "ratio", "why": "It cannot be."}] and not result["splits"]["orders"]
    assert "Under ratio popular could not be fitted: It cannot be." in result["splits"]["sentences"]


def test_the_best_baseline_by_the_best_trial_where_seeds_were_not_measured_by_the_metric(data: Dataset, tmp_path: Path) -> None:
    given = {**GIVEN, "settings": {}, "metric": "recall@3", "trials": 1, "seeds": 1}
    result = compare(("content-knn", "popular", "item-knn"), data, out=tmp_path / "c", **given, baseline="best")
    assert result["baseline"].startswith("The baseline is item-knn") and {test["b"] for test in result["tests"]} == {"item-knn"}


def test_a_part_of_the_budget_is_kept(data: Dataset) -> None:
    bench = Bench.open(data, "leave-last-out", "recall@5", False, "cpu", True)
    beside = Beside(bench, {"vbpr": ("text",)})
    assert beside.kept((50.0, 30.0), None) == 80.0 and beside.kept((50.0, 30.0), 100.0) == 100 * PART and beside.kept((5.0, 3.0), 100.0) == 8.0
    assert Beside(bench).words([], (0.0, 0.0), 1.0, "In it") == []
    assert "30 s are kept" in beside.words([], (50.0, 30.0), 100.0, "In it")[-1]


def test_refusals_before_anything_is_run(data: Dataset, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"systems": ("item-knn", "popular"), "settings": {}, "content": True}, SettingError, "none of these does"),
        ({"retrain": True}, SettingError, "a part of --content"),
        ({"also_split": ["temporl"]}, SettingError, 'Did you mean "temporal"'),
        ({"also_split": ["leave_one_out"]}, SettingError, "in this comparison already"),
        ({"also_split": ["ratio", "ratio"]}, SettingError, "in this comparison already"),
        ({"also_split": ["none"]}, DataError, "no test part"),
        ({"systems": ("vbpr", "content-knn"), "baseline": "best"}, SettingError, 'not of the family "multimodal"'),
        ({"metric": "recall@3", "baseline": "best"}, SettingError, "name the baseline itself"),
        ({"split": "ratio:valid=0", "baseline": "best"}, DataError, "no validation part"),
    ]
    for n, (change, kind, says) in enumerate(cases):
        with pytest.raises(kind, match=says) as error:
            compare(**{"systems": SYSTEMS, "data": data, "out": tmp_path / str(n), **GIVEN, **change})
        assert "\n" not in str(error.value) and not list(tmp_path.glob(f"{n}/*/")), change
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--content"])
    assert done.exit_code == 2 and "leave --content, --retrain and --also-split out" in done.stderr
