"""Checks of the card collaborative/bm3 that hand values allow; the margin over LightGCN is in the recipes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes
from vitrail.systems.multimodal.bm3 import BM3
from vitrail.train.loop import train

USERS, ITEMS = 30, 20
KINDS = {"text": 6, "image": 4}


def setting(cold: int | None = None, lacking: int | None = None) -> tuple[Log, Given]:
    rng = np.random.default_rng(0)
    have = rng.random((USERS, ITEMS)) < 0.3
    have[0] = False
    if cold is not None:
        have[:, cold] = False
    log = Log(np.concatenate([[0], np.cumsum(have.sum(1))]), np.nonzero(have)[1].astype(np.int32), ITEMS)
    plain = Given.of(log, BM3.needs)
    vectors = {name: torch.from_numpy(rng.normal(size=(ITEMS, width)).astype(np.float32)) for name, width in KINDS.items()}
    masks = {name: torch.ones(ITEMS, dtype=torch.bool) for name in KINDS}
    if lacking is not None:
        masks["image"][lacking] = False
    return log, Given(plain.indptr, plain.items, vectors=vectors, masks=masks)


def make(log: Log, given: Given, **settings: object) -> BM3:
    torch.manual_seed(0)
    return BM3(BM3.Config.of({"dim": 8, "batch": 32, **settings}), Sizes(USERS, ITEMS, KINDS), given)


def identity(model: BM3) -> BM3:
    with torch.no_grad():
        model.predictor.weight.copy_(torch.eye(8))
        model.predictor.bias.zero_()
    return model


def first(model: BM3, log: Log):
    return next(model.batcher(log, 0, 0, 1).epoch(0))


def test_without_dropout_and_predictor_the_terms_are_those_by_hand() -> None:
    log, given = setting()
    model = identity(make(log, given, dropout=0.0, reg=0.0, contrast=0.0))
    batch, (users, items) = first(model, log), model.nodes()
    u, i = users[batch.users], items[batch.items]
    torch.testing.assert_close(model.loss(batch), 2 * (1 - F.cosine_similarity(u, i).mean()))
    whole = identity(make(log, given, dropout=0.0, reg=0.0, contrast=1.0))
    across = sum(1 - F.cosine_similarity(whole.content(n, batch.items), i).mean() for n in range(2))
    torch.testing.assert_close(whole.loss(batch), model.loss(batch) + across)  # the terms within a kind are exactly 0


def test_regulariser_is_over_whole_tables_not_squared() -> None:
    log, given = setting()
    model, batch = make(log, given, dropout=0.0, reg=0.0), None
    batch = first(model, log)
    more = make(log, given, dropout=0.0, reg=0.5)
    users, items = model.nodes()
    torch.testing.assert_close(more.loss(batch) - model.loss(batch), 0.5 * (users.norm() + items.norm()) / ITEMS)


def test_targets_carry_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    log, given = setting()
    model = make(log, given, dropout=0.0, reg=0.0)
    batch = first(model, log)

    def gradients() -> torch.Tensor:
        model.zero_grad()
        model.loss(batch).backward()
        return model.items.grad.clone()

    stopped = gradients()
    with torch.no_grad():
        users, items = model.nodes()
        kept = iter([items[batch.items], users[batch.users], *(model.content(n, batch.items) for n in range(2))])
    monkeypatch.setattr(model, "target", lambda vectors: next(kept))
    torch.testing.assert_close(gradients(), stopped)
    monkeypatch.setattr(model, "target", lambda vectors: vectors)
    assert not torch.allclose(gradients(), stopped, rtol=1e-3)


def test_targets_drop_in_every_mode() -> None:
    log, given = setting()
    model = make(log, given, dropout=0.5).eval()
    assert (model.target(torch.ones(100, 8)) == 0).float().mean() > 0.3


def test_no_negative_is_drawn() -> None:
    log, given = setting()
    model = make(log, given)
    batch = first(model, log)
    assert batch.negatives.shape == (32, 0)
    torch.manual_seed(1)
    one = model.loss(batch)
    torch.manual_seed(1)
    other = model.loss(replace(batch, negatives=torch.full((32, 3), 7)))
    assert torch.equal(one, other)


def test_without_content_two_terms_remain_and_without_layers_items_count_twice() -> None:
    log, given = setting()
    model = make(log, given, vectors=[], layers=0, dropout=0.0, reg=0.0)
    users, items = model.nodes()
    torch.testing.assert_close(items, 2 * model.items)
    batch = first(model, log)
    u, i = users[batch.users], items[batch.items]
    expected = 2 - F.cosine_similarity(model.predictor(u), i).mean() - F.cosine_similarity(model.predictor(i), u).mean()
    torch.testing.assert_close(model.loss(batch), expected)


def test_answers_are_dot_products_of_predictions() -> None:
    log, given = setting()
    model = make(log, given).eval()
    with torch.no_grad():
        model.prepare()
        users, items = model.nodes()
        scores = model.scores(log.histories(np.array([3])))
        torch.testing.assert_close(scores, model.predictor(users[3:4]) @ model.predictor(items).T)
    assert model.answerable(log.histories(np.array([0, 3]))).tolist() == [False, True]


def test_an_item_that_lacks_a_kind_is_in_no_term_of_it() -> None:
    log, given = setting(lacking=4)
    model = make(log, given, dropout=0.0, reg=0.0)
    model.loss(first(model, log)).backward()
    gradient = model.content.values_1.grad
    assert not gradient[4].any() and gradient.any()


def test_cold_items_by_content_only_where_it_is_asked() -> None:
    log, given = setting(cold=6)
    off, on = make(log, given).eval(), make(log, given, cold="content").eval()
    assert not off.can.cold_items and on.can.cold_items and not BM3.can.cold_items
    with torch.no_grad():
        (_, plain), (_, cold) = off.tables(), on.tables()
        warm = torch.arange(ITEMS) != 6
        torch.testing.assert_close(plain[warm], cold[warm])
        direction = F.normalize(sum(F.normalize(on.predictor(on.content(n)), dim=1) for n in range(2)), dim=1)[6]
        torch.testing.assert_close(cold[6], direction * plain[warm].norm(dim=1).mean())


def test_frozen_features_do_not_move() -> None:
    log, given = setting()
    for features, moves in (("trained", True), ("frozen", False)):
        model = make(log, given, features=features, epochs=2)
        train(model, log, model.config, seed=0, validate=None)
        assert (not torch.equal(model.content.values_0, given.vectors["text"])) is moves
