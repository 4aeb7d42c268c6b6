"""Matryoshka: the setting `nested` over any host, vectors cut at load, and a narrow index that finds a shortlist."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from vitrail.data.dataset import Dataset
from vitrail.errors import SettingError
from vitrail.funnel.recommender import load
from vitrail.funnel.through_index import index_of
from vitrail.testing import SIDE, checkerboard, quick, right_answers
from vitrail.train.fit import fit


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def run(board: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    fit("matryoshka", board, split="none", settings=quick("matryoshka", smallest=4), out=out, quiet=True)
    return out


@pytest.mark.parametrize("name", ["bpr-mf", "lightgcn", "gru4rec", "sasrec"])
def test_one_width_trains_as_without(name: str, board: Dataset) -> None:
    settings = quick(name, epochs=2, dim=4)
    plain, nested = (fit(name, board, split="none", settings={**settings, **more}, quiet=True).recommender.model for more in ({}, {"nested": [4]}))
    torch.testing.assert_close(list(plain.parameters()), list(nested.parameters()))


HOSTS: list[tuple[str, dict[str, object]]] = [
    ("bpr-mf", {"shared_negatives": True}), ("freedom", {}), ("gru4rec", {"cosine": True}), ("sasrec", {"loss": "bce"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "more"), HOSTS)
def test_it_runs_with_every_kind_of_host(name: str, more: dict[str, object], board: Dataset) -> None:
    settings = {**quick(name, dim=8), **more, "nested": [4, 8], "epochs": 20, "lr": 0.03}
    recommender = fit(name, board, split="none", settings=settings, quiet=True).recommender
    assert recommender.model.widths == (4, 8)
    recommender.model.truncate(4)
    recommender.model.prepare()
    vectors = recommender.model.item_vectors()
    assert vectors is not None and vectors.shape == (SIDE, 4)
    assert recommender.recommend(users=["u1"], k=2).height == 2


def test_a_cut_vector_is_brought_to_length_one_after_it_is_cut(run: Path) -> None:
    whole, cut = load(run), load(run, dim=4)
    assert right_answers(whole) == right_answers(cut) == right_answers(load(run, dim=6)) == 1.0, "between trained widths too"
    full, short = whole.model.item_vectors(), cut.model.item_vectors()
    assert full is not None and short is not None
    torch.testing.assert_close(short, F.normalize(full[:, :4], dim=1))
    assert not torch.allclose(short, full[:, :4])
    asked = whole.known.histories([1, 2])
    queries = cut.model.query_vectors(asked)
    assert queries is not None
    torch.testing.assert_close(cut.model.scores(asked), queries @ short.T)


def test_a_shortlist_of_everything_is_the_exact_search(run: Path) -> None:
    whole, narrow = load(run), index_of(load(run, dim=4), kind="exact")
    assert narrow.dim == 4
    users = [f"u{n}" for n in range(SIDE)]
    through = whole.with_index(narrow).recommend(users=users, k=5)
    exact = whole.recommend(users=users, k=5)
    assert through["item"].to_list() == exact["item"].to_list()
    torch.testing.assert_close(through["score"].to_torch(), exact["score"].to_torch())
    alone = load(run, dim=4).with_index(narrow).recommend(users=users, k=5)
    assert alone["item"].to_list() == load(run, dim=4).recommend(users=users, k=5)["item"].to_list()


def test_a_short_shortlist_loses_what_it_does_not_hold(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.funnel.through_index.SHORTLIST", 1)
    through = load(run).with_index(index_of(load(run, dim=4), kind="exact"))
    found = through.recommend(users=["u1"], k=3, include_seen=True)
    ranked = dict(zip(*load(run).recommend(users=["u1"], k=SIDE, include_seen=True).select("item", "score"), strict=True))
    assert found["score"].to_list() == pytest.approx([ranked[item] for item in found["item"]]), "scores are those of the whole vectors"


def test_a_new_item_goes_into_a_narrow_index(board: Dataset, tmp_path: Path) -> None:
    settings = {**quick("freedom", dim=8), "nested": [4, 8], "epochs": 20}
    out = tmp_path / "freedom"
    fit("freedom", board, split="none", settings=settings, out=out, quiet=True)
    through = load(out).with_index(index_of(load(out, dim=4), kind="exact"))
    fresh = {"text": np.array([[6.0, *[0.1] * 11]], dtype=np.float32)}
    grown = through.with_items(pl.DataFrame({"item": ["new"]}), fresh)
    assert "new" in grown.recommend(users=["u1"], k=SIDE, include_seen=True)["item"].to_list()
    assert load(out, dim=4).with_items(pl.DataFrame({"item": ["new"]}), fresh).model.prefix == 4


def test_refusals(run: Path, board: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cut to 1 to 16"):
        load(run, dim=17)
    plain = tmp_path / "plain"
    fit("bpr-mf", board, split="none", settings=quick("bpr-mf", epochs=1), out=plain, quiet=True)
    with pytest.raises(SettingError, match="--set nested"):
        load(plain, dim=2)
    with pytest.raises(SettingError, match="width of the vectors, which is 4"):
        fit("bpr-mf", board, split="none", settings=quick("bpr-mf", nested=[2]), quiet=True)
    with pytest.raises(SettingError, match="loss of its own"):
        fit("ultragcn", board, split="none", settings=quick("ultragcn", nested=[4]), quiet=True)
    with pytest.raises(SettingError, match="needs ip over 4"):
        load(plain).with_index(index_of(load(run, dim=4), kind="exact").__class__(["a"], torch.ones(1, 2)))
