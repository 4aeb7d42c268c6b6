"""Answers: outside ids in and out, the day-zero answer, filters, everybody at once, saving and damage."""

import json

import polars as pl
import pytest
import torch

import vitrail
from vitrail.errors import ArtifactError, DataError, SettingError
from vitrail.testing import SIDE, checkerboard, quick
from vitrail.train.fit import fit


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return checkerboard(tmp_path_factory.mktemp("data") / "board")


@pytest.fixture(scope="module")
def knn(data):
    return fit("item-knn", data, split="leave-last-out", quiet=True).recommender


def test_the_test_part_never_enters_an_artifact(data, knn):
    assert len(knn.known) == data.info.counts["events"] - SIDE


def test_columns_and_ranks(knn):
    table = knn.recommend(users=["u1", "u3"], k=4)
    assert table.columns == ["query", "user", "item", "rank", "score", "sources", "why", "fallback"]
    assert table["user"].to_list() == ["u1"] * 4 + ["u3"] * 4 and table["rank"].to_list() == [1, 2, 3, 4] * 2
    assert table["sources"][0].to_list() == [{"name": "item-knn", "rank": 1, "score": pytest.approx(table["score"][0])}]
    first = table.filter(pl.col("user") == "u1")["score"]
    assert first.to_list() == sorted(first.to_list(), reverse=True)


def test_seen_items_come_only_when_asked(knn):
    seen = set(knn.item_ids.decode(knn.known.histories(knn.user_ids.encode(["u1"])).items.numpy()))
    assert not seen & set(knn.recommend(users=["u1"], k=SIDE)["item"])
    assert seen <= set(knn.recommend(users=["u1"], k=SIDE, include_seen=True)["item"])


def test_mixed_known_and_unknown_users(knn):
    table = knn.recommend(users=["nobody", "u1", "noone"], k=2)
    assert table["fallback"].to_list() == ["popular"] * 2 + [None] * 2 + ["popular"] * 2
    assert table.filter(pl.col("user") == "u1")["item"].to_list() == knn.recommend(users=["u1"], k=2)["item"].to_list()


def test_asking_wrongly_is_a_sentence(knn):
    for ask, words in (
        ({"users": ["u1"], "histories": [["i 1"]]}, "one of the two"),
        ({}, "one of the two"),
        ({"users": "u1"}, "list of ids"),
        ({"users": ["u1"], "k": 0}, "at least 1"),
        ({"users": ["u1"], "filter": "colour = 1"}, "filter|condition"),
        ({"users": ["u1"], "filter": "color == 'white'"}, 'Did you mean "colour"'),
    ):
        with pytest.raises(SettingError, match=words):
            knn.recommend(**ask)
    with pytest.raises(DataError, match="no item"):
        knn.similar(["i 1", "nothing"])
    assert knn.recommend(users=[], k=3).height == 0


def test_a_popular_system_has_no_similarity(data):
    popular = fit("popular", data, split="leave-last-out", quiet=True).recommender
    with pytest.raises(SettingError, match="no similarity"):
        popular.similar(["i 1"])


def test_everybody_streamed_and_resumed(knn, tmp_path, monkeypatch):
    out = tmp_path / "recs.parquet"
    assert knn.answer_everyone("all", out, k=3, block=5, progress=False) == SIDE * 3
    whole = pl.read_parquet(out)
    calls = []
    original = type(knn).recommend

    def failing(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(knn), "recommend", failing)
    again = tmp_path / "again.parquet"
    with pytest.raises(KeyboardInterrupt):
        knn.answer_everyone("all", again, k=3, block=5, progress=False)
    assert not again.exists()
    with pytest.raises(DataError, match="another question"):
        knn.answer_everyone("all", again, k=4, block=5, progress=False, resume=True)
    knn.answer_everyone("all", again, k=3, block=5, progress=False, resume=True)
    assert len(calls) == 3 + 3  # two of five blocks were kept
    assert pl.read_parquet(again).equals(whole) and not list(tmp_path.glob("*.parts"))
    assert whole.columns == ["user", "item", "rank", "score", "sources", "why", "fallback"]


def test_users_of_a_list(knn, tmp_path):
    knn.answer_everyone(["u2", "nobody"], tmp_path / "two.parquet", k=2, progress=False)
    assert pl.read_parquet(tmp_path / "two.parquet")["user"].to_list() == ["u2", "u2", "nobody", "nobody"]


@pytest.fixture
def saved(data, tmp_path):
    fit("lightgcn", data, split="leave-last-out", settings=quick("lightgcn", epochs=1), quiet=True).recommender.save(tmp_path / "model")
    return tmp_path / "model"


def test_it_states_what_it_is(saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["format"] == 1 and manifest["system"] == "lightgcn" and manifest["memory_bytes"] > 0
    assert manifest["data"]["fingerprint"] and manifest["validation"]["metrics"]["ndcg@10"] >= 0 and manifest["versions"]["torch"]


def test_it_loads_without_the_data_set(saved, data):
    data.path.rename(data.path.with_name("away"))
    try:
        assert vitrail.load(saved).recommend(users=["u1"], k=2).height == 2
    finally:
        data.path.with_name("away").rename(data.path)


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "known.safetensors", "given.safetensors", "items.parquet", "users.parquet"])
def test_damage_is_refused(saved, name):
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="damaged"):
        vitrail.load(saved)
    (saved / name).unlink()
    with pytest.raises(ArtifactError, match=r"missing|no fitted system"):
        vitrail.load(saved)


def test_a_newer_version_and_an_unknown_system_are_refused(saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ArtifactError, match="newer Vitrail"):
        vitrail.load(saved)
    (saved / "manifest.json").write_text(json.dumps(manifest | {"system": "mine"}))
    with pytest.raises(ArtifactError, match=r"--system FILE\.py"):
        vitrail.load(saved)


def test_no_artifact_here(tmp_path):
    with pytest.raises(ArtifactError, match="no fitted system"):
        vitrail.load(tmp_path / "nowhere")


def test_saving_never_overwrites_by_itself(knn, tmp_path):
    knn.save(tmp_path / "model")
    with pytest.raises(DataError, match="exists already"):
        knn.save(tmp_path / "model")
    knn.save(tmp_path / "model", overwrite=True)


def test_scores_do_not_change_the_tables(data):
    """Masking works on a copy: the popular list is the same after a filtered question."""
    popular = fit("popular", data, split="leave-last-out", quiet=True).recommender
    before = popular.recommend(users=["nobody"], k=5)
    popular.recommend(users=["u1"], k=5, filter='colour == "white"')
    assert popular.recommend(users=["nobody"], k=5).equals(before)
    assert torch.isfinite(popular.popularity).all()
