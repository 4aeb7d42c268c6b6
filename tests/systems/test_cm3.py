"""Checks of the card collaborative/cm3 that hand values allow (slerp: blocks/test_modality.py, calibrated uniformity: blocks/test_loss.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from worlds import ITEMS, USERS, as_strangers, facts, first_batch, grown_by_one, make, random_log

from vitrail.errors import SettingError
from vitrail.systems.multimodal.cm3 import CM3
from vitrail.train.loop import train


def test_forward_and_loss_equal_the_formulas() -> None:
    log = random_log()
    model, batch = make(CM3, log, facts(log, {"image": 3}), layers=2, gamma=0.7).eval(), first_batch(log, 16)
    fast = model.loss(batch)
    p, q = (F.normalize(model.mixed(n), dim=1) for n in range(2))
    angle = torch.acos((p * q).sum(1, keepdim=True))
    mix = (torch.sin(angle / 2) / torch.sin(angle)) * (p + q)
    mix[3] = p[3]  # it has text alone
    kinds = [model.content(0), model.content(1) * (torch.arange(ITEMS) != 3)[:, None], mix]
    users = model.users.view(USERS, 3, 8) * (torch.from_numpy(log.lengths) > 0)[:, None, None]
    x = torch.cat([F.normalize(torch.cat([users[:, b], kinds[b]]), dim=1) for b in range(3)], 1)
    A, S = model.adjacency.to_dense(), model.graph(torch.eye(ITEMS))
    summed = x + A @ x + A @ A @ x
    u = (summed[:USERS].view(USERS, 3, 8) * model.leaning.softmax(1)[:, :, None]).flatten(1)
    i = summed[USERS:] + S @ summed[USERS:]
    for made, expected in zip(model.nodes(), (u, i), strict=True):
        torch.testing.assert_close(made, expected)
    negatives = batch.negatives[:, 0]
    U, P, N = (F.normalize(v, dim=1) for v in (u[batch.users], i[batch.items], i[negatives]))
    a, b = torch.triu_indices(16, 16, 1)
    similar = F.cosine_similarity(mix[negatives][a], mix[negatives][b]).clamp(0, 0.8)
    apart = torch.exp(-2 * ((N[a] - N[b]).square().sum(1) - 2 + 2 * similar)).mean().log()
    plain = (U - P).square().sum(1).mean() + 0.35 * (torch.exp(-2 * (U[a] - U[b]).square().sum(1)).mean().log() + apart)
    torch.testing.assert_close(fast, plain)


def test_scale_of_what_is_scored_does_not_move_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    log = random_log()
    model, batch = make(CM3, log).eval(), first_batch(log)
    plain, nodes = model.loss(batch), model.nodes
    monkeypatch.setattr(model, "nodes", lambda: tuple(3.0 * x for x in nodes()))
    torch.testing.assert_close(model.loss(batch), plain)


def test_without_uniformity_everything_collapses() -> None:
    log = random_log()
    model = make(CM3, log, gamma=0.0, epochs=40, lr=0.03, batch=64, item_layers=0)
    progress = train(model, log, model.config, seed=0, validate=None).progress
    assert progress.curve[-1]["loss"] < 0.1 * progress.curve[0]["loss"]
    kept = make(CM3, log, gamma=0.9, epochs=40, lr=0.03, batch=64, item_layers=0)
    train(kept, log, kept.config, seed=0, validate=None)
    alike = []
    for one in (model.eval(), kept.eval()):
        users = F.normalize(one.nodes()[0][1:], dim=1)
        alike.append(float((users @ users.T).mean().detach()))
    assert alike[0] > 0.9 > alike[1] + 0.1


def test_training_mixes_at_random_and_answers_do_not() -> None:
    model = make(CM3, random_log(), facts(random_log(), {"text": 7, "image": 7}))
    assert not torch.equal(model.together(), model.together())
    model.eval()
    assert torch.equal(model.together(), model.together()) and not model.together()[7].any()
    torch.testing.assert_close(model.train().together().norm(dim=1), (torch.arange(ITEMS) != 7).float())


def test_cold_and_new_items_and_strangers() -> None:
    log = random_log(cold=5)
    given = facts(log)
    model = make(CM3, log, given, layers=1).eval()
    with torch.no_grad():
        model.users.zero_(), model.leaning.fill_(0.3)
        items = model.nodes()[1]
        assert items[5].any() and not model.nodes()[0][0].any()
        grown = grown_by_one(model, log, given)
        torch.testing.assert_close(grown.nodes()[1][:ITEMS], items)
        assert F.cosine_similarity(grown.nodes()[1][ITEMS], items[3], dim=0) > 0.5
        model.prepare()
        known, stranger = model.query_vectors(log.histories(np.array([3, 9]))), model.query_vectors(as_strangers(log, [3, 9]))
    torch.testing.assert_close(known, stranger)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"loss": "bce"}, "has a loss of its own"),
        ({"min_similar": 0.9}, "the least not above the largest"),
        ({"graph_weights": [1.0]}, "graph_weights must hold a number for each"),
        ({"vectors": []}, "graph_weights must hold a number for each"),
    ],
)
def test_settings_that_do_not_fit(settings: dict, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        make(CM3, random_log(), **settings)
