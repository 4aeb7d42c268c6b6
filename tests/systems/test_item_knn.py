"""Checks of the card base/item_knn."""

import numpy as np
import pytest
from scipy import sparse

from vitrail.blocks.neighbours import gram_top_k, weigh

X = sparse.csr_array(np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]]))


def similar(X, weighting="cosine", k=10, shrink=0.0):
    norms = np.sqrt(X.multiply(X).sum(0))
    return gram_top_k(weigh(X, weighting), k, shrink, norms).toarray()


def test_cosine_and_shrinkage_by_hand():
    S = similar(X)
    np.testing.assert_allclose(S, [[0, 0.816497, 0.5], [0.816497, 0, 0.816497], [0.5, 0.816497, 0]], atol=1e-6)
    assert (X[[0]] @ S).ravel() == pytest.approx([0.816497, 0.816497, 1.316497], abs=1e-6)
    shrunk = similar(X, shrink=1.0)
    assert (shrunk[0, 1], shrunk[0, 2]) == pytest.approx((0.579796, 0.333333), abs=1e-6)


def test_tfidf_with_an_item_nobody_used():
    wide = sparse.csr_array(np.hstack([X.toarray(), np.zeros((3, 1))]))
    S = similar(wide, "tfidf")
    assert S[0, 1] == pytest.approx(0.707107, abs=1e-6) and S[1, 2] == pytest.approx(0.707107, abs=1e-6)
    assert S[0, 2] == 0 and not S[3].any()


def test_all_neighbours_without_shrinkage_are_the_gram_matrix():
    rng = np.random.default_rng(0)
    Y = sparse.csr_array((rng.random((40, 12)) < 0.3).astype(float))
    unit = Y.toarray() / np.maximum(np.linalg.norm(Y.toarray(), axis=0), 1e-12)
    gram = unit.T @ unit
    np.fill_diagonal(gram, 0)
    np.testing.assert_allclose(similar(Y, k=12), gram, atol=1e-12)


def test_k_is_kept_per_target_and_blocks_change_nothing():
    rng = np.random.default_rng(1)
    Y = sparse.csr_array((rng.random((60, 20)) < 0.3).astype(float))
    W = weigh(Y, "cosine")
    full = gram_top_k(W, 20).toarray()
    top = gram_top_k(W, 3)
    np.testing.assert_array_equal(top.toarray(), gram_top_k(W, 3, block=7).toarray())
    for j in range(20):
        kept = top.toarray()[:, j]
        assert (kept > 0).sum() <= 3
        np.testing.assert_allclose(np.sort(kept)[-3:], np.sort(full[:, j])[-3:])


def test_doubling_every_user():
    double = sparse.csr_array(sparse.vstack([X, X]))
    np.testing.assert_allclose(similar(double), similar(X), atol=1e-12)
    more, less = similar(double, shrink=1.0), similar(X, shrink=1.0)
    assert (more[less > 0] > less[less > 0]).all()


def test_bm25_is_a_plain_product_of_saturated_counts():
    counts = sparse.csr_array(np.array([[2.0, 1, 0, 0], [1, 3, 0, 0], [0, 1, 1, 0]]))
    k1, b, dense = 1.2, 0.75, counts.toarray()
    idf = np.log(4) - np.log1p((dense > 0).sum(1))
    length = dense.sum(0) / dense.sum(0).mean()
    W = np.where(dense > 0, dense * (k1 + 1) / (k1 * (1 - b + b * length) + dense) * idf[:, None], 0)
    expected = W.T @ W
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(similar(counts, "bm25"), expected, atol=1e-12)


def test_dense_and_sparse_selection_agree_also_on_ties(monkeypatch):
    from vitrail.blocks import neighbours

    rng = np.random.default_rng(3)
    X = sparse.csr_array((rng.random((30, 40)) < 0.3).astype(float))  # few users, many equal cosines
    W = weigh(X, "cosine")
    found = []
    for dense in (0, 10**9):  # never, always
        monkeypatch.setattr(neighbours, "DENSE", dense)
        found.append([gram_top_k(W, k, shrink, np.sqrt(X.sum(0)), block=7) for k in (1, 3, 60) for shrink in (0.0, 5.0)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a.toarray() > 0, b.toarray() > 0)
        np.testing.assert_allclose(a.toarray(), b.toarray(), rtol=1e-6)
