"""Checks of the card collaborative/freedom that hand values allow; the margins over LATTICE and LightGCN are in the recipes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.data.batchers import PairBatcher, draws
from vitrail.data.log import Log
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.lightgcn import LightGCN
from vitrail.systems.multimodal.freedom import FREEDOM
from vitrail.train.loop import train

USERS, ITEMS = 30, 20
KINDS = {"text": 6, "image": 4}


def random_log(seed: int = 0, cold: int | None = None) -> Log:
    have = np.random.default_rng(seed).random((USERS, ITEMS)) < 0.3
    have[0] = False
    have[1] = True
    if cold is not None:
        have[:, cold] = False
    return Log(np.concatenate([[0], np.cumsum(have.sum(1))]), np.nonzero(have)[1].astype(np.int32), ITEMS)


def given(log: Log, lacking: dict[str, int] | None = None) -> Given:
    rng, plain = np.random.default_rng(1), Given.of(log, FREEDOM.needs)
    vectors = {name: torch.from_numpy(rng.normal(size=(log.n_items, width)).astype(np.float32)) for name, width in KINDS.items()}
    masks = {name: torch.ones(log.n_items, dtype=torch.bool) for name in KINDS}
    for name, item in (lacking or {}).items():
        masks[name][item] = False
        vectors[name][item] = 0.0
    return Given(plain.indptr, plain.items, vectors=vectors, masks=masks)


def make(log: Log, facts: Given | None = None, **settings: object) -> FREEDOM:
    torch.manual_seed(0)
    config = FREEDOM.Config.of({"dim": 8, "neighbours": 4, **settings})
    return FREEDOM(config, Sizes(log.n_users, log.n_items, KINDS), facts or given(log))


def test_rows_of_the_item_graph_sum_to_one() -> None:
    model = make(random_log())
    for S, _ in model.graph.products():
        dense = S.to_dense()
        assert ((dense > 0).sum(1) == 4).all()
        torch.testing.assert_close(dense[dense > 0], torch.full((4 * ITEMS,), 0.25))
        assert (dense.diagonal() > 0).all(), "an item is its own neighbour"
    torch.testing.assert_close(model.graph(torch.ones(ITEMS, 1)), torch.ones(ITEMS, 1))


def test_without_its_parts_it_is_lightgcn_exactly() -> None:
    log = random_log()
    other = {"dim": 8, "layers": 2, "epochs": 3, "batch": 64}
    torch.manual_seed(0)
    light = LightGCN(LightGCN.Config(**other, l2=0.0, init="xavier"), Sizes(USERS, ITEMS), Given.of(log, LightGCN.needs))
    free = make(log, **other, drop=0.0, aux=0.0, item_layers=0)
    curves = [[r["loss"] for r in train(m, log, m.config, seed=3, validate=None).progress.curve] for m in (light, free)]
    assert curves[0] == curves[1]
    assert torch.equal(light.items, free.items) and torch.equal(light.users, free.users)
    light.eval(), free.eval()
    light.prepare(), free.prepare()
    assert torch.equal(light.scores(log.histories(np.arange(USERS))), free.scores(log.histories(np.arange(USERS))))


def test_chances_of_the_first_draw_by_hand() -> None:
    log = Log(np.array([0, 2, 3]), np.array([0, 1, 1], dtype=np.int32), 2)
    np.testing.assert_allclose(make(log, neighbours=1).chances(), [0.3694, 0.2612, 0.3694], atol=1e-4)


def test_edges_of_low_degree_are_kept_more_often_and_their_number_is_exact() -> None:
    log = random_log()
    model = make(log, drop=0.7)
    edges = model._edges.shape[1]
    times, graphs = np.zeros(edges), []
    for epoch in range(200):
        model.on_epoch(epoch, draws(0, epoch, 0, purpose=9))
        assert len(model.kept) == int(edges * 0.3) == len(model.kept.unique())
        times[model.kept.numpy()] += 1
        graphs.append(model.kept.tolist())
    assert graphs[0] != graphs[1]
    order = np.argsort(model.chances())
    assert times[order[: edges // 4]].mean() < 0.8 * times[order[-edges // 4 :]].mean()


def test_the_kept_graph_is_normalised_by_its_own_degrees_and_answers_use_the_whole() -> None:
    log = random_log()
    model = make(log, drop=0.5)
    model.on_epoch(0, draws(0, 0, 0, purpose=9))
    dense = model.thinned().to_dense()
    degrees = (dense > 0).sum(1)
    u, i = model._edges[:, model.kept.long()]
    torch.testing.assert_close(dense[u, USERS + i], (degrees[u] * degrees[USERS + i]).float().rsqrt())
    trained = model.train().nodes()[0]
    assert not torch.equal(trained, model.eval().nodes()[0])
    assert not torch.equal(make(log, drop=0.5).train().nodes()[0], make(log, drop=0.0).train().nodes()[0])


def test_loss_and_gradient_equal_plain_autograd() -> None:
    log = random_log()
    model = make(log, given(log, {"image": 3}), drop=0.0, aux=0.3)
    batch = next(PairBatcher(log, 64, 1, seed=0).epoch(0))
    model.loss(batch).backward()
    fast = [model.items.grad.clone(), model.content.values_1.grad.to_dense()]
    model.zero_grad()
    A, x = model.adjacency.to_dense(), torch.cat([model.users, model.items])
    mean = (x + A @ x + A @ A @ x) / 3
    weights, dense = model.graph.weights(), [S.to_dense() for S, _ in model.graph.products()]
    u, i = mean[:USERS][batch.users], mean[USERS:] + sum(weights[:, n, None] * (S @ model.items) for n, S in enumerate(dense))
    negatives = batch.negatives[:, 0]
    plain = torch.nn.functional.softplus((u * i[negatives]).sum(1) - (u * i[batch.items]).sum(1)).mean()
    for n in range(2):
        p = model.content.maps[n](getattr(model.content, f"values_{n}"))
        keep = torch.ones(len(u), dtype=torch.bool) if n == 0 else (batch.items != 3) & (negatives != 3)
        plain = plain + 0.3 * torch.nn.functional.softplus((u * p[negatives]).sum(1) - (u * p[batch.items]).sum(1))[keep].mean()
    plain.backward()
    torch.testing.assert_close(fast[0], model.items.grad)
    torch.testing.assert_close(fast[1], model.content.values_1.grad)


def test_a_cold_item_answers_by_its_neighbours_and_one_without_content_not_at_all() -> None:
    log = random_log(cold=5)
    model = make(log, given(log, {"text": 7, "image": 7}), vectors=["text"]).eval()
    assert not model.items[5].any() and model.can.cold_items
    ids = model.graph.neighbours(0)[0]
    torch.testing.assert_close(model.nodes()[1][5], model.items[ids[5].long()].mean(0))
    S = model.graph.products()[0][0].to_dense()
    assert not S[7].any() and not S[:, 7].any() and (ids[7] == -1).all()


def test_missing_kinds_leave_the_others_their_share() -> None:
    model = make(random_log(), given(random_log(), {"image": 2}), graph_weights=[0.7, 0.3])
    weights = model.graph.weights()
    torch.testing.assert_close(weights[[2, 4]], torch.tensor([[1.0, 0.0], [0.7, 0.3]]))
    torch.testing.assert_close(model.graph(torch.ones(ITEMS, 1)), torch.ones(ITEMS, 1))


def test_learned_fusion_moves_and_cosine_edges_are_those_of_lattice() -> None:
    log = random_log()
    model = make(log, fusion="learned", edges="cosine", drop=0.0, epochs=2, lr=0.05)
    before = model.graph.logits.detach().clone()
    train(model, log, model.config, seed=0, validate=None)
    assert not torch.equal(before, model.graph.logits)
    ids, cosines = model.graph.neighbours(0)
    W = torch.zeros(ITEMS, ITEMS).scatter_(1, ids.long(), cosines.clamp(min=0))
    d = W.sum(1).rsqrt()
    torch.testing.assert_close(model.graph.products()[0][0].to_dense(), d[:, None] * W * d)


def test_frozen_features_are_not_saved_twice() -> None:
    log = random_log()
    assert "content.values_0" in make(log).state_dict() and "content.values_0" not in make(log, features="frozen").state_dict()


@pytest.mark.parametrize("settings", [{"graph_weights": [1.0]}, {"graph_weights": [0.0, 0.0]}, {"vectors": []}])
def test_weights_that_do_not_fit(settings: dict) -> None:
    with pytest.raises(SettingError, match="graph_weights must hold a number for each"):
        make(random_log(), **settings)
