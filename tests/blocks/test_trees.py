"""Boosted trees as text and tensors."""

import sys

import numpy as np
import pytest
import torch

from vitrail.blocks import trees
from vitrail.errors import DataError, ResourceError

lightgbm = pytest.importorskip("lightgbm")


def world(n=600):
    """Two numbers with gaps and a category of 40 values; what happens depends on all three."""
    rng = np.random.default_rng(0)
    X = np.stack([rng.normal(size=n), rng.integers(0, 5, n), rng.integers(2, 42, n)], 1).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    z = np.nan_to_num(X[:, 0], nan=-1.0) + (np.nan_to_num(X[:, 2]) % 3 == 0) * 2 + np.nan_to_num(X[:, 1]) * 0.2
    return X, (z + rng.normal(size=n) > 1).astype(np.float32)


def grown(X, y, rounds=20, patience=0, valid=None, measure=None, **changed):
    params = {"objective": "binary", "num_leaves": 8, "min_data_in_leaf": 5, "learning_rate": 0.2, "seed": 1} | changed
    return trees.grow(params, rounds, patience, ["a b", "a:b", "c"], [2], (X, y, None, None), valid, measure)


def test_a_walk_equals_the_library():
    X, y = world()
    text = grown(X, y)
    asked = np.concatenate([X, [[np.nan] * 3], [[0, 0, 1], [1e9, -3, 500], [0, 2, -1]]]).astype(np.float32)
    wanted = lightgbm.Booster(model_str=text).predict(asked, raw_score=True)
    assert "cat_threshold" in text and wanted.std() > 0.5
    np.testing.assert_allclose(trees.Walk(text)(torch.from_numpy(asked)).numpy(), wanted, rtol=0, atol=1e-12)
    single = trees.Walk(grown(X, y, rounds=1, min_data_in_leaf=400))  # no split: one leaf
    assert single.depth == 1 and len(torch.unique(single(torch.from_numpy(asked)))) == 1
    assert trees.as_text(trees.as_buffer(text)) == text


def test_zero_may_mean_missing():
    X, y = world()
    text = grown(np.nan_to_num(X), y, zero_as_missing=True)
    asked = np.nan_to_num(X)
    np.testing.assert_allclose(trees.Walk(text)(torch.from_numpy(asked)).numpy(), lightgbm.Booster(model_str=text).predict(asked, raw_score=True), atol=1e-12)


def test_growth_stops_where_the_measure_does_and_is_the_same_again():
    X, y = world()
    seen = []

    def measure(scores):
        seen.append(len(seen))
        return -abs(len(seen) - 4)

    text = grown(X, y, rounds=50, patience=3, valid=(X, y, None, None), measure=measure)
    assert text.count("\nTree=") == 4 and len(seen) == 7
    assert text == grown(X, y, rounds=4) or text.split("end of trees")[0] == grown(X, y, rounds=4).split("end of trees")[0]


def test_names_and_groups():
    assert trees.plain_names(["a b", "a:b", "c"]) == ["a_b", "a_b_1", "c"]
    users, stops, when = np.array([1, 0, 1, 1, 0]), np.array([5, 2, 5, 5, 2]), np.array([9, 4, 9, 8, 4])
    order, sizes = trees.groups(users, stops, when, seed=0)
    assert sizes.tolist() == [2, 1, 2] and sorted(order[:2].tolist()) == [1, 4] and order[2] == 3 and sorted(order[3:].tolist()) == [0, 2]
    many = np.zeros(1000, dtype=np.int64)
    order, sizes = trees.groups(many, many, None, seed=0)
    assert sizes.tolist() == [1000] and (np.diff(order) < 0).any()  # drawn, not as they came
    with pytest.raises(DataError, match="use objective=binary"):
        trees.groups(np.zeros(10_001, dtype=np.int64), np.zeros(10_001, dtype=np.int64), None, seed=0)
    assert trees.groups(many[:4], np.array([1, 2, 1, 2]), None, seed=0)[1].tolist() == [2, 2]


def test_linear_leaves_are_no_walk():
    with pytest.raises(ValueError, match="linear leaves"):
        trees.Walk("\nTree=0\nis_linear=1\n")


def test_without_the_library_it_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ResourceError, match=r'pip install "vitrail\[gbdt\]"'):
        trees.library()


@pytest.mark.parametrize(("norm", "l2", "leaf"), [(False, 1.0, 0.251560), (False, 0.0, 3.71834), (True, 1.0, 0.285107)])
@pytest.mark.parametrize("shift", [0.0, 7.0])
def test_one_pair_of_lambdarank_by_hand(norm, l2, leaf, shift):
    """A success that starts at 0 under a failure that starts at 1: dN .36907, rho .73106; the leaves are plus and minus lambda / (h + l2), whatever is
    added to both starts."""
    X, y = np.array([[0.0], [1.0]]), np.array([1, 0])
    small = {"min_data_in_bin": 1, "feature_pre_filter": False, "verbosity": -1}
    data = lightgbm.Dataset(X, y, group=[2], init_score=np.array([0.0, 1.0]) + shift, params=small)
    told = {"objective": "lambdarank", "learning_rate": 1.0, "num_leaves": 2, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0.0, "verbosity": -1}
    booster = lightgbm.train(told | {"lambdarank_norm": norm, "lambda_l2": l2}, data, num_boost_round=1)
    np.testing.assert_allclose(booster.predict(X, raw_score=True), [leaf, -leaf], rtol=1e-4)
