"""A whole funnel that answers: shapes, filters, day zero, lateness, pins, chances, and what it says of itself."""

import threading

import numpy as np
import polars as pl
import pytest
import torch

from vitrail.errors import DataError, SettingError
from vitrail.funnel.build import layout
from vitrail.funnel.explain import explain
from vitrail.funnel.file import FunnelFile
from vitrail.funnel.funnel import Funnel
from vitrail.funnel.sources import SystemSource
from vitrail.funnel.stages import Ranking
from vitrail.systems.policy import find_policy
from vitrail.testing import SIDE, checkerboard
from vitrail.train.fit import fit


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    data = checkerboard(tmp_path_factory.mktemp("data") / "board")
    return {name: fit(name, data, split="leave-last-out", quiet=True).recommender for name in ("item-knn", "popular", "ease")}


class Backwards:
    """A ranker that turns retrieval round."""

    gate = None

    def eval(self):
        return self

    def score(self, histories, candidates, now=None):
        if self.gate is not None:
            self.gate.wait(10)
        return torch.arange(candidates.shape[1]).float().expand(candidates.shape) / 100


@pytest.fixture
def make(fitted):
    def made(systems=("item-knn", "popular"), ranker=None, **keys):
        file = FunnelFile.of({"funnel": "board", "retrieve": [{"system": name, "k": 12} for name in systems], **keys})
        base = fitted[systems[0]]
        sources = [SystemSource(name, fitted[name], base._ties) for name in systems]
        policy = None
        if file.explore is not None:
            cls = find_policy(file.explore.policy)
            policy = cls(cls.Config.of(file.explore.settings))
        vectors = np.eye(2, dtype=np.float32)[np.array([colour == "white" for colour in base.items["colour"]]).astype(int)]
        ranking = None if ranker is None else Ranking(ranker, budget_ms=keys.get("rank", {}).get("budget_ms"))
        return Funnel(file, sources, base, ranking, layout(file, base, vectors), policy, dict(base.info), seed=0)

    return made


def test_the_columns_of_a_recommender(make, fitted):
    table, plain = (one.recommend(users=["u1", "nobody"], k=3) for one in (make(), fitted["item-knn"]))
    assert table.columns == plain.columns and table.schema == plain.schema
    assert table["rank"].to_list() == [1, 2, 3] * 2 and table["fallback"].to_list() == [None] * 3 + ["popular"] * 3
    assert {source["name"] for source in table["sources"][0]} <= {"item-knn", "popular"}
    assert make().recommend(users=[], k=3).height == 0


def test_one_source_alone_is_that_source(make, fitted):
    found = make(("item-knn",)).recommend(users=["u1", "u5"], k=4)
    assert found["item"].to_list() == fitted["item-knn"].recommend(users=["u1", "u5"], k=4)["item"].to_list()


def test_answer_is_a_row_of_recommend(make):
    funnel = make()
    answer = funnel.answer("u1", None, 4)
    assert [row["item"] for row in answer["items"]] == funnel.recommend(users=["u1"], k=4)["item"].to_list()
    assert set(answer) == {"user", "fallback", "degraded", "milliseconds", "items"} and set(answer["milliseconds"]) == {"retrieve", "rank", "arrange"}
    assert set(answer["items"][0]) == {"item", "rank", "score", "sources", "why"} and answer["degraded"] is None


def test_seen_filters_and_histories(make):
    funnel = make()
    seen = set(funnel.item_ids.decode(funnel.known.histories(funnel.user_ids.encode(["u1"])).items.numpy()))
    assert not seen & set(funnel.recommend(users=["u1"], k=SIDE)["item"])
    assert seen & {row["item"] for row in funnel.answer("u1", None, SIDE, include_seen=True)["items"]}
    white = funnel.recommend(users=["u1"], k=20, filter='colour == "white"')
    assert all(int(item[2:]) % 2 == 1 for item in white["item"])
    black = make(filter={"condition": 'colour == "black"'})
    assert all(int(row["item"][2:]) % 2 == 0 for row in black.answer("u0", None, 20)["items"])
    with pytest.raises(DataError, match="together"):
        black.answer("u0", None, 5, filter='colour == "white"')
    given = funnel.answer(None, ["i 0", "i 2", "i 4", "no such item"], 3)
    assert given["fallback"] is None and not {"i 0", "i 2", "i 4"} & {row["item"] for row in given["items"]}


def test_a_user_and_what_happened_since(make):
    funnel = make()
    first = funnel.answer("u1", None, 5)["items"][0]["item"]
    again = funnel.answer("u1", [first, "unknown"], 5)
    assert first not in {row["item"] for row in again["items"]} and again["user"] == "u1"


def test_day_zero_gets_what_is_for_everybody(make, fitted):
    for ask in ({"user": "nobody", "history": None}, {"user": None, "history": []}):
        answer = make().answer(k=3, **ask)
        assert answer["fallback"] == "popular" and {s["name"] for row in answer["items"] for s in row["sources"]} == {"popular"}
    bare = make(("item-knn", "ease")).answer("nobody", None, 3)  # no source for everybody: the popular items stand in
    assert bare["fallback"] == "popular" and bare["items"][0]["sources"] == [{"name": "popular items", "rank": 1, "score": bare["items"][0]["score"]}]
    assert [row["item"] for row in bare["items"]] == fitted["ease"].recommend(users=["nobody"], k=3)["item"].to_list()


def test_a_ranker_orders_and_a_late_one_does_not(make):
    ranker = Backwards()
    funnel = make(ranker=ranker, rank={"system": "ease", "budget_ms": 10_000.0})
    plain = make().recommend(users=["u1"], k=24, include_seen=True)["item"].to_list()
    assert funnel.recommend(users=["u1"], k=24, include_seen=True)["item"].to_list() == plain[::-1]
    assert funnel.answer("u1", None, 3)["degraded"] is None
    ranker.gate = threading.Event()
    late = funnel.answer("u1", None, 3, budget_ms=1.0)
    assert late["degraded"] == "rank" and [row["item"] for row in late["items"]] == make().recommend(users=["u1"], k=3)["item"].to_list()
    ranker.gate.set()


def test_a_budget_that_is_spent_leaves_none_for_the_ranker(make):
    funnel = make(ranker=Backwards(), rank={"system": "ease"}, budget_ms=1e-6)
    ranker = funnel.ranking.model
    ranker.gate = threading.Event()
    assert funnel.answer("u1", None, 3)["degraded"] == "rank"
    ranker.gate.set()


def test_slates_and_rules_shape_the_page(make):
    funnel = make(arrange={"system": "mmr", "settings": {"weight": 0.1}})
    colours = [int(row["item"][2:]) % 2 for row in funnel.answer("u1", None, 4, include_seen=True)["items"]]
    assert set(colours[:2]) == {0, 1}
    rules = {"pin": [{"item": "i 7", "position": 2}], "caps": {"colour": 2}}
    items = make(arrange={"rules": rules}).answer("u0", None, 4, include_seen=True)["items"]
    assert items[1]["item"] == "i 7" and items[1]["sources"][0]["name"] == "pin"
    assert sum(int(row["item"][2:]) % 2 for row in items) == 2


def test_exploration_logs_its_chances(make):
    funnel = make(explore={"policy": "epsilon-greedy", "settings": {"epsilon": 1.0}, "depth": 12}, arrange={"rules": {"exclude": ['item == "i 3"']}})
    chances, shown = [], set()
    for _ in range(40):
        items = funnel.answer("u1", None, 3, include_seen=True)["items"]
        chances += [row["propensity"] for row in items]
        shown |= {row["item"] for row in items}
    assert len(shown) > 6 and "i 3" not in shown and all(0 < chance <= 1 for chance in chances)
    assert "explore" in funnel.answer("u1", None, 3)["milliseconds"]


def test_why(make):
    row = make(ranker=Backwards(), rank={"system": "ease"}).answer("u1", None, 3, explain=True)["items"][0]
    assert row["why"]["stages"]["page"] == 1 and row["why"]["stages"]["rank"] == 1 and row["why"]["stages"]["fuse"] > 1
    assert len(row["why"]["history"]) == 3 and set(row["why"]["history"][0]) == {"item", "similarity"}
    assert "history" not in make(("popular",)).answer("u1", None, 3, explain=True)["items"][0]["why"]


def test_similar_comes_from_a_source_that_can(make, fitted):
    assert make(("popular", "item-knn")).similar(["i 1"], 3).equals(fitted["item-knn"].similar(["i 1"], 3))
    with pytest.raises(SettingError, match="No source"):
        make(("popular",)).similar(["i 1"])


def test_withdrawn_items_and_known_events(make):
    funnel = make()
    first = funnel.answer("u1", None, 1)["items"][0]["item"]
    funnel.overlay({}, {first, "nothing of ours"})
    assert first not in {row["item"] for row in funnel.answer("u1", None, SIDE)["items"]}
    funnel.overlay({}, set())
    assert funnel.answer("u1", None, 1)["items"][0]["item"] == first
    known = funnel.known_events("u1")
    assert len(known) == len(funnel.known.histories(funnel.user_ids.encode(["u1"])).items) and all(item in set(funnel.item_ids.ids) for item, _ in known)


def test_changed_attributes_are_seen_where_the_catalogue_takes_them(make, monkeypatch):
    funnel = make()
    told = []
    changed = funnel.items.with_columns(pl.lit("green").alias("colour"))

    def overlay(changes, withdrawn):
        told.append((changes, withdrawn))
        funnel.base.items = changed

    kept = funnel.base.items
    monkeypatch.setattr(funnel.base, "overlay", overlay, raising=False)
    try:
        funnel.overlay({"i 1": {"colour": "green"}}, set())
        assert told == [({"i 1": {"colour": "green"}}, frozenset())] and funnel.items is changed
        assert funnel.answer("u1", None, 3, filter='colour == "green"')["items"]
    finally:
        funnel.base.items = kept


def test_exploration_of_nothing(make):
    bare = make(("item-knn",), explore={"policy": "epsilon-greedy"}, arrange={"rules": {"exclude": ["item != ''"]}})
    assert bare.answer("u1", None, 3)["items"] == []


def test_asking_wrongly_is_a_sentence(make):
    funnel = make()
    for ask in ({"users": ["u1"], "histories": [["i 1"]]}, {}, {"users": "u1"}, {"users": ["u1"], "k": 0}):
        with pytest.raises(SettingError):
            funnel.recommend(**ask)
    assert "board" in repr(funnel)


def test_explain_says_what_each_stage_did(make):
    rules = {"pin": [{"item": "i 7", "position": 1}]}
    funnel = make(ranker=Backwards(), rank={"system": "ease"}, arrange={"system": "mmr", "rules": rules})
    told = explain(funnel, "u1", k=4)
    stages = {stage["stage"]: stage for stage in told["stages"]}
    assert list(stages) == ["filter", "retrieve item-knn", "retrieve popular", "fuse", "rank", "arrange mmr", "page"]
    assert stages["fuse"]["count"] <= stages["retrieve item-knn"]["count"] + stages["retrieve popular"]["count"]
    assert stages["page"]["items"][0] == "i 7" and len(stages["rank"]["added"]) == len(stages["rank"]["dropped"])
    assert told["known"] > 0 and told["fallback"] is None
    assert explain(funnel, history=[], k=2)["fallback"] == "popular"
    with pytest.raises(SettingError, match="one of the two"):
        explain(funnel)


def test_a_request_turns_what_the_file_has(make):
    funnel = make(arrange={"system": "mmr", "settings": {"weight": 0.8}}, explore={"policy": "epsilon-greedy", "settings": {"epsilon": 0.0}, "depth": 12})
    assert funnel.dials.diversity == pytest.approx(0.2) and funnel.dials.explore == 0.0
    plain = funnel.answer("u1", None, 4, include_seen=True)["items"]
    assert funnel.answer("u1", None, 4, include_seen=True, diversity=0.2)["items"] == plain
    spread = make(arrange={"system": "mmr", "settings": {"weight": 0.0}}).answer("u1", None, 4, include_seen=True)["items"]
    turned = funnel.answer("u1", None, 4, include_seen=True, diversity=1.0)["items"]
    assert [row["item"] for row in turned] == [row["item"] for row in spread]
    assert all(row["propensity"] < 1 for row in funnel.answer("u1", None, 4, include_seen=True, explore=1.0)["items"])
    bare = make()
    assert bare.dials.diversity is None and bare.dials.explore is None
    with pytest.raises(SettingError, match="has no slate"):
        bare.answer("u1", None, 4, diversity=0.5)
    with pytest.raises(SettingError, match="leaves nothing to chance"):
        bare.answer("u1", None, 4, explore=0.5)


def test_an_explained_answer_has_its_trace(make):
    answer = make().answer("u1", None, 3, explain=True)
    assert answer["trace"]["stages"] == explain(make(), "u1", k=3)["stages"] and answer["trace"]["known"] > 0
    assert "trace" not in make().answer("u1", None, 3)
