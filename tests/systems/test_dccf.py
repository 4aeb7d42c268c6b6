"""Checks of the card collaborative/dccf that hand values allow; the margin over LightGCN on Amazon-Book needs its data."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from worlds import plain_log

from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.dccf import DCCF, closeness

LOG = plain_log()


def make(log=LOG, **settings):
    torch.manual_seed(0)
    config = DCCF.Config(**({"dim": 4, "intents": 5, "batch": 32} | settings))
    return DCCF(config, Sizes(log.n_users, log.n_items), Given.of(log, DCCF.needs))


def adjacency(log=LOG):
    R = torch.from_numpy(log.matrix().toarray()).float()
    return torch.cat([torch.cat([torch.zeros(20, 20), R], 1), torch.cat([R.T, torch.zeros(15, 15)], 1)])


def test_where_all_weights_are_equal_a_node_hears_the_mean_of_its_neighbours():
    model, x, A = make(), torch.randn(35, 4), adjacency()
    torch.testing.assert_close(model.weighed(torch.ones(35, 4), x), A / A.sum(1, keepdim=True).clamp(min=1) @ x)


def test_weights_by_hand():
    """Two users, two items, edges (u0,i0), (u0,i1), (u1,i1); a view in which u0 = i1 = (1, 0), i0 = (0, 1), u1 = (-1, 0): weights 1/2, 1, 0."""
    log = Log(np.array([0, 2, 3]), np.array([0, 1, 1], dtype=np.int32), 2)
    model = make(log, dim=2)
    view = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [1, 0]])
    torch.testing.assert_close(closeness(model.edges.cosines(view)), torch.tensor([0.5, 1, 0]))
    x = torch.tensor([[1.0, 0], [2, 0], [3, 0], [6, 9]])
    heard = torch.tensor([[5.0, 6], [0, 0], [1, 0], [1, 0]])  # u0: (3/2 + 6) / (3/2); u1 hears nobody; i1: u0 alone
    torch.testing.assert_close(model.weighed(view, x), heard)


def test_one_intent_is_the_same_vector_for_everybody():
    model = make(intents=1)
    torch.testing.assert_close(model.intent(0, model.users), model.intents[0][:, 0].expand(20, 4))


def test_weights_lie_between_zero_and_one_and_those_of_a_node_sum_to_one():
    model = make()
    alpha = closeness(model.edges.cosines(torch.randn(35, 4)))
    assert alpha.min() >= 0 and alpha.max() <= 1
    sums = model.weighed(torch.randn(35, 4), torch.ones(35, 1)).flatten()
    torch.testing.assert_close(sums, (adjacency().sum(1) > 0).float())


def test_without_intents_and_weights_it_is_a_residual_lightgcn(monkeypatch):
    model = make(layers=2)
    monkeypatch.setattr(model, "intent", lambda side, x: torch.zeros_like(x))
    monkeypatch.setattr(model, "weighed", lambda view, x: torch.zeros_like(x))
    M = model.adjacency.to_dense() + torch.eye(35)
    x = torch.cat([model.users, model.items])
    torch.testing.assert_close(torch.cat(model.nodes()), x + M @ x + M @ M @ x)


def test_loss_and_gradient_equal_the_published_equations():
    model = make(l2=0.01, intent_l2=0.02, contrast=0.3, contrast_temperature=0.5)
    batch = next(model.batcher(LOG, 0, 0, 1).epoch(0))
    model.loss(batch).backward()
    fast = [model.users.grad.clone(), model.items.grad.clone(), model.intents[0].grad.clone()]
    model.zero_grad()
    A, X = adjacency(), torch.cat([model.users, model.items])
    S, total, contrast = model.adjacency.to_dense(), X, 0.0
    asked = [batch.users.unique(), 20 + batch.items.unique()]
    for _ in range(2):
        Z = S @ X
        R = torch.cat([(X[:20] @ model.intents[0]).softmax(1) @ model.intents[0].T, (X[20:] @ model.intents[1]).softmax(1) @ model.intents[1].T])
        views = [R]
        for Y in (Z, R):
            unit = F.normalize(Y, dim=1)
            G = A * (unit @ unit.T + 1) / 2
            views.append(G @ X / G.sum(1, keepdim=True).clamp(min=1e-12))
        for ids in asked:
            for view in views:
                logits = F.normalize(Z[ids], dim=1) @ F.normalize(view[ids], dim=1).T / 0.5
                contrast = contrast - logits.log_softmax(1).diagonal().mean()
        X = Z + sum(views) + X
        total = total + X
    u, i, j = total[batch.users], total[20 + batch.items], total[20 + batch.negatives[:, 0]]
    plain = F.softplus((u * j).sum(1) - (u * i).sum(1)).mean() + 0.3 * contrast + 0.02 * sum(C.square().sum() for C in model.intents)
    tables = model.users[batch.users], model.items[batch.items], model.items[batch.negatives[:, 0]]
    (plain + 0.01 * sum(e.square().sum() for e in tables)).backward()
    for a, b in zip(fast, [model.users.grad, model.items.grad, model.intents[0].grad], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_stranger_with_a_user_s_history_is_that_user_where_both_start_at_zero():
    model = make(layers=1).eval()
    with torch.no_grad():
        model.users[3] = 0
        model.prepare()
        h = LOG.histories(np.array([3]))
        folded = model.fold_in(Sets(torch.tensor([-1]), h.indptr, h.items))
    torch.testing.assert_close(folded[0], model._users[3])
    assert model.answerable(LOG.histories(np.array([0, 3]))).tolist() == [False, True]


@pytest.mark.parametrize("contrast", [0.0, 0.1])
def test_a_step_lets_go_of_its_views(contrast):
    model = make(contrast=contrast)
    model.loss(next(model.batcher(LOG, 0, 0, 1).epoch(0)))
    assert model._views == []
