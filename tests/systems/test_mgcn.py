"""Checks of the card base/mgcn that hand values allow; its margin over LightGCN needs Baby with images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from worlds import ITEMS, USERS, as_strangers, facts, first_batch, grown_by_one, make, random_log

from vitrail.blocks.graph import bipartite_adjacency
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.lightgcn import LightGCN
from vitrail.systems.multimodal.mgcn import MGCN

BOTH = torch.ones(1, 2, dtype=torch.bool)


class Logits(nn.Module):
    """ln 3 for what lies along the first axis, 0 else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., :1] * math.log(3)


def gated(model: MGCN, bias: float) -> MGCN:
    with torch.no_grad():
        for layer in model.prefer:
            layer.weight.zero_()
            layer.bias.fill_(bias)
    return model


@pytest.mark.parametrize(("bias", "expected"), [(50.0, [0.083333, 0.25]), (0.0, [0.166667, 0.166667])])
def test_fusion_by_hand(bias: float, expected: list[float]) -> None:
    model = gated(make(MGCN, random_log(), dim=2), bias)
    model.attend = Logits()
    made = model.fuse(torch.zeros(1, 2), [torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]])], BOTH)
    torch.testing.assert_close(made, torch.tensor([expected]), atol=1e-5, rtol=0)


def test_even_gates_make_attention_idle_and_equal_views_make_gates_idle() -> None:
    model = make(MGCN, random_log())
    C, v, t = (torch.randn(6, 8) for _ in range(3))
    has = BOTH.expand(6, 2)
    torch.testing.assert_close(model.fuse(C, [v, v], has), v / 3)
    torch.testing.assert_close(gated(model, 0.0).fuse(C, [v, t], has), (v + t) / 6)


def test_a_missing_view_counts_nothing() -> None:
    model = make(MGCN, random_log())
    C, v, junk = torch.randn(3, 8), torch.randn(3, 8), torch.randn(3, 8)
    one = model.fuse(C, [v, junk], torch.tensor([[True, False]]).expand(3, 2))
    torch.testing.assert_close(one, v / 3)
    assert not model.fuse(C, [v, junk], torch.zeros(3, 2, dtype=torch.bool)).any()


def test_without_the_views_it_is_lightgcn_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    log = random_log()
    model = make(MGCN, log, l2=0.0, contrast=0.0)
    monkeypatch.setattr(model, "fuse", lambda behaviour, kinds, has: torch.zeros_like(behaviour))
    torch.manual_seed(0)
    light = LightGCN(LightGCN.Config(dim=8, layers=2, l2=0.0, init="xavier"), Sizes(USERS, ITEMS), Given.of(log, LightGCN.needs))
    assert all(torch.equal(a, b) for a, b in zip(model.nodes(), light.nodes(), strict=True))
    batch = first_batch(log)
    assert torch.equal(model.loss(batch), light.loss(batch))


def test_loss_equals_plain_autograd() -> None:
    log = random_log()
    model, batch = make(MGCN, log, facts(log, {"image": 3}), l2=0.1, contrast=0.5), first_batch(log)
    fast = model.loss(batch)
    fast.backward()
    got = model.items.grad.clone(), model.content.values_1.grad.clone()
    model.zero_grad()
    A = bipartite_adjacency(torch.from_numpy(log.indptr), torch.from_numpy(log.items), ITEMS).to_dense()
    x = torch.cat([model.users, model.items])
    C, views = (x + A @ x + A @ A @ x) / 3, []
    for n, gate in enumerate(model.gates):
        q = model.items * torch.sigmoid(gate(model.content(n))) * model.content.has(n)[:, None]
        q = model.graph.products()[n][0].to_dense() @ q
        views.append(torch.cat([A[:USERS, USERS:] @ q, q]))
    has = torch.ones(USERS + ITEMS, 2, dtype=torch.bool)
    has[USERS + 3, 1] = False
    side = model.fuse(C, views, has)
    final = C + side
    u, p, n = final[batch.users], final[USERS + batch.items], final[USERS + batch.negatives[:, 0]]
    plain = F.softplus((u * n).sum(1) - (u * p).sum(1)).mean() + 0.1 / 2 * (u.square().sum() + p.square().sum() + n.square().sum()) / len(u)
    for ids in (batch.users.unique(), USERS + batch.items.unique()):
        cosines = F.cosine_similarity(side[ids][:, None], C[ids][None], dim=2) / 0.2
        plain = plain + 0.5 * F.cross_entropy(cosines, torch.arange(len(ids)))
    plain.backward()
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(got[0], model.items.grad)
    torch.testing.assert_close(got[1], model.content.values_1.grad)


def test_cold_items_answer_by_their_neighbours_and_new_ones_at_once() -> None:
    log = random_log(cold=5)
    given = facts(log, {"text": 7, "image": 7})
    model = make(MGCN, log, given).eval()
    users, items = model.nodes()
    assert not model.items[5].any() and items[5].any()
    assert not users[0].any(), "who has nothing has no vector"
    grown = grown_by_one(model, log, given)
    torch.testing.assert_close(grown.nodes()[1][:ITEMS], items)
    assert F.cosine_similarity(grown.nodes()[1][ITEMS], items[3], dim=0) > 0


def test_a_stranger_with_a_known_history_gets_nearly_that_vector() -> None:
    log = random_log()
    model = make(MGCN, log, layers=1).eval()
    with torch.no_grad():
        model.users.zero_()
        model.prepare()
        known, stranger = model.query_vectors(log.histories(np.array([3, 4]))), model.query_vectors(as_strangers(log, [3, 4]))
    torch.testing.assert_close(known, stranger)
