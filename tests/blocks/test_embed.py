"""Embedding tables and sums over ragged sets."""

import pytest
import torch

from vitrail.blocks.embed import bag, by_code, dots, rows
from vitrail.blocks.loss import l2_of_batch


def test_a_bag_of_vectors_without_width_has_none():
    assert bag(torch.zeros(35, 0), torch.tensor([20, 23, 25]), torch.tensor([0, 0, 3]), torch.ones(3)).shape == (2, 0)


def test_bag_sums_rows_and_an_empty_set_is_zero():
    weights = torch.randn(6, 3, requires_grad=True)
    items, indptr, scale = torch.tensor([4, 1, 1, 5]), torch.tensor([0, 2, 2, 4]), torch.tensor([0.5, 2.0, 1.0, -1.0])
    out = bag(weights, items, indptr, scale)
    expected = torch.stack([0.5 * weights[4] + 2 * weights[1], torch.zeros(3), weights[1] - weights[5]])
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(bag(weights, items, indptr)[0], weights[4] + weights[1])
    assert bag(weights, torch.empty(0, dtype=torch.int64), torch.tensor([0, 0])).tolist() == [[0, 0, 0]]
    (gradient,) = torch.autograd.grad(out.sum(), weights)
    assert gradient[:, 0].tolist() == [0, 3, 0, 0, 0.5, -1]


def test_rows_equal_an_embedding_and_so_does_their_gradient():
    codes = torch.tensor([[0, 2], [2, 2]])
    found = []
    for way in (rows, lambda table, codes: torch.nn.functional.embedding(codes, table)):
        table = torch.arange(6.0).view(3, 2).requires_grad_()
        way(table, codes).square().sum().backward()
        found.append(table.grad)
    torch.testing.assert_close(*found)
    assert rows(table, codes).shape == (2, 2, 2) and rows(table, torch.tensor(1)).tolist() == [2.0, 3.0]


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("negatives", [0, 1, 4, 12])
def test_dots_equal_gathered_rows_and_so_do_their_gradients(negatives, ridge):
    torch.manual_seed(0)
    codes = torch.randint(6, (9, 1 + negatives))  # rows are named many times, the last of the table never; 13 are more than there are
    found = []
    for quick in (True, False):
        torch.manual_seed(1)
        u, E = torch.randn(9, 5, requires_grad=True), torch.randn(7, 5, requires_grad=True)
        if quick:
            scores, size = dots(u, E, codes, ridge)
        else:
            scores, size = (u[:, None] * E[codes]).sum(-1), ridge * l2_of_batch(u, E[codes[:, :2]])
        size = torch.as_tensor(size)
        (scores.sin().sum() + 2 * size).backward()
        found.append((scores, size, u.grad, E.grad))
    torch.testing.assert_close(*found)
    assert scores.shape == (9, 1 + negatives) and not found[0][3][6].any()
    u, E = torch.randn(9, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    for wide, narrow in zip(dots(u, E, codes, ridge), dots(u.float(), E.float(), codes, ridge), strict=True):  # wider numbers are gathered
        torch.testing.assert_close(torch.as_tensor(wide).float(), torch.as_tensor(narrow))


@pytest.mark.parametrize("bound", [10, 1 << 17])
def test_codes_sort_with_equal_ones_as_they_came(bound):
    codes = torch.randint(bound, (500,))
    assert torch.equal(by_code(codes, bound), codes.argsort(stable=True))
