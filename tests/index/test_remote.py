"""The Milvus engine against the exact index, on the embedded form of the real thing."""

import numpy as np
import pytest

from vitrail.errors import ArtifactError, ResourceError, SettingError
from vitrail.index.base import Filter, Index
from vitrail.index.exact import ExactIndex
from vitrail.index.remote import MilvusIndex, literal, one_of
from vitrail.index.store import open_index

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

ODD = ['say "hi"', "back\\slash", "it's", '\\"', '"] or id != "', "new\nline", "tab\t", "{brace}", "ünï", "日本", "%_", " ", "\\"]


@pytest.fixture(scope="module")
def both(tmp_path_factory, cloud, table):
    ids = [*ODD, *(f"i{number}" for number in range(200))]
    X, attributes = cloud(len(ids), 8), table(ids)
    remote = MilvusIndex(str(tmp_path_factory.mktemp("milvus") / "lite.db"), "things", 8, engine="FLAT", attributes=attributes, source="abc")
    remote.add(ids, X)
    yield X, remote, ExactIndex(ids, X, attributes=attributes)
    remote.close()


def same(a, b):
    assert a.lists() == b.lists()
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5)


def test_it_finds_what_the_exact_index_finds(both):
    X, remote, exact = both
    assert isinstance(remote, Index) and len(remote) == len(exact) and "things" in repr(remote)
    same(remote.search(X[:110], 7), exact.search(X[:110], 7))


def test_filters_and_ids_that_look_like_expressions(both):
    X, remote, exact = both
    for name in ODD:
        assert remote.search(X[:1], 5, Filter(ids=[name])).lists() == [[name]]
    for ask in (Filter(ids=ODD), Filter(where='price < 40 and colour == "red"'), Filter(where="price < 40", ids=ODD[:5]), Filter(ids=[]), Filter()):
        same(remote.search(X[:5], 30, ask), exact.search(X[:5], 30, ask))
    with pytest.raises(SettingError, match="filter by ids or by a condition"):
        remote.search(X[:1], 3, Filter(mask=np.ones(213, dtype=bool)))
    with pytest.raises(SettingError, match="16,384"):
        remote.search(X[:1], 20_000)
    assert one_of(['a"b', "c\\"]) == r'id in ["a\"b", "c\\"]' and literal("é") == '"é"'


def test_changes_and_a_folder_that_remembers(both, tmp_path, cloud):
    X, remote, exact = both
    for each in (remote, exact):
        each.add(["new", "newer"], 3 * X[:2])
        each.replace([ODD[4], "i7"], X[20:22])
        each.remove([ODD[0], "i9"])
        each.add([], np.empty((0, 8)))
    same(remote.search(X[:9], 12), exact.search(X[:9], 12))
    remote.save(tmp_path / "where")
    told = open_index(tmp_path / "where")
    assert type(told) is MilvusIndex and told.stats() == remote.stats() and told.stats()["count"] == 213
    same(told.search(X[:9], 12, Filter(where="price < 50")), exact.search(X[:9], 12, Filter(where="price < 50")))
    told.close()
    with pytest.raises(ArtifactError, match="kind milvus"):
        ExactIndex.load(tmp_path / "where")
    assert MilvusIndex.load(tmp_path / "where").dim == 8


def test_equal_scores_come_in_the_order_of_all_of_vitrail(tmp_path):
    ids, X = [f"i{number}" for number in range(30)], np.ones((30, 4), dtype=np.float32)
    remote = MilvusIndex(str(tmp_path / "ties.db"), "ties", 4, metric="cosine", engine="FLAT")
    assert remote.search(X[:1], 2).lists() == [[]]
    remote.add(ids, X)
    assert remote.search(X[:2], 30).lists() == ExactIndex(ids, X).search(X[:2], 30).lists()
    remote.close()


def test_wrong_input_is_a_sentence(both, tmp_path):
    X, remote, _ = both
    for call, error, words in (
        (lambda: remote.add(["i1"], X[:1]), SettingError, "use replace"),
        (lambda: remote.add(["x", "x"], X[:2]), SettingError, "twice"),
        (lambda: remote.add(["x"], X[:2]), SettingError, "1 ids and 2 vectors"),
        (lambda: remote.add(["x" * 2000], X[:1]), SettingError, "1,024 bytes"),
        (lambda: remote.remove(["nothing"]), SettingError, "add it first"),
        (lambda: MilvusIndex(str(tmp_path / "a.db"), 'x"; drop', 8), SettingError, "no name of a collection"),
        (lambda: MilvusIndex(remote.uri, "things", 9), SettingError, "width 8, and 9"),
        (lambda: MilvusIndex("http://127.0.0.1:9", "things", 8), ResourceError, "does not answer"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_without_the_client_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pymilvus", None)
    with pytest.raises(ResourceError, match=r"vitrail\[server\]"):
        MilvusIndex("http://127.0.0.1:9", "things", 8)
