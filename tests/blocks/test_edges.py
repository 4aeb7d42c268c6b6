"""Sums over neighbours by weights of edges, against dense matrices."""

import torch
import torch.nn.functional as F

from vitrail.blocks import edges as module
from vitrail.blocks.edges import Edges

INDPTR, ITEMS = torch.tensor([0, 3, 4, 4, 6]), torch.tensor([2, 0, 2, 1, 0, 1])  # user 0 has item 2 twice, user 2 has nothing, nobody has item 3


def make():
    return Edges(INDPTR, ITEMS, 4)


def dense(edges, weights):
    W = torch.zeros(8, 8, dtype=weights.dtype).index_put((edges.users, edges.items), weights)
    return W + W.T


def test_edges_are_distinct_and_every_node_knows_its_own():
    edges = make()
    assert edges.users.tolist() == [0, 0, 1, 3, 3] and edges.items.tolist() == [4, 6, 5, 4, 5]
    assert edges.degrees.tolist() == [2, 1, 0, 2, 2, 2, 1, 0]
    weights = torch.tensor([1.0, 2, 4, 8, 16])
    torch.testing.assert_close(edges.sums(weights), dense(edges, weights).sum(1))
    torch.testing.assert_close(edges.sums(weights, 10 * weights), torch.tensor([3.0, 4, 0, 24, 90, 200, 20, 0]))


def test_what_is_sent_and_both_gradients_are_those_of_the_matrix(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 7)  # two edges at a time
    edges = make()
    torch.manual_seed(0)
    found = []
    for way in (edges.spread, lambda w, x: dense(edges, w) @ x):
        weights, x = torch.arange(1.0, 6).requires_grad_(), torch.arange(24.0).view(8, 3).sin().requires_grad_()
        y = way(weights, x)
        (y * torch.arange(24.0).view(8, 3).cos()).sum().backward()
        found.append((y.detach(), weights.grad, x.grad))
    torch.testing.assert_close(*found)


def test_cosines_over_edges_and_their_gradient_are_those_of_all_pairs():
    edges, found = make(), []
    for way in (edges.cosines, lambda x: (F.normalize(x, dim=1) @ F.normalize(x, dim=1).T)[edges.users, edges.items]):
        x = torch.arange(24.0).view(8, 3).sin()
        x[6] = 0.0
        x.requires_grad_()
        y = way(x)
        (y * torch.arange(1.0, 6)).sum().backward()
        found.append((y.detach(), x.grad))
    torch.testing.assert_close(*found)
    assert found[0][0][1] == 0.0


def test_a_graph_without_an_edge():
    edges = Edges(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), 2)
    x = torch.ones(3, 2, requires_grad=True)
    y = edges.spread(edges.cosines(x), x)
    y.sum().backward()
    assert not y.any() and not x.grad.any() and not edges.sums(torch.empty(0)).any()
