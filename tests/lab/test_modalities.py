"""What content does for a run: changes worked by hand, the same weights over other content, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail.cli import app
from vitrail.data.dataset import Dataset
from vitrail.errors import SettingError
from vitrail.funnel.recommender import load
from vitrail.lab import modalities
from vitrail.lab.modalities import changed, measured, modality_effects, with_content
from vitrail.systems.base import Given
from vitrail.testing import checkerboard, quick
from vitrail.train.fit import fit


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.mktemp("data") / "board", side=36)


@pytest.fixture(scope="module")
def runs(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("content-knn", "bm3", "popular"):
        fit(name, data, split="leave-last-out", settings=quick(name, epochs=2), out=folder / name, quiet=True)
    return {name: folder / name for name in ("content-knn", "bm3", "popular")}


def test_changes_by_hand() -> None:
    torch.manual_seed(0)
    values, mask = torch.randn(400, 50), torch.arange(400) < 320
    given = Given(vectors={"text": values * mask[:, None], "image": values}, masks={"text": mask, "image": torch.ones(400, dtype=torch.bool)})
    assert changed(given, "whole", None, 0.0, 0) is given
    none = changed(given, "without", "text", 1.0, 0)
    assert not none.masks["text"].any() and not none.vectors["text"].any() and none.vectors["image"] is given.vectors["image"]
    some = changed(given, "missing", "text", 0.25, 1)
    assert int(some.masks["text"].sum()) == 240 and not some.masks["text"][320:].any() and not some.vectors["text"][~some.masks["text"]].any()
    assert not some.masks["text"].equal(changed(given, "missing", "text", 0.25, 2).masks["text"])
    noisy = changed(given, "noise", "text", 2.0, 0)
    ratio = (noisy.vectors["text"] - given.vectors["text"])[:320].norm() / given.vectors["text"].norm()
    assert float(ratio) == pytest.approx(2.0, rel=0.05) and noisy.masks["text"] is mask
    assert not noisy.vectors["text"][320:].any(), "who has none gets no noise either"


def test_the_same_content_gives_the_same_answers(runs: dict[str, Path]) -> None:
    for name in ("content-knn", "bm3"):
        whole = load(runs[name])
        assert with_content(whole, whole.given).recommend(users=["u1", "u2"], k=5).equals(whole.recommend(users=["u1", "u2"], k=5))


def test_a_report(runs: dict[str, Path], data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {"out": tmp_path / "e", "noise": [20.0], "missing": [0.5], "seeds": 2, "metric": "ndcg@5"}
    result = modality_effects(runs["content-knn"], **asked)
    assert [row["what"] for row in result["rows"]] == ["whole", "without", "without", "noise", "noise", "missing", "missing"]
    assert [row["draws"] for row in result["rows"]] == [1, 1, 1, 2, 2, 2, 2] and result["rows"][0]["share"] == 1.0
    assert result["rows"][3]["mean"] < result["rows"][0]["mean"], "noise hurts"
    assert len(result["sentences"]) == 2 and "as it was fitted keeps" in result["sentences"][0]
    assert json.loads((tmp_path / "e" / "result.json").read_text()) == result
    assert (tmp_path / "e" / "modalities.svg").stat().st_size > 1000 and (tmp_path / "e" / "modalities.png").exists()
    assert "50 % of items without image" in (tmp_path / "e" / "report.md").read_text() and "without text" in capsys.readouterr().err
    monkeypatch.setattr(modalities, "evaluate_run", None)
    assert modality_effects(runs["content-knn"], **asked, quiet=True)["rows"] == result["rows"], "what is finished is not measured again"


def test_content_that_is_read_in_training_only(runs: dict[str, Path], tmp_path: Path) -> None:
    asked: dict[str, Any] = {"noise": [], "missing": [0.5], "seeds": 1, "quiet": True}
    still = modality_effects(runs["bm3"], out=tmp_path / "still", **asked)
    assert len({row["mean"] for row in still["rows"]}) == 1 and "--retrain" in still["sentences"][0]
    seen: list[int] = []
    fitter = modalities.Fitter.build

    def spied(self: Any, cls: Any, config: Any, sizes: Any, log: Any) -> Any:
        model, given = fitter(self, cls, config, sizes, log)
        seen.append(int(given.masks["text"].sum()) + int(given.masks["image"].sum()))
        return model, given

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modalities.Fitter, "build", spied)
        again = modality_effects(runs["bm3"], out=tmp_path / "again", retrain=True, **asked)
    assert seen == [35, 35, 52, 52], "a kind of 35 items left out, or half of it"
    assert again["retrain"] and "fitted anew keeps" in again["sentences"][0]


def test_a_fit_that_a_deadline_stops_says_so(runs: dict[str, Path], data: Dataset) -> None:
    run, change = load(runs["bm3"]), ("without", "text", 1.0, 0)
    assert measured(run, change, data, "ndcg@5", True, "cpu", lambda: -1.0)["cut"] and not measured(run, change, data, "ndcg@5", True, "cpu")["cut"]


def test_refusals(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="reads no content"):
        modality_effects(runs["popular"], out=tmp_path / "e")
    for more in ({"seeds": 0}, {"noise": [0.0]}, {"missing": [1.0]}):
        with pytest.raises(SettingError, match="--missing between 0 and 1"):
            modality_effects(runs["content-knn"], out=tmp_path / "e", **more)  # type: ignore[arg-type]


def test_the_verb(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--out", str(tmp_path / "e"), "--noise", "1", "--missing", "0.5", "--quiet"]
    app(["effects", "--modalities", str(runs["content-knn"]), *flags, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["system"] == "content-knn"
    for command in (["effects", "popular", "--modalities", str(runs["content-knn"])], ["effects"]):
        assert app(command, standalone_mode=False)
        assert "--modalities RUN" in capsys.readouterr().err
