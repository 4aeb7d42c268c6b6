"""Items that come while a funnel serves: found by the sources that read content, ranked as unseen, seen by filters and dates, gone when withdrawn."""

import shutil

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from vitrail.data.dataset import Dataset
from vitrail.data.vectors import write_vectors
from vitrail.errors import DataError, SettingError
from vitrail.funnel.build import load_funnel, run_funnel
from vitrail.funnel.file import FunnelFile
from vitrail.funnel.through_index import index_of
from vitrail.serve.app import create_app
from vitrail.serve.store.base import open_store
from vitrail.train.fit import fit

RETRIEVE = [
    {"system": "item-knn", "k": 20},
    {"system": "content-knn", "settings": {"vectors": ["text"]}, "k": 20, "weight": 2},
    {"system": "fresh", "date": "released", "k": 10},
    {"system": "popular", "k": 10, "weight": 0.2},
]


@pytest.fixture(scope="module")
def data(shop, tmp_path_factory):
    """The shop, with the true factors of its items as their content."""
    data = Dataset(shutil.copytree(shop.path, tmp_path_factory.mktemp("newcomers") / "shop"))
    truth = pl.read_parquet(data.path / "truth" / "item_factors.parquet")
    write_vectors(data.path, "text", truth["vector"].to_numpy().astype(np.float32), truth["item"].to_list(), encoder="hand")
    return Dataset(data.path)


@pytest.fixture(scope="module")
def built(data, tmp_path_factory):
    made = {}

    def build(rank=None, retrieve=RETRIEVE):
        key = str((rank, retrieve))
        if key not in made:
            told = {"funnel": "shop", "data": str(data.path), "split": "temporal:rolling=true", "retrieve": retrieve, "fuse": {"k": 60}}
            ranked = {} if rank is None else {"rank": {"requests": 100, "mix": 0.0, **rank}}
            folder = tmp_path_factory.mktemp("built") / "out"
            run_funnel(FunnelFile.of(told | ranked | {"arrange": {"system": "mmr"}}), folder)
            made[key] = folder
        return load_funnel(made[key])

    return build


def liked(funnel, user):
    """An item of the user's, and its content."""
    code = int(funnel.known.histories(funnel.user_ids.encode([user])).items[-1])
    return funnel.item_ids.ids[code], funnel.sources[1].recommender.given.vectors["text"][code].numpy()


def user_of(funnel):
    """Somebody with ten events or so."""
    return funnel.user_ids.ids[int(np.abs(funnel.known.lengths - 10).argmin())]


RANKERS = [None, {"system": "logistic"}, {"system": "din", "settings": {"epochs": 1}}, {"system": "dnn", "settings": {"vectors": ["text"], "epochs": 1}}]


@pytest.mark.parametrize("rank", RANKERS)
def test_a_new_item_is_found_by_content_and_ranked_as_unseen(built, rank):
    funnel = built(rank)
    user = user_of(funnel)
    _, like = liked(funnel, user)
    before = funnel.recommend(users=[user], k=10)
    assert funnel.content == {"text": 16}
    grown = funnel.with_items(pl.DataFrame({"item": ["new", "bare"]}), {"text": np.stack([like, 0 * like])})
    assert len(grown.item_ids) == len(funnel.item_ids) + 2 and grown.item_ids.ids[: len(funnel.item_ids)].to_list() == funnel.item_ids.ids.to_list()
    rows = {row["item"]: row for row in grown.answer(user, None, 40)["items"]}
    assert [source["name"] for source in rows["new"]["sources"]] == ["content-knn"] and np.isfinite(rows["new"]["score"])
    old = grown.recommend(users=[user], k=40).filter(pl.col("item").is_in(before["item"].to_list()))
    assert old.height >= 8, "old items stay candidates"
    assert "new" not in set(funnel.recommend(users=[user], k=40)["item"]), "the old funnel is as it was"
    why = grown.answer(user, ["new"], 60, True, explain=True)
    assert next(row for row in why["items"] if row["item"] == "new")["why"]["stages"]["page"] and why["trace"]["catalogue"] == len(grown.item_ids)
    # it is history as well, to every source and to the ranker
    after = grown.answer(user, ["new"], 40)
    assert "new" not in [row["item"] for row in after["items"]] and {s["name"] for row in after["items"] for s in row["sources"]} >= {"item-knn", "content-knn"}
    stranger = grown.answer(None, ["new"], 5)
    assert stranger["fallback"] is None and {s["name"] for row in stranger["items"] for s in row["sources"]} >= {"content-knn"}
    again = grown.with_items(pl.DataFrame({"item": ["newer"]}), {"text": like[None]})
    assert {"new", "newer"} <= {row["item"] for row in again.answer(user, None, 40)["items"]}
    assert "new" in set(again.similar([liked(funnel, user)[0]], k=60)["item"]) or again.similar(["new"], k=5).height == 5


def test_a_ranker_that_cannot_take_items_in_puts_them_last(built, tmp_path):
    funnel = built({"system": "logistic"})
    funnel.ranking.given = None
    user = user_of(funnel)
    grown = funnel.with_items(pl.DataFrame({"item": ["new"]}), {"text": liked(funnel, user)[1][None]})
    rows = grown.answer(user, ["new"], 40, True, explain=True)["items"]
    assert min(row["score"] for row in rows) == next(row["score"] for row in rows if row["item"] == "new")


def test_filters_dates_rules_and_withdrawals_reach_it(built):
    funnel = built({"system": "logistic"})
    user = user_of(funnel)
    item, like = liked(funnel, user)
    grown = funnel.with_items(pl.DataFrame({"item": ["new"]}), {"text": like[None]})
    grown.overlay({"new": {"category": "novelties", "released": "2031-01-01", "price": 3.5}}, frozenset())
    assert [row["item"] for row in grown.answer(user, None, 5, filter='category == "novelties"')["items"]] == ["new"]
    found = next(row for row in grown.answer(user, None, 60)["items"] if row["item"] == "new")
    assert {source["name"]: source["rank"] for source in found["sources"]}["fresh"] == 1, "the newest of the catalogue"
    assert "new" in set(grown.similar(["new", item], k=60)["item"])
    grown.overlay({"new": {"category": "novelties"}}, frozenset({"new"}))
    assert "new" not in [row["item"] for row in grown.answer(user, None, 60, True)["items"]]
    assert "new" not in set(grown.similar([item], k=60)["item"])
    with pytest.raises(DataError, match="No item passes"):
        grown.answer(user, None, 5, filter='category == "novelties"')
    grown.overlay({}, frozenset())
    assert "new" in [row["item"] for row in grown.answer(user, None, 60)["items"]]


def test_a_withdrawn_item_is_gone_from_likenesses_of_a_funnel_as_it_was_built(built):
    funnel = built()
    item = funnel.item_ids.ids[0]
    near = funnel.similar([item], k=1)["item"][0]
    funnel.overlay({}, frozenset({near}))
    assert near not in set(funnel.similar([item], k=60)["item"])


def test_a_source_through_an_index_takes_it_in(data, tmp_path):
    settings = {"vectors": ["text"], "cold": "content", "epochs": 2, "dim": 8}
    run = fit("bm3", data, split="temporal:rolling=true", settings=settings, out=tmp_path / "bm3", quiet=True).recommender
    index_of(run, kind="exact").save(tmp_path / "index")
    through = {"run": str(tmp_path / "bm3"), "index": str(tmp_path / "index"), "k": 60}
    file = {"funnel": "one", "data": str(data.path), "split": "temporal:rolling=true", "retrieve": [through, {"system": "popular", "k": 5}]}
    funnel = run_funnel(FunnelFile.of(file), tmp_path / "out")
    user = user_of(funnel)
    like = funnel.sources[0].recommender.given.vectors["text"][0].numpy()
    grown = funnel.with_items(pl.DataFrame({"item": ["new"]}), {"text": like[None]})
    rows = grown.answer(user, None, 80)["items"]
    assert next(row for row in rows if row["item"] == "new")["sources"][0]["name"] == "bm3"
    assert "new" not in {row["item"] for row in grown.answer(user, ["new"], 80)["items"]}


def test_refusals(built):
    funnel = built()
    with pytest.raises(SettingError, match='read no vectors "sound"'):
        funnel.with_items(pl.DataFrame({"item": ["a"]}), {"sound": np.ones((1, 3))})
    with pytest.raises(DataError, match="not in the catalogue yet"):
        funnel.with_items(pl.DataFrame({"item": [funnel.item_ids.ids[0]]}), {"text": np.ones((1, 16))})
    alone = built(retrieve=[{"system": "item-knn", "k": 20}])
    assert alone.content == {}
    with pytest.raises(SettingError, match="such as content-knn"):
        alone.with_items(pl.DataFrame({"item": ["a"]}), {})


def test_over_http(built, tmp_path):
    funnel = built({"system": "logistic"})
    user = user_of(funnel)
    _, like = liked(funnel, user)
    store = open_store(tmp_path / "store.sqlite")
    with TestClient(create_app(funnel, store=store)) as client:
        told = client.post("/items", json={"items": [{"item": "new", "category": "novelties"}], "vectors": {"new": {"text": like.tolist()}}}).json()
        assert (told["changed"], told["unknown_to_model"]) == (1, 0)

        def asked(**more):
            return [row["item"] for row in client.post("/recommend", json={"user": user, "k": 40, **more}).json()["items"]]

        assert "new" in asked() and asked(filter='category == "novelties"') == ["new"]
        client.post("/events", json={"user": user, "item": "new"})
        assert "new" not in asked() and "new" in asked(include_seen=True)
        client.delete("/items/new")
        assert "new" not in asked(include_seen=True)
    store.close()
