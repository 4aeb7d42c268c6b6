"""Checks of the card base/vbpr that hand values allow; its margin over BPR needs Baby with images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from worlds import ITEMS, USERS, facts, first_batch, grown_by_one, make, random_log

from vitrail.blocks.loss import bpr
from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes
from vitrail.systems.multimodal.vbpr import VBPR
from vitrail.train.loop import train


def test_scores_and_loss_by_hand() -> None:
    content = {"image": torch.tensor([[1.0, 0, 1], [0, 1, 0]])}
    given = Given(torch.tensor([0, 1]), torch.tensor([0]), vectors=content, masks={"image": torch.ones(2, dtype=torch.bool)})
    model = VBPR(VBPR.Config(vectors=("image",), dim=2, content_dim=2, l2=0.0, l2_bias=0.0), Sizes(1, 2, {"image": 3}), given)
    with torch.no_grad():
        model.users.copy_(torch.tensor([[1.0, 2, 1, -1]]))
        model.items.copy_(torch.tensor([[0.5, -0.5], [0.2, 0.1]]))
        model.project.weight.copy_(torch.tensor([[0.1, 0.2, 0], [0, 0.3, 0.1]]))
        model.bias.copy_(torch.tensor([[0.1], [0.0]]))
        model.lean.copy_(torch.tensor([[0.2], [-0.1], [0.3]]))
    scores = model.user(torch.tensor([0])) @ model.item().T
    torch.testing.assert_close(scores, torch.tensor([[0.1, 0.2]]))
    assert float(bpr(scores[:, 0], scores[:, 1:]).detach()) == pytest.approx(0.744397, abs=1e-6)


def test_without_content_it_is_factors_with_item_biases() -> None:
    log = random_log()
    model, batch = make(VBPR, log, l2=0.0, l2_bias=0.0, epochs=2, batch=64), first_batch(log)
    with torch.no_grad():
        model.project.weight.zero_()
    model.project.weight.requires_grad_(False), model.lean.requires_grad_(False)
    loss = model.loss(batch)
    loss.backward()
    u, i, b = (x.detach().clone().requires_grad_() for x in (model.users, model.items, model.bias))

    def scores(items: torch.Tensor) -> torch.Tensor:
        return (u[batch.users, :8] * i[items]).sum(1) + b[items, 0]

    plain = bpr(scores(batch.items), scores(batch.negatives[:, 0])[:, None])
    plain.backward()
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(model.items.grad, i.grad)
    torch.testing.assert_close(model.bias.grad, b.grad)
    train(model, log, model.config, seed=0, validate=None)
    assert not model.project.weight.any() and not model.lean.any()


def test_answers_are_inner_products_and_a_constant_on_all_biases_changes_no_ranking() -> None:
    log = random_log()
    model = make(VBPR, log).eval()
    with torch.no_grad():
        model.bias.normal_(), model.lean.normal_()
        model.prepare()
        plain = model.users[3, :8] @ model.items.T + model.users[3, 8:] @ model.project.weight @ model.content.T
        plain = plain + (model.bias + model.content @ model.lean)[:, 0]
        scores = model.scores(log.histories(np.array([3])))[0]
        torch.testing.assert_close(scores, plain)
        model.bias += 5.0
        model.prepare()
        assert torch.equal(model.scores(log.histories(np.array([3])))[0].argsort(), scores.argsort())
        assert model.answerable(log.histories(np.array([0, 3]))).tolist() == [False, True]


def test_penalty_of_the_paper_and_of_mmrec() -> None:
    log, batch = random_log(), first_batch(random_log())
    n = batch.negatives[:, 0]
    plain, paper = make(VBPR, log, l2=0.0, l2_bias=0.0), make(VBPR, log, l2=0.2, l2_bias=0.3, l2_content=0.4)
    with torch.no_grad():
        plain.bias.fill_(0.5), paper.bias.fill_(0.5)
    squares = lambda *e: sum(float(x.detach().square().sum()) for x in e) / 2 / len(n)  # noqa: E731
    expected = 0.2 * squares(paper.users[batch.users], paper.items[batch.items], paper.items[n]) + 0.3 * squares(paper.bias[batch.items], paper.bias[n])
    expected += 0.4 * squares(paper.project.weight, paper.lean)
    assert float((paper.loss(batch) - plain.loss(batch)).detach()) == pytest.approx(expected, rel=1e-4)
    off, on = make(VBPR, log, form="mmrec", l2=0.0), make(VBPR, log, form="mmrec", l2=0.2)
    norms = on.users[batch.users].norm() + on.item(batch.items).norm() + on.item(n).norm()
    torch.testing.assert_close(on.loss(batch) - off.loss(batch), 0.2 * norms / len(n), rtol=1e-3, atol=1e-6)


def test_a_cold_item_answers_by_its_content_alone_and_one_without_content_by_nothing() -> None:
    log = random_log(cold=5)
    given = facts(log, {"text": 7, "image": 7})
    for form in ("paper", "mmrec"):
        model = make(VBPR, log, given, form=form, content_dim=4).eval()
        vectors = model.item()
        assert not vectors[5, :8].any() and vectors[5, 8:12].any()
        assert not vectors[7, 8:].any()
        grown = grown_by_one(model, log, given)
        torch.testing.assert_close(grown.item()[ITEMS, 8:12], vectors[3, 8:12])
        torch.testing.assert_close(grown.item()[:ITEMS], vectors)
        assert not grown.item()[ITEMS, :8].any()


def test_standardised_kinds_are_equally_long_and_stay_so_when_items_are_added() -> None:
    log = random_log(cold=5)
    given = facts(log, {"image": 2})
    model = make(VBPR, log, given, standardise=True)
    seen = torch.arange(ITEMS) != 5
    for part, lacking in ((slice(0, 6), []), (slice(6, 10), [2])):
        rows = model.content[[i for i in range(ITEMS) if seen[i] and i not in lacking], part]
        torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), atol=1e-6, rtol=0)
        torch.testing.assert_close(rows.square().sum(1).mean(), torch.tensor(1.0))
    assert not model.content[2, 6:].any()
    torch.testing.assert_close(grown_by_one(model, log, given).content[:ITEMS], model.content)


def test_the_user_without_events_has_no_vector() -> None:
    log = Log(random_log().indptr, random_log().items, ITEMS)
    assert not make(VBPR, log).user(torch.arange(USERS))[0].any()
