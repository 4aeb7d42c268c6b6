"""Checks of the card collaborative/sheaf that hand values allow; the margin over NGCF on MovieLens-1M needs its data."""

import numpy as np
import torch
import torch.nn.functional as F
from worlds import plain_log

from vitrail.blocks.edges import Edges
from vitrail.data.batches import Sets
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.sheaf4rec import Sheaf4Rec, laplacian

LOG = plain_log()


def make(log=LOG, **settings):
    torch.manual_seed(0)
    return Sheaf4Rec(Sheaf4Rec.Config(**({"dim": 4, "layers": 2} | settings)), Sizes(log.n_users, log.n_items), Given.of(log, Sheaf4Rec.needs))


def edges_of(log=LOG):
    return Edges(torch.from_numpy(log.indptr), torch.from_numpy(log.items).long(), log.n_items)


def dense(edges, diagonal, across):
    L = torch.diag(diagonal).index_put((edges.users, edges.items), across)
    return L.index_put((edges.items, edges.users), across)


def test_one_edge_by_hand():
    edges = Edges(torch.tensor([0, 1]), torch.tensor([0]), 1)
    L = dense(edges, *laplacian(edges, torch.tensor([0.5]), torch.tensor([0.8])))
    torch.testing.assert_close(L, torch.tensor([[0.2, -0.27937], [-0.27937, 0.39024]]), atol=1e-5, rtol=0)


def test_what_agrees_along_an_edge_does_not_move():
    """x_u = b c and x_i = a c agree: a x_u = b x_i. By the Laplacian before its normalisation, which scales both sides."""
    edges = Edges(torch.tensor([0, 1]), torch.tensor([0]), 1)
    diagonal, across = laplacian(edges, torch.tensor([0.5]), torch.tensor([0.8]))
    root = (torch.tensor([0.25, 0.64]) + 1).sqrt()
    x = torch.tensor([0.8 * 3, 0.5 * 3])
    torch.testing.assert_close(root * (dense(edges, diagonal, across) @ (root * x)), torch.zeros(2), atol=1e-6, rtol=0)


def test_where_all_maps_are_one_and_nothing_is_added_to_the_diagonal_a_layer_is_one_of_lightgcn():
    edges, x = edges_of(), torch.randn(35, 4)
    ones = torch.ones(len(edges.users))
    diagonal, across = laplacian(edges, ones, ones)
    d = edges.degrees.float()
    back = ((d + 1) / d.clamp(min=1)).sqrt()  # D = diag(L), not diag(L) + 1
    L = back[:, None] * dense(edges, diagonal, across) * back
    A = torch.zeros(35, 35).index_put((edges.users, edges.items), ones)
    A_hat = (A + A.T) / d.clamp(min=1).sqrt() / d.clamp(min=1).sqrt()[:, None]
    torch.testing.assert_close((x - L @ x)[d > 0], (A_hat @ x)[d > 0])


def test_the_laplacian_is_symmetric_and_never_negative():
    edges = edges_of()
    torch.manual_seed(0)
    L = dense(edges, *laplacian(edges, torch.randn(len(edges.users)).tanh(), torch.randn(len(edges.users)).tanh()))
    torch.testing.assert_close(L, L.T)
    values = torch.linalg.eigvalsh(L)
    assert values.min() >= -1e-6 and values.max() < 2


def test_a_layer_and_its_gradient_are_those_of_the_published_equations():
    model = make(l2=0.0)
    batch = next(model.batcher(LOG, 0, 0, 1).epoch(0))
    model.loss(batch).backward()
    fast = [model.users.grad.clone(), model.maps[0].weight.grad.clone(), model.linear[1].weight.grad.clone()]
    model.zero_grad()
    A = torch.from_numpy(LOG.matrix().toarray()).float()
    A = torch.cat([torch.cat([torch.zeros(20, 20), A], 1), torch.cat([A.T, torch.zeros(15, 15)], 1)])
    x = torch.cat([model.users, model.items])
    out = [x]
    for maps, linear in zip(model.maps, model.linear, strict=True):
        M = torch.tanh((x @ maps.weight[0])[:, None] + (x @ maps.weight[1])[None]) * A  # the map of every directed edge
        L = torch.diag(M.square().sum(1)) - M * M.T
        scale = (M.square().sum(1) + 1).rsqrt()
        x = x - scale[:, None] * L * scale @ linear(x)
        out.append(x)
    nodes = torch.cat(out, 1)
    torch.testing.assert_close(torch.cat(model.nodes()), nodes)
    u, i, j = nodes[batch.users], nodes[20 + batch.items], nodes[20 + batch.negatives[:, 0]]
    F.softplus((u * j).sum(1) - (u * i).sum(1)).mean().backward()
    for a, b in zip(fast, [model.users.grad, model.maps[0].weight.grad, model.linear[1].weight.grad], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_readout_is_wide_and_a_user_without_events_stays_zero():
    users, items = make(layers=3).nodes()
    assert users.shape == (20, 16) and items.shape == (15, 16) and not users[0].any()


def test_a_stranger_with_a_user_s_history_is_that_user_where_both_start_at_zero():
    model = make(layers=1).eval()
    with torch.no_grad():
        model.users[3] = 0
        model.prepare()
        h = LOG.histories(np.array([3]))
        folded = model.fold_in(Sets(torch.tensor([-1]), h.indptr, h.items))
    torch.testing.assert_close(folded[0], model._users[3])


def test_the_regulariser_weighs_what_it_is_told_to():
    batch = next(make().batcher(LOG, 0, 0, 1).epoch(0))
    one, none = (float(make(l2=weight).loss(batch).detach()) for weight in (1.0, 0.0))
    model = make()
    plain = sum(e.square().sum() for e in (model.users[batch.users], model.items[batch.items], model.items[batch.negatives[:, 0]])) / 2 / len(batch.users)
    assert abs(one - none - float(plain.detach())) < 1e-5
