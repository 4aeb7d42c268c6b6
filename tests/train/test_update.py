"""A run refreshed on a log that grew: rows of weights follow outside ids, the result is measured against a fit from nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from vitrail.data.dataset import Dataset, write_dataset
from vitrail.errors import SettingError
from vitrail.funnel.recommender import Recommender, load
from vitrail.systems import registry
from vitrail.systems.base import Given, Sizes
from vitrail.testing import checkerboard, quick
from vitrail.train.fit import fit
from vitrail.train.update import overlap_of, update, warm

WARM = ("sasrec", "bert4rec", "bpr-mf", "lightgcn", "multvae")


def grown(old: Dataset, folder: Path) -> Dataset:
    """The same log without user u0 and item "i 0", with a new user and a new item."""
    table = old.interactions.filter((pl.col("user") != "u0") & (pl.col("item") != "i 0"))
    rows = table.filter(pl.col("user") == "u2").with_columns(user=pl.lit("new user"))
    more = rows.head(1).with_columns(item=pl.lit("new item"))
    items = old.items.filter(pl.col("item") != "i 0")
    return write_dataset(folder, old.info.model_copy(update={"files": {}, "counts": {}}), pl.concat([table, rows, more]), items)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.mktemp("update") / "board")


@pytest.fixture(scope="module")
def later(board: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return grown(board, tmp_path_factory.mktemp("update") / "later")


def fitted(name: str, data: Dataset, **settings: Any) -> Recommender:
    return fit(name, data, split="leave-last-out", settings=quick(name) | {"epochs": 1} | settings, quiet=True).recommender


@pytest.mark.parametrize("name", WARM)
def test_weights_follow_outside_ids(board: Dataset, later: Dataset, name: str) -> None:
    old = fitted(name, board)
    fill = warm(old, later)
    cls = registry.find(name)
    counts = fit("popular", later, split="leave-last-out", quiet=True).split.train
    torch.manual_seed(1)
    fresh = cls(old.model.config, Sizes(len(later.users), len(later.items)), Given.of(counts, cls.needs))
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    fill(fresh)
    after, weights = fresh.state_dict(), old.model.state_dict()
    tables = 0
    for key, value in after.items():
        axis = next((place for place, size in enumerate(weights[key].shape) if size - 24 in (0, 1, 2)), None)
        if axis is None:
            continue
        is_user = "user" in key
        ids = (old.user_ids, later.user_ids) if is_user else (old.item_ids, later.item_ids)
        shared = next(one for one in ids[1].ids if ids[0].code(one) >= 0)
        moved = value.select(axis, ids[1].code(shared))
        if torch.equal(moved, weights[key].select(axis, ids[0].code(shared))):
            tables += 1
            unknown = "new user" if is_user else "new item"
            assert torch.equal(value.select(axis, ids[1].code(unknown)), before[key].select(axis, ids[1].code(unknown)))
    assert tables


def test_the_same_data_gives_back_the_weights(board: Dataset) -> None:
    old = fitted("sasrec", board)
    cls = registry.find("sasrec")
    again = cls(old.model.config, old.model.sizes, old.given)
    warm(old, board)(again)
    assert all(torch.equal(value, old.model.state_dict()[key]) for key, value in again.state_dict().items())


def test_update_reports_what_changed_and_how_far_it_is_from_a_full_fit(board: Dataset, later: Dataset, tmp_path: Path) -> None:
    fit("sasrec", board, split="leave-last-out", out=tmp_path / "run", settings=quick("sasrec") | {"epochs": 3}, quiet=True)
    report = update(tmp_path / "run", later, tmp_path / "new", epochs=2, quiet=True)
    assert report["items"] == {"kept": 23, "new": 1, "gone": 1}
    assert report["users"] == {"kept": 23, "new": 1, "gone": 1}
    assert [row["fit"] for row in report["fits"]] == ["updated", "from nothing"]
    assert report["fits"][0]["epochs"] <= 2
    assert all(0 <= row["value"] <= 1 for row in report["fits"])
    assert 0 <= report["overlap@10"] <= 1
    assert "went on" in report["weights"]
    made = load(tmp_path / "new")
    assert made.item_ids.code("new item") >= 0
    assert overlap_of(made, made) == 1.0
    with pytest.raises(SettingError, match="the run itself"):
        update(tmp_path / "run", later, tmp_path / "run", quiet=True)


def test_a_system_learned_at_once_is_fitted_anew(board: Dataset, later: Dataset, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from vitrail.cli import app

    fit("item-knn", board, split="leave-last-out", out=tmp_path / "run", quiet=True)
    words = ["update", str(tmp_path / "run"), "--data", str(later.path), "--out", str(tmp_path / "new"), "--quiet"]
    told = CliRunner().invoke(app, [*words, "--json"])
    report = json.loads(told.stdout)
    assert report["overlap@10"] == 1.0
    assert "learned at once" in report["weights"]
    told = CliRunner().invoke(app, [*words, "--overwrite", "--no-check"])
    assert "items: 23 kept, 1 new, 1 gone" in told.stdout
    assert "in common" not in told.stdout
