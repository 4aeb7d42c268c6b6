"""The builder: the kind by size and vectors, the effort by a recall, measured on queries it did not see."""

import numpy as np
import pytest

from vitrail.errors import SettingError
from vitrail.index import build
from vitrail.index.ann import AnnIndex, recall
from vitrail.index.build import build_index, least
from vitrail.index.exact import ExactIndex


def ids_of(n):
    return [f"i{number}" for number in range(n)]


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "ivf-sq8", "ivf-rabitq"])
def test_the_recall_asked_for_is_reached_and_measured(kind, cloud):
    X, said = cloud(1200, 16), []
    index = build_index(ids_of(1200), X, kind=kind, recall=0.9, metric="cosine", say=said.append)
    told = index.stats()["recall"]
    assert told["measured"] >= 0.88 and told["queries"] == (24 if kind == "hnsw" else 500) and told["target"] == 0.9 and told["k"] == 10
    Q = X[::6] + 0.1 * cloud(200, 16, 1)
    assert recall(index.search(Q, 10).scores, ExactIndex(ids_of(1200), X, metric="cosine").search(Q, 10).scores) >= 0.85
    assert "recall@10" in said[0] and kind in said[0]


def test_a_graph_is_measured_as_by_queries_that_are_not_of_it():
    """Where its own vectors ask, the links made for them lead to their answers, and too little effort seems enough."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6200, 48)).astype(np.float32)
    index = build_index(ids_of(6000), X[:6000], kind="hnsw", recall=0.9)
    found = recall(index.search(X[6000:], 10).scores, ExactIndex(ids_of(6000), X[:6000]).search(X[6000:], 10).scores)
    assert found >= 0.9
    assert 0.85 < index.plan.measured <= found + 0.02
    before = index.search(X[:50], 10).lists()
    with index.aside(np.arange(50)[index.lowest[:50]]):
        seen = {name for row in index.search(X[:50], 10).lists() for name in row}
        assert not seen & {f"i{n}" for n in np.arange(50)[index.lowest[:50]]}
    assert index.search(X[:50], 10).lists() == before


@pytest.mark.parametrize("n", [1, 2, 60])
def test_a_graph_of_few_items_is_built(n):
    index = build_index(ids_of(n), np.random.default_rng(0).standard_normal((n, 8)).astype(np.float32), kind="hnsw", recall=0.9)
    assert len(index.search(np.ones(8, dtype=np.float32), 10).lists()[0]) == min(n, 10)


def test_more_recall_costs_more_effort(cloud):
    X = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    efforts = [build_index(ids_of(3000), X, kind="ivf", recall=share, queries=cloud(300, 16)).plan.effort for share in (0.3, 0.8, 0.99)]
    assert efforts[0] < efforts[1] < efforts[2]


def test_auto_scores_all_of_a_small_catalogue_and_chooses_for_a_large_one(cloud, monkeypatch):
    X, said = cloud(3000, 8), []
    assert type(build_index(ids_of(3000), X, say=said.append)) is ExactIndex and "all 3,000 items" in said[0]
    monkeypatch.setattr(build, "SMALL", 100)
    monkeypatch.setattr(build.Asked, "exact_seconds", property(lambda self: 1.0, lambda self, value: None), raising=False)
    assert build_index(ids_of(3000), X).kind == "ivf", "ten times as fast as all: nothing else is tried"
    monkeypatch.setattr("vitrail.resources.free_memory", lambda: 1000)
    assert build_index(ids_of(3000), X).kind == "ivf-sq8"
    monkeypatch.setattr(build.Asked, "exact_seconds", property(lambda self: 0.0, lambda self, value: None), raising=False)
    said.clear()
    assert type(build_index(ids_of(500), X[:500], say=said.append)) is ExactIndex
    assert [line.split(":")[0] for line in said] == ["ivf-sq8", "hnsw", "exact"]


def test_a_kind_that_cannot_reach_the_recall_is_refused(cloud, monkeypatch):
    monkeypatch.setattr(AnnIndex, "ceiling", property(lambda self: 1))
    X = np.random.default_rng(0).standard_normal((2000, 32)).astype(np.float32)
    with pytest.raises(SettingError, match=r"The kind ivf finds 0\.\d+ of the 10 best at most"):
        build_index(ids_of(2000), X, kind="ivf", recall=0.99)


def test_wrong_settings_are_sentences_and_nothing_is_an_index(cloud):
    X = cloud(10, 4)
    bad = {"kind": ("tree", "no kind of index"), "recall": (1.5, "at most 1"), "k": (0, "at least 1"), "dtype": ("int8", "number type")}
    for name, (value, words) in bad.items():
        with pytest.raises(SettingError, match=words):
            build_index(ids_of(10), X, **{name: value})
    empty = build_index([], np.empty((0, 4), dtype=np.float32))
    assert len(empty) == 0 and empty.dim == 4
    assert len(build_index(ids_of(10), X, kind="ivf", recall=1.0).search(X[0], 20).lists()[0]) == 10


def test_the_least_good_number_is_found():
    for most in (1, 2, 7, 64, 100):
        for bar in range(1, most + 1):
            assert least(lambda n, bar=bar: n >= bar, most) == bar
