"""Why a fitted system recommends what it does: parts that add up to the score, neighbours it came through, and what a kind of content moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail.cli import app
from vitrail.data.dataset import Dataset
from vitrail.errors import SettingError
from vitrail.funnel.explain_run import explain_run
from vitrail.funnel.recommender import Recommender, load
from vitrail.testing import checkerboard, quick
from vitrail.train.fit import fit

SETTINGS: dict[str, dict[str, Any]] = {
    "content-knn": {}, "freedom": {}, "freedom-deep": {"item_layers": 2, "cosine": True}, "bm3": {"cold": "content", "epochs": 3}, "popular": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def run(board: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("runs")

    def get(name: str) -> Path:
        if not (folder / name).exists():
            system = name.partition("-deep")[0]
            fit(system, board, split="none", settings={**quick(system, epochs=5), **SETTINGS[name]}, out=folder / name, quiet=True)
        return folder / name

    return get


@pytest.mark.parametrize("name", ["content-knn", "freedom", "freedom-deep"])
def test_parts_add_up_to_the_score(name: str, run: Callable[[str], Path]) -> None:
    found = explain_run(load(run(name)), "u1", k=4)
    assert found["known"] == 11 and found["fallback"] is None
    for row in found["items"]:
        parts = {one["part"]: one["score"] for one in row["why"]["parts"]}
        assert sum(parts.values()) == pytest.approx(row["score"], abs=1e-4)
        assert set(parts) == ({"image", "text"} if name == "content-knn" else {"behaviour", "image", "text"})
        assert list(parts.values()) == sorted(parts.values(), reverse=True) and len(row["why"]["history"]) == 3


def test_neighbours_add_up_to_what_content_adds(run: Callable[[str], Path]) -> None:
    model: Any = load(run("freedom")).model
    asked, items = load(run("freedom")).known.histories([1]), torch.tensor([[0, 5, 23]])
    ids, values = model.leant_on(asked, items)
    parts = model.parts(asked, items)
    torch.testing.assert_close(values.sum(1), (parts["text"] + parts["image"])[0], atol=1e-5, rtol=1e-4)
    assert ids[0].tolist().count(0) == 1, "an item is among its own neighbours once, whatever kinds agree"
    told = explain_run(load(run("freedom")), "u1", k=2)["items"][0]["why"]["neighbours"]
    assert len(told) == 3 and told[0]["score"] >= told[1]["score"]


def test_a_system_that_cannot_tell_is_asked_without_each_kind(run: Callable[[str], Path]) -> None:
    found = explain_run(load(run("bm3")), "u1", k=3)
    told = found["items"][0]["why"]["without"]
    assert [one["modality"] for one in told] == ["image", "text"]
    assert told[0] == {"modality": "image", "score": 0.0, "rank": 1}, "of a trained item it reads nothing when it answers"
    knn = load(run("content-knn"))
    knn.model.parts = None  # type: ignore[assignment]
    assert "parts" not in (explain_run(load(run("popular")), "u1", k=1)["items"][0]["why"] or {})


def test_who_has_no_history_gets_no_reasons(run: Callable[[str], Path]) -> None:
    found = explain_run(load(run("bm3")), "nobody", k=2)
    assert found["fallback"] == "popular" and [row["why"] for row in found["items"]] == [None, None]
    for asked in ({}, {"user": "u1", "history": ["i 1"]}):
        with pytest.raises(SettingError, match="one of the two"):
            explain_run(load(run("bm3")), **asked)  # type: ignore[arg-type]


def test_the_verb(run: Callable[[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    app(["explain", str(run("freedom")), "--user", "u1", "-k", "2"], standalone_mode=False)
    text = capsys.readouterr().out
    assert "behaviour +" in text and "neighbours: items of alike content" in text
    app(["explain", str(run("bm3")), "--history", "i 1,i 3", "-k", "2"], standalone_mode=False)
    assert "(rank " in capsys.readouterr().out
    app(["explain", str(run("content-knn")), "--history", "i 1,i 3", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["items"][0]["why"]["parts_by"] == "content-knn"
    assert app(["explain", str(run("bm3"))], standalone_mode=False) and "--history" in capsys.readouterr().err
    asked: list[Any] = []
    monkeypatch.setattr("vitrail.funnel.build.open_answerer", lambda _: object())
    monkeypatch.setattr("vitrail.cli.funnel.explain", lambda *told: asked.append(told))
    app(["explain", "funnel", "--user", "u1"], standalone_mode=False)
    assert asked[0][1] == "u1", "a funnel is explained stage by stage"


def test_the_model_of_a_recommender_stays(run: Callable[[str], Path]) -> None:
    recommender: Recommender = load(run("bm3"))
    before = recommender.recommend(users=["u1"], k=5)
    explain_run(recommender, "u1", k=3)
    assert recommender.recommend(users=["u1"], k=5).equals(before)
