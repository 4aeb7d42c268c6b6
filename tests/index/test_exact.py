"""The exact index against a dictionary and a sort: filters, changes, metrics, wrong input."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.errors import DataError, SettingError
from vitrail.index.base import Filter, Index
from vitrail.index.exact import ExactIndex

SHARES = [1.0, 0.5, 0.1, 0.01, 0.001, 0.0]


def ids_of(n):
    return [f"i{number}" for number in range(n)]


@pytest.fixture(scope="module")
def some(cloud, table):
    X = cloud(1000, 8)
    return X, ExactIndex(ids_of(1000), X, attributes=table(ids_of(1000)))


def test_it_is_an_index(some):
    assert isinstance(some[1], Index) and len(some[1]) == 1000 and "exact" in repr(some[1])


@given(st.sampled_from(SHARES), st.integers(0, 2**31), st.sampled_from(["ip", "cosine"]), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_filters_equal_brute_force_at_every_selectivity(plain, cloud, share, seed, metric, k):
    rng = np.random.default_rng(seed)
    n = 2000
    X, Q = cloud(n, 8, seed), cloud(3, 8, seed + 1)
    mask, ids = rng.random(n) < share, ids_of(n)
    allowed = {name for name, keep in zip(ids, mask, strict=True) if keep}
    index, reference = ExactIndex(ids, X, metric=metric), plain(ids, X, metric)
    for asked in (Filter(mask=mask), Filter(ids=[*allowed, "stranger"])):
        hits = index.search(Q, k, asked)
        for row, q in enumerate(Q):
            names, scores = reference.search(q, k, allowed)
            assert hits.lists()[row] == names
            np.testing.assert_allclose(hits.scores[row, : len(names)], scores, rtol=1e-4, atol=1e-4)
            assert (hits.scores[row, len(names) :] == -np.inf).all() and all(name is None for name in hits.ids[row, len(names) :])


def test_ties_are_broken_by_the_hash_of_the_id_also_at_the_cut(plain):
    X = np.ones((500, 4), dtype=np.float32)
    found = ExactIndex(ids_of(500), X).search(X[0], 7).lists()[0]
    assert found == plain(ids_of(500), X).search(X[0], 7)[0]
    order = np.random.default_rng(0).permutation(500)
    assert ExactIndex([f"i{number}" for number in order], X).search(X[0], 7).lists()[0] == found


def test_a_condition_is_tested_on_the_attributes(some):
    X, index = some
    hits = index.search(X[:5], 10, Filter(where='price < 20 and colour == "red"'))
    assert all(set(row) == {f"i{number}" for number in range(1, 20, 2)} for row in hits.lists())
    both = index.search(X[:1], 10, Filter(where="price < 20", ids=["i3", "i400"], mask=np.arange(1000) < 500))
    assert both.lists() == [["i3"]]
    with pytest.raises(SettingError, match='Did you mean "price"'):
        index.search(X[:1], 3, Filter(where="prise < 3"))
    with pytest.raises(SettingError, match="holds no attributes"):
        ExactIndex(["a"], X[:1]).search(X[:1], 3, Filter(where="price < 3"))


class Steps:
    """A random walk of changes made to an index and to the reference alike."""

    def __init__(self, index, reference, dim, seed):
        self.index, self.reference, self.dim, self.rng, self.made = index, reference, dim, np.random.default_rng(seed), 10**6

    def go(self, what, count):
        there = list(self.reference.vectors)
        some = list(self.rng.choice(there, min(count, len(there)), replace=False)) if there else []
        some = [str(name) for name in some]
        vectors = self.rng.standard_normal((count, self.dim)).astype(np.float32)
        if what == "add":
            fresh = [f"n{self.made + number}" for number in range(count)]
            self.made += count
            self.index.add(fresh, vectors)
            self.reference.vectors.update(zip(fresh, vectors, strict=True))
        elif what == "remove":
            self.index.remove(some)
            for name in some:
                del self.reference.vectors[name]
        else:
            self.index.replace(some, vectors[: len(some)])
            self.reference.vectors.update(zip(some, vectors, strict=False))


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "replace"]), st.integers(0, 60)), max_size=8), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_a_walk_of_changes_equals_a_dictionary(plain, cloud, steps, seed):
    X = cloud(100, 4, seed)
    index, reference = ExactIndex(ids_of(100), X), plain(ids_of(100), X)
    walk = Steps(index, reference, 4, seed)
    for what, count in steps:
        walk.go(what, count)
        assert len(index) == len(reference.vectors) and set(index.ids) == set(reference.vectors)
        q = walk.rng.standard_normal(4).astype(np.float32)
        assert index.search(q, 12).lists()[0] == reference.search(q, 12)[0]
        mask = walk.rng.random(len(index)) < 0.5
        allowed = {name for name, keep in zip(index.ids, mask, strict=True) if keep}
        assert index.search(q, 12, Filter(mask=mask)).lists()[0] == reference.search(q, 12, allowed)[0]
    assert index.rows.dead <= 0.2 * max(index.rows.n, 1)


def test_the_order_of_ids_outlives_replacing_and_compaction(cloud):
    X = cloud(10, 4)
    index = ExactIndex(ids_of(10), X)
    index.replace(["i2"], X[5:6])
    assert index.ids == ids_of(10)
    np.testing.assert_allclose(index.vectors(["i2"])[0], X[5])
    index.remove(["i0"])
    index.compact()
    assert index.ids == ids_of(10)[1:] and index.stats()["dead"] == 0
    assert index.vectors().shape == (9, 4)


def test_attributes_follow_their_items(cloud, table):
    X = cloud(4, 4)
    index = ExactIndex(ids_of(4), X, attributes=table(ids_of(4)))
    index.add(["new", "bare"], X[:2], pl.DataFrame({"item": ["new"], "price": [1.5]}))
    assert set(index.search(X[0], 9, Filter(where="price >= 1 and price < 3")).lists()[0]) == {"i1", "i2", "new"}
    index.replace(["i1"], X[:1], pl.DataFrame({"item": ["i1"], "price": [99.0]}))
    assert set(index.search(X[0], 9, Filter(where="price >= 1 and price < 3")).lists()[0]) == {"i2", "new"}
    index.remove(["i2", "i3"])
    assert set(index.attributes["item"]) == {"i0", "new", "i1"}, "compaction forgets the attributes of what is gone"
    with pytest.raises(DataError, match="same types"):
        index.add(["x"], X[:1], pl.DataFrame({"item": ["x"], "price": [["a list"]]}))
    assert "x" not in index.ids
    with pytest.raises(DataError, match='no column "item"'):
        ExactIndex(["a"], X[:1], attributes=pl.DataFrame({"id": ["a"]}))


def test_half_precision_takes_half_the_place_and_scores_what_it_keeps(cloud):
    X = cloud(200, 8)
    index = ExactIndex(ids_of(200), X, dtype="float16")
    assert index._vectors.dtype == np.float16
    rounded = ExactIndex(ids_of(200), X.astype(np.float16).astype(np.float32))
    assert index.search(X[:9], 5).lists() == rounded.search(X[:9], 5).lists()


def test_cosine_knows_no_length_and_zero_is_near_to_nothing(cloud):
    X = cloud(50, 8)
    X[7] = 0
    index = ExactIndex(ids_of(50), X, metric="cosine")
    scaled = ExactIndex(ids_of(50), X * np.linspace(0.1, 9, 50, dtype=np.float32)[:, None], metric="cosine")
    hits = index.search(X[3] * 5, 50)
    assert hits.lists() == scaled.search(X[3], 50).lists()
    assert hits.scores[0, 0] == pytest.approx(1) and hits.scores[0][hits.ids[0] == "i7"] == 0


def test_tensors_and_single_vectors_are_taken(some):
    X, index = some
    assert index.search(torch.from_numpy(X[3]), 4).lists() == index.search(X[3:4].tolist(), 4).lists()
    assert index.search(X[:0], 4).ids.shape == (0, 4)


def test_an_empty_index_answers_nothing_and_grows():
    index = ExactIndex([], np.empty((0, 3), dtype=np.float32))
    assert index.search(np.ones(3), 2).lists() == [[]]
    index.add([], np.empty((0, 3)))
    index.add(["a"], np.ones((1, 3)))
    assert index.search(np.ones(3), 2).lists() == [["a"]]
    index.remove(["a"])
    assert len(index) == 0 and index.search(np.ones(3), 2, Filter()).lists() == [[]]


def test_wrong_input_is_a_sentence(some):
    X, index = some
    for call, error, words in (
        (lambda: index.search(X[:1, :5]), SettingError, r"\(any, 8\)"),
        (lambda: index.search(X[:1], 0), SettingError, "at least 1"),
        (lambda: index.search(np.full(8, np.nan)), DataError, "NaN"),
        (lambda: index.search(X[:1], 3, Filter(mask=np.ones(3, dtype=bool))), SettingError, "1,000 items"),
        (lambda: index.add(["a", "b"], X[:1]), SettingError, "2 ids and 1 vectors"),
        (lambda: ExactIndex(["a"], X[:2]), SettingError, "1 ids and 2 vectors"),
        (lambda: ExactIndex(["a"], np.zeros((1, 2, 3))), SettingError, "two dimensions"),
        (lambda: ExactIndex(["a"], X[:1], metric="l2"), SettingError, "ip .*or cosine"),
        (lambda: index.remove(["nothing"]), SettingError, "add it first"),
    ):
        with pytest.raises(error, match=words):
            call()
    large = np.full((1, 8), 3e38, dtype=np.float32)  # finite, though the sum is not
    assert index.search(large * np.where(np.arange(8) == 0, 1, 0), 1).ids.shape == (1, 1)
