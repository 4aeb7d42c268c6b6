"""Checks of the card collaborative/sige that hand values allow; the ablations on Baby, and the margin over FREEDOM, need its features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks.graph import nudge
from vitrail.blocks.loss import anchored, info_nce
from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.lightgcn import LightGCN
from vitrail.systems.multimodal.sige import SIGE
from vitrail.train.loop import train

USERS, ITEMS, KINDS = 20, 15, {"text": 6, "image": 4}
have = np.random.default_rng(0).random((USERS, ITEMS)) < 0.3
have[0] = False
have[:, 9] = False  # an item that nobody met
LOG = Log(np.concatenate([[0], np.cumsum(have.sum(1))]), np.nonzero(have)[1].astype(np.int32), ITEMS)
QUIET = {"noise": 0.0, "contrast": 0.0, "anchor": 0.0, "align": 0.0}


def given(lacking: dict[str, int] | None = None) -> Given:
    rng, plain = np.random.default_rng(1), Given.of(LOG, SIGE.needs)
    vectors = {name: torch.from_numpy(rng.normal(size=(ITEMS, width)).astype(np.float32)) for name, width in KINDS.items()}
    masks = {name: torch.ones(ITEMS, dtype=torch.bool) for name in KINDS}
    for name, item in (lacking or {}).items():
        masks[name][item] = False
        vectors[name][item] = 0.0
    return Given(plain.indptr, plain.items, vectors=vectors, masks=masks)


def make(facts: Given | None = None, **settings: object) -> SIGE:
    torch.manual_seed(0)
    return SIGE(SIGE.Config.of({"dim": 4, "neighbours": 3, "batch": 32, "epochs": 3, **settings}), Sizes(USERS, ITEMS, KINDS), facts or given())


def test_without_content_it_is_lightgcn_exactly() -> None:
    model = make(vectors=[], **QUIET)
    torch.manual_seed(0)
    config = LightGCN.Config(dim=4, layers=2, batch=32, epochs=3, init="xavier")
    light = LightGCN(config, Sizes(USERS, ITEMS), Given.of(LOG, LightGCN.needs))
    with torch.no_grad():
        light.items[9] = 0.0  # an item that nobody met starts at 0 here
    curves = [[r["loss"] for r in train(m, LOG, m.config, seed=3, validate=None).progress.curve] for m in (model, light)]
    assert curves[0] == curves[1] and torch.equal(model.items, light.items)


def test_without_infusion_and_alignment_two_views_are_added() -> None:
    model = make(share=0.0, **QUIET)
    A, x = model.adjacency.to_dense(), torch.cat([model.users, model.items])
    behaviour = (x + A @ x + A @ A @ x) / 3
    said = [graph.products()[0][0].to_dense() @ model.content(n) for n, graph in enumerate(model.graphs)]
    R = torch.from_numpy(LOG.matrix().toarray()).float()
    heard = [R @ e / R.sum(1, keepdim=True).clamp(min=1) for e in said]
    content = torch.cat([torch.stack(heard).mean(0), torch.stack(said).mean(0)])
    torch.testing.assert_close(torch.cat(model.nodes()), behaviour + content)


def test_an_item_that_lacks_a_kind_has_the_other_alone() -> None:
    model = make(given({"image": 4}))
    model.nodes()
    (_, content), said = model._views
    torch.testing.assert_close(content[USERS + 4], said[0][4])
    assert not said[1][4].any()
    u = int(np.flatnonzero(have[:, 4])[0])
    mine = [i for i in np.flatnonzero(have[u]) if i != 4]
    torch.testing.assert_close(content[u], (said[0][np.flatnonzero(have[u])].mean(0) + said[1][mine].mean(0)) / 2)


def test_noise_goes_with_the_length_of_a_vector() -> None:
    torch.manual_seed(0)
    e = torch.randn(50, 8)
    found = []
    for c in (1.0, 7.0):
        torch.manual_seed(1)
        one, two = (nudge(c * e, 0.3 * (c * e).norm(dim=1, keepdim=True)) for _ in range(2))
        torch.testing.assert_close((one - c * e).norm(dim=1) / (c * e).norm(dim=1), torch.full((50,), 0.3))
        found.append(F.cosine_similarity(one, two))
    torch.testing.assert_close(*found)


def test_without_noise_both_views_are_one() -> None:
    e = torch.randn(5, 3)
    unit = F.normalize(e, dim=1)
    expected = torch.logsumexp(unit @ unit.T / 0.2, 1).mean() - 1 / 0.2
    torch.testing.assert_close(info_nce(nudge(e, 0.0), nudge(e, 0.0), 0.2), expected)


def test_an_anchor_by_hand() -> None:
    eye = torch.eye(2)
    # both of its own have cosine 1, both others 0: -log(e^2 / (2 e^2 + 2)) at temperature 1/2
    assert float(anchored(eye, eye, eye, 0.5)) == pytest.approx(math.log(2 + 2 * math.exp(-2)), abs=1e-6)
    same = torch.ones(4, 3)
    assert float(anchored(same, same, same, 0.2)) == pytest.approx(math.log(8), abs=1e-5)
    assert float(anchored(eye, eye, eye.flip(0), 0.5)) == pytest.approx(math.log(2 + 2 * math.exp(2)) - 1, abs=1e-6)


def test_the_anchor_is_not_moved_and_the_rest_is() -> None:
    batch = next(make().batcher(LOG, 0, 0, 1).epoch(0))

    def gradients(**settings: float) -> tuple[torch.Tensor, torch.Tensor]:
        model = make(given({"text": 2}), l2=0.0, **{**QUIET, **settings})
        model.nodes()
        value = model.regulariser(batch)
        assert value.requires_grad
        value.backward()
        return model.items.grad, model.content.maps[0].weight.grad

    for settings, moves in (({"anchor": 1.0}, False), ({"align": 1.0}, True), ({"contrast": 1.0, "noise": 0.1}, False)):
        ids, content = gradients(**settings)
        assert (ids is not None and bool(ids.any())) is moves and content.any()


def test_a_cold_item_answers_by_its_content() -> None:
    model = make(given({"text": 7, "image": 7})).eval()
    assert model.can.cold_items and not model.items[9].any()
    assert model.nodes()[1][9].any()
    with torch.no_grad():
        model.prepare()
    assert model._views == ([], []) and torch.isfinite(model._items).all()


def test_a_stranger_with_a_user_s_history_is_that_user_where_both_start_at_zero() -> None:
    for settings in ({}, {"vectors": []}):
        model = make(given({"image": 4}), layers=1, **settings).eval()
        with torch.no_grad():
            model.users[3] = 0
            model.prepare()
            h = LOG.histories(np.array([3]))
            torch.testing.assert_close(model.fold_in(Sets(torch.tensor([-1]), h.indptr, h.items))[0], model._users[3])


def test_items_that_come_later_are_neighbours_of_old_ones() -> None:
    facts = given()
    more = {name: torch.cat([values, values[:1]]) for name, values in facts.vectors.items()}
    masks = {name: torch.ones(ITEMS + 1, dtype=torch.bool) for name in KINDS}
    model = make(facts).eval()
    model.nodes()
    grown = model.grown(Sizes(USERS, ITEMS + 1, KINDS), Given(facts.indptr, facts.items, vectors=more, masks=masks))
    assert grown.graphs[0].neighbours(0)[0][ITEMS].tolist()[:2] == [ITEMS, 0]
