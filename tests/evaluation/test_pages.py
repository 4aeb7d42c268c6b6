"""Page metrics worked by hand."""

import numpy as np
import pytest

from vitrail.evaluation.pages import alpha_ndcg, category_entropy

KINDS = np.array([[1, 0], [1, 0], [0, 1], [1, 1], [0, 0]], dtype=np.float64)


def test_entropy():
    found = category_entropy(np.array([[0, 2], [0, 1], [3, -1], [4, -1], [-1, -1]]), KINDS)
    np.testing.assert_allclose(found, [1.0, 0.0, 1.0, np.nan, np.nan])


def test_a_kind_that_comes_again_gains_less():
    """Targets 0, 1 (kind a) and 2 (kind b): the best page is a, b, a with gains 1, 1, 1/2."""
    indptr, items = np.array([0, 3, 6, 9, 10]), np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 4])
    codes = np.array([[0, 2, 1], [0, 1, 2], [4, 4, 0], [4, 0, 1]])
    hits = np.array([[True] * 3, [True] * 3, [False, False, True], [True, False, False]])
    discount = 1 / np.log2([2, 3, 4])
    ideal = discount @ [1, 1, 0.5]
    found = alpha_ndcg(codes, hits, indptr, items, KINDS)
    np.testing.assert_allclose(found[:3], [1.0, discount @ [1, 0.5, 1] / ideal, discount[2] / ideal])
    assert np.isnan(found[3])  # its only target has no kind
    assert alpha_ndcg(codes[1:2], hits[1:2], indptr[:2], items[:3], KINDS, alpha=0.0)[0] == pytest.approx(1.0)  # alpha 0: plain nDCG
