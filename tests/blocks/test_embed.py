"""Embedding tables and sums over ragged sets."""

import torch

from vitrail.blocks.embed import bag, rows


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
