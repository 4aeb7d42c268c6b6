"""Checks of the card collaborative/lightgcn that hand values or data at hand allow; Gowalla is in the recipe."""

import numpy as np
import pytest
import torch
from worlds import plain_log

from vitrail.blocks.graph import bipartite_adjacency
from vitrail.data.batchers import PairBatcher
from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.bpr_mf import BPRMF
from vitrail.systems.collaborative.lightgcn import LightGCN
from vitrail.train.loop import train

HAND = Log(np.array([0, 2, 3]), np.array([0, 1, 1], dtype=np.int32), 2)


def make(cls, log, **settings):
    torch.manual_seed(0)
    return cls(cls.Config(**settings), Sizes(log.n_users, log.n_items), Given.of(log, cls.needs))


@pytest.mark.parametrize(
    ("layers", "expected"), [(1, [0.5, 0, 0.35355, 0.25]), (2, [0.58333, 0.11785, 0.23570, 0.16667]), (3, [0.4375, 0.08839, 0.30936, 0.28125])]
)
def test_by_hand(layers, expected):
    model = make(LightGCN, HAND, dim=1, layers=layers)
    with torch.no_grad():
        model.users.copy_(torch.tensor([[1.0], [0.0]]))
        model.items.zero_()
    nodes = torch.cat(model.nodes()).detach().flatten()
    torch.testing.assert_close(nodes, torch.tensor(expected), atol=1e-5, rtol=0)


def test_spectrum():
    A = bipartite_adjacency(torch.from_numpy(HAND.indptr), torch.from_numpy(HAND.items), 2).to_dense()
    torch.testing.assert_close(torch.linalg.eigvalsh(A), torch.tensor([-1.0, -0.5, 0.5, 1.0]), atol=1e-6, rtol=0)
    degrees = torch.tensor([2.0, 1, 1, 2]).sqrt()
    torch.testing.assert_close(A @ degrees, degrees)


def test_a_node_without_edges_has_a_zero_row():
    log = plain_log()
    A = bipartite_adjacency(torch.from_numpy(log.indptr), torch.from_numpy(log.items), log.n_items).to_dense()
    assert not A[0].any() and not A.isnan().any()


def test_no_layers_is_bpr_mf_exactly():
    log = plain_log()
    models = [make(cls, log, dim=4, epochs=3, batch=16, **extra) for cls, extra in ((LightGCN, {"layers": 0}), (BPRMF, {}))]
    curves = [[r["loss"] for r in train(m, log, m.config, seed=3, validate=None).progress.curve] for m in models]
    assert curves[0] == curves[1]
    assert torch.equal(models[0].users, models[1].users)


def test_relabelling_permutes_the_scores():
    log = plain_log()
    users, items = np.random.default_rng(1).permutation(log.n_users), np.random.default_rng(2).permutation(log.n_items)
    X = log.matrix().toarray()[users][:, items]
    other = Log(np.concatenate([[0], np.cumsum(X.sum(1))]).astype(np.int64), np.nonzero(X)[1].astype(np.int32), log.n_items)
    a, b = make(LightGCN, log, dim=8), make(LightGCN, other, dim=8)
    with torch.no_grad():
        b.users.copy_(a.users[users])
        b.items.copy_(a.items[items])
    (ua, ia), (ub, ib) = a.nodes(), b.nodes()
    torch.testing.assert_close((ua @ ia.T)[users][:, items], ub @ ib.T)


def test_gradient_through_the_graph_equals_dense_autograd():
    log = plain_log()
    model = make(LightGCN, log, dim=3, layers=2)
    batch = next(PairBatcher(log, 32, 1, seed=0).epoch(0))
    model.loss(batch).backward()
    fast = model.items.grad.clone()
    model.items.grad = None
    A, x = model.adjacency.to_dense(), torch.cat([model.users, model.items])
    mean = (x + A @ x + A @ A @ x) / 3
    u, i = mean[: log.n_users], mean[log.n_users :]
    positive, negative = (u[batch.users] * i[batch.items]).sum(1), (u[batch.users] * i[batch.negatives[:, 0]]).sum(1)
    plain = torch.nn.functional.softplus(negative - positive).mean() + model.regulariser(batch)
    plain.backward()
    torch.testing.assert_close(fast, model.items.grad)


def test_folding_in_a_known_history_points_where_layers_above_zero_point():
    log = plain_log()
    model = make(LightGCN, log, dim=8, layers=2).eval()
    with torch.no_grad():
        model.prepare()
        user = 3
        mean = torch.stack(model._layers()).mean(0)[user] - model.users[user] / 3  # what is left without layer 0
        history = log.histories(np.array([user]))
        # exact where the user's own vector does not come back through the second layer
        model.users[user] = 0.0
        model.prepare()
        mean = torch.stack(model._layers()).mean(0)[user]
        folded = model.fold_in(Sets(torch.tensor([-1]), history.indptr, history.items))[0]
    torch.testing.assert_close(folded, mean)


def test_the_sum_of_layers_is_their_mean_times_their_number():
    log = plain_log()
    mean, total = (make(LightGCN, log, dim=4, layers=2, readout=readout).eval() for readout in ("mean", "sum"))
    torch.testing.assert_close(torch.cat(total.nodes()), 3 * torch.cat(mean.nodes()))
    with torch.no_grad():
        for model in (mean, total):
            model.prepare()
        torch.testing.assert_close(total.fold_in(log.histories(np.arange(5))), 3 * mean.fold_in(log.histories(np.arange(5))))


def test_edges_are_left_out_in_training_alone_and_the_others_count_for_them():
    log = plain_log()
    model, whole = make(LightGCN, log, dim=4, layers=2, edge_drop=0.4), make(LightGCN, log, dim=4, layers=2)
    assert torch.equal(torch.cat(model.eval().nodes()), torch.cat(whole.nodes()))
    model.train()
    torch.manual_seed(5)
    kept = (torch.rand(len(model.edges.users)) >= 0.4) / 0.6
    keep = torch.zeros(35, 35).index_put((model.edges.users, model.edges.items), kept)
    A, x = model.adjacency.to_dense() * (keep + keep.T), torch.cat([model.users, model.items])
    torch.manual_seed(5)
    torch.testing.assert_close(torch.cat(model.nodes()), (x + A @ x + A @ A @ x) / 3)
