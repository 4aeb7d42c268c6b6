"""Alike items that know what goes together."""

import numpy as np
import torch
from scipy import sparse

from vitrail.blocks.infused import Infused, infuse, together

INDPTR, ITEMS = torch.tensor([0, 3, 5, 6]), torch.tensor([0, 1, 1, 1, 2, 3])  # i0-i1 by u0 (who has i1 twice), i1-i2 by u1, i3 alone by u2


def test_what_goes_together_by_hand():
    C = together(INDPTR, ITEMS, 4, 2).toarray()
    expected = np.zeros((4, 4))
    expected[[0, 1, 1, 2], [1, 0, 2, 1]] = 1 / np.sqrt(2)
    np.testing.assert_allclose(C, expected, atol=1e-6)


def test_rows_sum_to_one_and_an_item_without_company_keeps_its_own():
    S, has = sparse.csr_array(np.eye(4)), np.array([True, True, False, True])
    mixed = infuse(S, together(INDPTR, ITEMS, 4, 2), has, 0.4).toarray()
    np.testing.assert_allclose(mixed.sum(1), 1)
    np.testing.assert_allclose(mixed[0], [0.6, 0.4, 0, 0])
    np.testing.assert_allclose(mixed[1], [0.4, 0.6, 0, 0])  # i2 has no content: it says nothing
    np.testing.assert_allclose(mixed[2:], np.eye(4)[2:])
    np.testing.assert_allclose(infuse(S, together(INDPTR, ITEMS, 4, 2), has, 0.0).toarray(), np.eye(4))


def test_a_graph_is_built_once_and_again_where_items_come():
    torch.manual_seed(0)
    values, mask, C = torch.randn(5, 3), torch.tensor([True, True, True, True, False]), together(INDPTR, ITEMS, 5, 2)
    graph = Infused(values, mask, 2, C, 0.5)
    (S, S_T), again = graph.products()[0], graph.products()[0]
    assert S is again[0]
    torch.testing.assert_close(S.to_dense().T, S_T.to_dense())
    rows = S.to_dense().sum(1)
    torch.testing.assert_close(rows, torch.tensor([1.0, 1, 1, 1, 0]))
    assert (S.to_dense()[:3] > 0)[torch.arange(3), [1, 0, 1]].all(), "somebody it goes together with is a neighbour"
    graph.add(3)
    assert graph.products()[0][0] is not S
