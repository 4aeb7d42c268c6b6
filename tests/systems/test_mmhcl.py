"""Checks of the card collaborative/mmhcl that hand values allow (its hypergraphs: blocks/test_hypergraph.py, its loss: blocks/test_loss.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from worlds import ITEMS, USERS, as_strangers, facts, first_batch, grown_by_one, make, random_log

from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.lightgcn import LightGCN
from vitrail.systems.multimodal.mmhcl import MMHCL


def test_without_ratios_it_is_lightgcn_exactly() -> None:
    log, batch = random_log(), first_batch(random_log())
    model = make(MMHCL, log, item_ratio=0.0, user_ratio=0.0, l2=0.0)
    torch.manual_seed(0)
    light = LightGCN(LightGCN.Config(dim=8, layers=2, l2=0.0, init="xavier"), Sizes(USERS, ITEMS), Given.of(log, LightGCN.needs))
    assert torch.equal(model.loss(batch), light.loss(batch)) and not hasattr(model, "users_2")


@pytest.mark.parametrize("over", ["all", "batch"])
def test_loss_equals_plain_autograd(over: str) -> None:
    log = random_log()
    model, batch = make(MMHCL, log, facts(log, {"image": 3}), l2=0.1, contrast_over=over), first_batch(log, 8)
    fast = model.loss(batch)
    fast.backward()
    got = [table.grad.clone() for table in (model.users_2, model.items_2, model.items)]
    model.zero_grad()
    A, x = model.adjacency.to_dense(), torch.cat([model.users, model.items])
    mean = (x + A @ x + A @ A @ x) / 3
    M, G = model.co(torch.eye(USERS)).detach(), model.alike(torch.eye(ITEMS)).detach()
    second = M @ M @ model.users_2, G @ G @ model.items_2
    fused = [first + F.normalize(s, dim=1) for first, s in zip(mean.split([USERS, ITEMS]), second, strict=True)]
    u, p, n = fused[0][batch.users], fused[1][batch.items], fused[1][batch.negatives[:, 0]]
    plain = F.softplus((u * n).sum(1) - (u * p).sum(1)).mean() + 0.1 / 2 * (u.square().sum() + p.square().sum() + n.square().sum()) / len(u)
    ids = batch.users.unique(), torch.cat([batch.items, batch.negatives[:, 0]]).unique()
    for side, ratio in ((0, 0.3), (1, 0.7)):
        a, b = F.normalize(fused[side], dim=1), F.normalize(second[side], dim=1)
        if over == "batch":
            a, b = a[ids[side]], b[ids[side]]
        same, other = torch.exp(a @ a.T / 0.5), torch.exp(a @ b.T / 0.5)
        plain = plain - ratio * torch.log(other.diagonal() / (same.sum(1) + other.sum(1) - same.diagonal())).mean()
    plain.backward()
    torch.testing.assert_close(fast, plain)
    for grad, table in zip(got, (model.users_2, model.items_2, model.items), strict=True):
        torch.testing.assert_close(grad, table.grad, rtol=1e-4, atol=1e-6)


def test_cold_items_answer_by_their_hyperedges_and_new_ones_at_once() -> None:
    log = random_log(cold=5)
    given = facts(log, {"text": 7, "image": 7})
    model = make(MMHCL, log, given).eval()
    users, items = model.nodes()
    torch.testing.assert_close(items[5].norm(), torch.tensor(1.0))
    assert not users[0].any()
    grown = grown_by_one(model, log, given)
    assert F.cosine_similarity(grown.nodes()[1][ITEMS], grown.second()[1][3], dim=0) > 0


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_a_stranger_with_a_known_history_gets_that_vector(ratio: float) -> None:
    log = random_log()
    model = make(MMHCL, log, layers=1, user_layers=1, item_ratio=ratio, user_ratio=ratio).eval()
    with torch.no_grad():
        model.users.zero_()
        if ratio:
            model.users_2[3] = 0.0  # nobody is joined with themselves, but a stranger is with who has the same history
        model.prepare()
        known, stranger = model.query_vectors(log.histories(np.array([3]))), model.query_vectors(as_strangers(log, [3]))
    torch.testing.assert_close(known, stranger)
