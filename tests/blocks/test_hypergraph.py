"""Hypergraphs by two products equal the dense matrices, and count what they should."""

from __future__ import annotations

import torch

from vitrail.blocks.hypergraph import CoUsers, ItemHypergraph


def test_items_have_as_many_edges_as_hyperedges_they_share() -> None:
    values = torch.rand(12, 5)  # no cosine below 0
    graph = ItemHypergraph({"a": values, "b": values.flip(1)}, {name: torch.ones(12, dtype=torch.bool) for name in "ab"}, 4)
    H = torch.cat([S.to_dense() for S, _ in graph.products()], 1)
    G = graph.shared(torch.eye(12))
    torch.testing.assert_close(G, H @ H.T)
    assert (G.diagonal() == 2 * 4).all()
    i, j = 2, 7
    assert int(G[i, j]) == int(((H[i] > 0) & (H[j] > 0)).sum())
    d = G.sum(1).rsqrt()
    torch.testing.assert_close(graph(torch.eye(12)), d[:, None] * G * d)


def test_cosines_not_above_zero_are_no_members_and_an_item_without_content_has_no_edge() -> None:
    values, mask = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [1, 1]]), torch.tensor([True, True, True, False])
    graph = ItemHypergraph({"a": values}, {"a": mask}, 3)
    torch.testing.assert_close(graph(torch.eye(4)), torch.diag(torch.tensor([1.0, 1, 1, 0])))


def test_gradient_of_the_hypergraph() -> None:
    graph = ItemHypergraph({"a": torch.randn(9, 3)}, {"a": torch.ones(9, dtype=torch.bool)}, 3)
    x, weight = torch.randn(9, 2, requires_grad=True), torch.randn(9, 2)
    (graph(x) * weight).sum().backward()
    torch.testing.assert_close(x.grad, graph(torch.eye(9)).T @ weight)


def test_users_are_joined_as_often_as_they_share_an_item() -> None:
    # u0 {0, 1, 1}, u1 {1, 2}, u2 {}, u3 {3}, u4 {0, 1}
    indptr, items = torch.tensor([0, 3, 5, 5, 6, 8]), torch.tensor([0, 1, 1, 1, 2, 3, 0, 1])
    users = CoUsers(indptr, items, 4)
    M = users(torch.eye(5))
    torch.testing.assert_close(M[0], torch.tensor([0, 1 / 3, 0, 0, 2 / 3]))
    torch.testing.assert_close(M.sum(1), torch.tensor([1.0, 1, 0, 0, 1]))
    assert float(M.trace()) == 0
    x = torch.randn(5, 2, requires_grad=True)
    (users(x) * torch.arange(10.0).view(5, 2)).sum().backward()
    torch.testing.assert_close(x.grad, M.T @ torch.arange(10.0).view(5, 2))
