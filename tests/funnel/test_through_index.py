"""Answers through an index are those without one: seen items, filters, strangers, withdrawn items, other fits."""

import numpy as np
import pytest

from vitrail.errors import DataError, SettingError
from vitrail.funnel.recommender import load
from vitrail.funnel.through_index import index_of
from vitrail.index.ann import AnnIndex
from vitrail.index.exact import ExactIndex
from vitrail.index.store import open_index
from vitrail.testing import SIDE, checkerboard, quick
from vitrail.train.fit import fit


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return checkerboard(tmp_path_factory.mktemp("data") / "board")


@pytest.fixture(scope="module", params=["bpr-mf", "sasrec"])
def fitted(request, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    fit(request.param, data, split="leave-last-out", settings=quick(request.param, epochs=3), quiet=True).recommender.save(folder / "model")
    return load(folder / "model")


@pytest.fixture(scope="module", params=["exact", "ivf"])
def through(fitted, request):
    return fitted.with_index(index_of(fitted, kind=request.param, recall=1.0, k=SIDE))


def test_tables_and_answers_are_the_same(fitted, through):
    users = [f"u{number}" for number in range(SIDE)]
    asked = [{"users": users, "k": 4}, {"users": users, "k": 9, "include_seen": True}, {"users": ["u1", "nobody", "u2"], "k": 5, "filter": 'colour == "white"'}]
    if fitted.model.can.new_users:
        asked.append({"histories": [["i 1", "i 3"], [], ["i 2"]], "k": 6})
    asked.append({"users": [], "k": 3})
    asked.append({"users": users[:3], "k": 1000})
    for ask in asked:
        plain, found = fitted.recommend(**ask), through.recommend(**ask)
        assert found.drop("score", "sources").equals(plain.drop("score", "sources"))
        np.testing.assert_allclose(found["score"].to_numpy(), plain["score"].to_numpy(), rtol=1e-4, atol=1e-5)
    if through._through.index.kind == "exact":
        assert through.recommend(users=users, k=5).equals(fitted.recommend(users=users, k=5)), "bit for bit where nobody is a stranger"
    one, other = fitted.answer("u1", None, 3, filter='colour == "white"'), through.answer("u1", None, 3, filter='colour == "white"')
    assert [row["item"] for row in one["items"]] == [row["item"] for row in other["items"]]


def test_wrong_questions_are_refused_alike(through):
    with pytest.raises(DataError, match="No item passes"):
        through.recommend(users=["u1"], filter='colour == "green"')
    with pytest.raises(SettingError, match="at least 1"):
        through.recommend(users=["u1"], k=0)


def test_what_the_index_lost_is_not_recommended_and_what_it_gained_is_unknown(fitted):
    index = index_of(fitted, kind="exact")
    top = fitted.recommend(users=["u1"], k=3)["item"].to_list()
    index.remove(top[:1])
    index.add(["stranger"], 100 * np.ones((1, index.dim)))
    through = fitted.with_index(index)
    assert through.recommend(users=["u1"], k=2)["item"].to_list() == top[1:]
    first = through.recommend(users=["u1"], k=2, filter='colour == "white"')["item"].to_list()
    index.remove(first[:1])
    assert first[0] not in through.recommend(users=["u1"], k=2, filter='colour == "white"')["item"].to_list(), "masks follow the index"


def test_an_index_of_something_else_is_refused(fitted, data, tmp_path):
    vectors = fitted.model.item_vectors()
    ids = fitted.item_ids.ids.to_list()
    with pytest.raises(SettingError, match="another fit"):
        fitted.with_index(ExactIndex(ids, vectors, source="something else"))
    with pytest.raises(SettingError, match="needs ip over"):
        fitted.with_index(ExactIndex(ids, vectors, metric="cosine"))
    knn = fit("item-knn", data, split="leave-last-out", quiet=True).recommender
    with pytest.raises(SettingError, match="no inner products"):
        knn.with_index(ExactIndex(ids, vectors))
    with pytest.raises(SettingError, match="nothing to index"):
        index_of(knn)
    assert knn.model.query_vectors(knn._questions(["u1"], None)) is None
    assert fit("popular", data, split="leave-last-out", quiet=True).recommender.model.can.dense is False


def test_an_index_travels_by_disk(fitted, tmp_path):
    index = index_of(fitted, kind="ivf", recall=1.0, k=SIDE)
    assert type(index) is AnnIndex and index.stats()["source"] and "colour" in index.stats()["attributes"]
    index.save(tmp_path / "index")
    again = fitted.with_index(open_index(tmp_path / "index"))
    assert again.recommend(users=["u1"], k=4)["item"].to_list() == fitted.recommend(users=["u1"], k=4)["item"].to_list()


def test_a_remote_engine_gets_ids_for_a_condition(fitted):
    class Far:
        """Anything with the protocol that is no index on this machine."""

        metric, kind = "ip", "far"

        def __init__(self, index):
            self.index, self.dim, self.asked = index, index.dim, None

        def __len__(self):
            return len(self.index)

        def stats(self):
            return {}

        def search(self, queries, k, filter):
            self.asked = filter
            return self.index.search(queries, k, filter)

    far = Far(ExactIndex(fitted.item_ids.ids.to_list(), fitted.model.item_vectors()))
    found = fitted.with_index(far).recommend(users=["u1"], k=3, filter='colour == "white"')
    assert found["item"].equals(fitted.recommend(users=["u1"], k=3, filter='colour == "white"')["item"])
    assert len(far.asked.ids) == SIDE // 2


