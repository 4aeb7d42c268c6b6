"""Checks of the card collaborative/ngcf that hand values allow; Amazon-Book needs its data."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from worlds import plain_log

from vitrail.data.batchers import PairBatcher
from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.lightgcn import LightGCN
from vitrail.systems.collaborative.ngcf import NGCF

HAND = Log(np.array([0, 2, 3]), np.array([0, 1, 1], dtype=np.int32), 2)
KINDS = ["norm", "ngcf", "gcmc", "plain", "symmetric"]


def make(cls=NGCF, log=HAND, **settings):
    torch.manual_seed(0)
    return cls(cls.Config(**settings), Sizes(log.n_users, log.n_items), Given.of(log, cls.needs))


def test_by_hand():
    model = make(dim=1, layers=1, propagation="ngcf").eval()
    with torch.no_grad():
        for module in [*model.linear, *model.bilinear]:
            module.weight.fill_(1.0)
            module.bias.zero_()
        model.users.copy_(torch.tensor([[1.0], [1.0]]))
        model.items.copy_(torch.tensor([[2.0], [3.0]]))
        inner, answers = model._passes()
    torch.testing.assert_close(inner[1].flatten(), torch.tensor([7.0, 8, 9, 16]))
    torch.testing.assert_close(answers, torch.tensor([[1.0, 1], [1, 1], [2, 1], [3, 1]]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_gathered_equals_the_dense_matrix(kind):
    log = plain_log()
    model = make(log=log, dim=4, propagation=kind)
    R = log.matrix().toarray()
    A = np.block([[np.zeros((20, 20)), R], [R.T, np.zeros((15, 15))]])
    d = np.maximum(A.sum(1, keepdims=True), 1)
    P = {
        "norm": (A + np.eye(35)) / (A.sum(1, keepdims=True) + 1),
        "ngcf": A / d + np.eye(35),
        "gcmc": A / d,
        "plain": A,
        "symmetric": A / np.sqrt(d) / np.sqrt(d.T),
    }[kind]
    x = torch.randn(35, 4)
    torch.testing.assert_close(model.mix(model.adjacency @ x, x, model.degrees), torch.from_numpy(P).float() @ x)


def test_without_weights_and_activation_it_is_lightgcn(monkeypatch):
    log = plain_log()
    model, light = make(log=log, dim=4, layers=2, propagation="symmetric", dropout=0.0).eval(), make(LightGCN, log, dim=4, layers=2)
    with torch.no_grad():
        light.users.copy_(model.users)
        light.items.copy_(model.items)
        for one, two in zip(model.linear, model.bilinear, strict=True):
            one.weight.copy_(torch.eye(4))
            for zero in (one.bias, two.weight, two.bias):
                zero.zero_()
    monkeypatch.setattr(F, "leaky_relu", lambda x, slope, inplace=False: x)
    mean = torch.stack(model._passes()[0]).mean(0)
    torch.testing.assert_close(mean, torch.cat(light.nodes()))


@pytest.mark.parametrize("form", ["code", "paper"])
def test_readout_has_rows_of_length_one_after_the_first_block(form):
    log = plain_log()
    model = make(log=log, dim=4, layers=3, form=form).eval()
    users, items = model.nodes()
    assert users.shape == (20, 16) and items.shape == (15, 16)
    torch.testing.assert_close(items.view(15, 4, 4)[:, 1:].norm(dim=2), torch.ones(15, 3))
    torch.testing.assert_close(users[1:].view(19, 4, 4)[:, 1:].norm(dim=2), torch.ones(19, 3))
    assert not users[0].any()  # without events there is nothing to say


def test_the_paper_feeds_the_unit_vector_on_and_the_code_does_not():
    for form, same in (("paper", True), ("code", False)):
        inner, answers = make(log=plain_log(), dim=4, layers=2, form=form).eval()._passes()
        assert torch.allclose(inner[1], answers[:, 4:8]) is same


def test_biases_start_as_the_authors_draw_them_and_at_zero_in_the_papers_equation():
    drawn, absent = make(dim=64), make(dim=64, form="paper")
    assert all(0.1 < float(module.bias.detach().abs().max()) <= (6 / 65) ** 0.5 for module in [*drawn.linear, *drawn.bilinear])
    assert not any(module.bias.any() for module in [*absent.linear, *absent.bilinear])


def test_without_dropout_training_scores_are_the_answers():
    log = plain_log()
    model = make(log=log, dim=4, dropout=0.0)
    train = torch.cat(model.train().nodes())
    assert torch.equal(train, torch.cat(model.eval().nodes()))
    assert not torch.equal(train, torch.cat(make(log=log, dim=4, dropout=0.5).train().nodes()))


@pytest.mark.parametrize("negatives", [1, 12])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("form", ["code", "paper"])
def test_the_last_layer_of_a_batch_alone_has_the_loss_and_gradient_of_the_whole(form, shared, negatives):
    log = plain_log()
    model = make(log=log, dim=4, layers=2, form=form, dropout=0.0, l2=0.01, batch=8, negatives=negatives, shared_negatives=shared)
    batch = next(iter(model.batcher(log, 0, 0, 1).epoch(0)))
    found = []
    for loss in (model.loss, lambda batch: model.loss_at(model.nodes(), batch)):
        model.zero_grad()
        value = loss(batch)
        value.backward()
        found.append([value.detach(), *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(found[0], found[1])


def test_gradient_equals_dense_autograd():
    log = plain_log()
    model = make(log=log, dim=3, layers=2, dropout=0.0)
    batch = next(PairBatcher(log, 32, 1, seed=0).epoch(0))
    model.loss(batch).backward()
    fast = model.items.grad.clone()
    model.zero_grad()
    A = model.adjacency.to_dense()
    P, x = (A + torch.eye(35)) / (A.sum(1, keepdim=True) + 1), torch.cat([model.users, model.items])
    out = [x]
    for n in range(2):
        x, unit = model.layer(n, x, P @ x)
        out.append(unit)
    nodes = torch.cat(out, 1)
    u, i, j = nodes[batch.users], nodes[20 + batch.items], nodes[20 + batch.negatives[:, 0]]
    l2 = 1e-5 / 2 / len(u) * (u.square().sum() + i.square().sum() + j.square().sum())
    (F.softplus((u * j).sum(1) - (u * i).sum(1)).mean() + l2).backward()
    torch.testing.assert_close(fast, model.items.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_whose_own_vector_is_zero_is_what_the_history_gives(kind):
    log = plain_log()
    model = make(log=log, dim=4, layers=1, propagation=kind).eval()
    with torch.no_grad():
        model.users[3] = 0
        model.prepare()
        h = log.histories(np.array([3]))
        folded = model.fold_in(Sets(torch.tensor([-1]), h.indptr, h.items))
    torch.testing.assert_close(folded[0], model._users[3])
