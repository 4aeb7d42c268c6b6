"""Checks of the card base/ease."""

import numpy as np
import pytest
from scipy import sparse

from vitrail.errors import VitrailError
from vitrail.systems.collaborative import ease
from vitrail.systems.collaborative.ease import inverse

X = sparse.csr_array(np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]]))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(ease, "COLUMNS", 7)


def precision(X, l2):
    return np.concatenate([P for _, P in ease.precision(X, l2)], axis=1)


def weights(X, l2):
    P = precision(X, l2)
    B = -P / np.diag(P)
    np.fill_diagonal(B, 0)
    return B


def test_by_hand():
    np.testing.assert_allclose(precision(X, 1.0), [[0.5, -0.25, 0], [-0.25, 0.5, -0.25], [0, -0.25, 0.5]], atol=1e-12)
    B = weights(X, 1.0)
    np.testing.assert_allclose(B, [[0, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0]], atol=1e-12)
    np.testing.assert_allclose(X @ B, [[0.5, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 0.5]], atol=1e-12)


def test_two_items():
    two = sparse.csr_array(np.array([[1.0, 1], [1, 1], [1, 0], [0, 1]]))
    assert weights(two, 1.0)[0, 1] == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(50, 12), (10, 30)], ids=["primal", "dual"])
def test_every_column_is_a_ridge_regression(shape):
    Y = sparse.csr_array((np.random.default_rng(0).random(shape) < 0.3).astype(float))
    dense, B, l2 = Y.toarray(), weights(Y, 2.0), 2.0
    for j in range(0, shape[1], 5):
        others = [i for i in range(shape[1]) if i != j]
        A = dense[:, others]
        ridge = np.linalg.solve(A.T @ A + l2 * np.eye(len(others)), A.T @ dense[:, j])
        np.testing.assert_allclose(B[others, j], ridge, atol=1e-8)
    G = dense.T @ dense
    gradient = G @ B - G + l2 * B
    np.fill_diagonal(gradient, 0)
    assert np.abs(gradient).max() < 1e-8


def test_dual_equals_primal():
    Y = sparse.csr_array((np.random.default_rng(1).random((8, 20)) < 0.4).astype(float))
    dense = Y.toarray()
    np.testing.assert_allclose(precision(Y, 3.0), np.linalg.inv(dense.T @ dense + 3 * np.eye(20)), atol=1e-8)


def test_a_large_penalty_is_the_gram_matrix():
    B, G = weights(X, 1e9), (X.T @ X).toarray()
    np.fill_diagonal(G, 0)
    np.testing.assert_allclose(B * 1e9, G, rtol=1e-6, atol=1e-6)


def test_not_positive_definite_is_a_sentence():
    with pytest.raises(VitrailError, match="raise the setting l2"):
        inverse(np.asfortranarray([[1.0, 2], [2, 1]]))
