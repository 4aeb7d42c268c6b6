"""Losses as slots: every host takes every loss, and logits are corrected for how negatives were drawn."""

import math

import numpy as np
import pytest
import torch

from vitrail.data.log import Log
from vitrail.systems import skeletons
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.bpr_mf import BPRMF
from vitrail.systems.collaborative.lightgcn import LightGCN
from vitrail.systems.sampling import LossSettings, from_samples, log_chance
from vitrail.systems.sequential.sasrec import SASRec
from vitrail.train.loop import train

LOSSES = ["bpr", "bpr_max", "bce", "gbce", "ccl", "sampled_softmax", "full_softmax"]
rng = np.random.default_rng(0)
HAVE = rng.random((20, 15)) < 0.4
LOG = Log(np.concatenate([[0], np.cumsum(HAVE.sum(1))]), np.nonzero(HAVE)[1].astype(np.int32), 15)


def given(**settings):
    counts = torch.tensor([8, 4, 2, 1, 0])
    return LossSettings(loss="sampled_softmax", **settings), Given(item_counts=counts)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("cls", [BPRMF, LightGCN, SASRec], ids=["bpr-mf", "lightgcn", "sasrec"])
def test_every_loss_falls_in_every_host(cls, loss, cosine):
    torch.manual_seed(0)
    config = cls.Config(dim=8, epochs=12, lr=0.02, batch=16, negatives=4, power=0.5, loss=loss, cosine=cosine, negative_weight=2.0, margin=0.3)
    model = cls(config, Sizes(LOG.n_users, LOG.n_items), Given.of(LOG, cls.needs))
    curve = [r["loss"] for r in train(model, LOG, config, seed=0, validate=None).progress.curve]
    assert min(curve[-3:]) < curve[0]
    if cosine:
        model.eval().prepare()
        histories = LOG.histories(np.arange(5))
        assert float(model.scores(histories).detach().abs().max()) <= 1 + 1e-5


def test_shared_negatives_have_the_same_loss_as_the_same_ones_for_each():
    torch.manual_seed(0)
    for loss in ("bpr", "bce", "ccl", "sampled_softmax"):
        model = BPRMF(BPRMF.Config(dim=4, loss=loss, power=0.5, negatives=3, shared_negatives=True), Sizes(20, 15), Given.of(LOG, BPRMF.needs))
        batch = next(model.batcher(LOG, 0, 0, 1).epoch(0))
        each = type(batch)(batch.users, batch.items, batch.negatives.expand(len(batch.users), -1))
        assert float((model.loss(batch) - model.regulariser(batch)).detach()) == pytest.approx(
            float((model.loss(each) - model.regulariser(each)).detach()), rel=1e-5
        )


@pytest.mark.parametrize("loss", ["bpr", "full_softmax"])
def test_a_table_that_lies_ready_gives_the_loss_and_gradients_of_one_that_is_gathered(loss, monkeypatch):
    found = []
    for ready in (True, False):
        monkeypatch.setattr(BPRMF, "ready", ready)
        torch.manual_seed(0)
        model = BPRMF(BPRMF.Config(dim=4, negatives=3, l2=0.2, loss=loss), Sizes(20, 15), Given.of(LOG, BPRMF.needs))
        value = model.loss(next(model.batcher(LOG, 0, 0, 1).epoch(0)))
        value.backward()
        found.append((value, model.users.grad, model.items.grad))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("cosine", [False, True])
def test_many_negatives_in_a_small_catalogue_have_the_loss_and_gradient_of_their_own_vectors(monkeypatch, cosine):
    found = []
    for many in (skeletons.MANY, 0):
        monkeypatch.setattr(skeletons, "MANY", many)
        torch.manual_seed(0)
        model = BPRMF(BPRMF.Config(dim=4, loss="sampled_softmax", negatives=9, cosine=cosine, l2=0.1), Sizes(20, 15), Given.of(LOG, BPRMF.needs))
        value = model.loss(next(model.batcher(LOG, 0, 0, 1).epoch(0)))
        value.backward()
        found.append((value.detach(), model.users.grad, model.items.grad))
    torch.testing.assert_close(*found)


def test_log_chance_follows_the_counts_and_is_asked_only_where_it_matters():
    torch.testing.assert_close(log_chance(*given(power=0.5), 5), 0.5 * torch.tensor([8.0, 4, 2, 1, 1]).log())
    assert log_chance(*given(power=0.0), 5) is None and log_chance(*given(power=1.0, correct=False), 5) is None
    with pytest.raises(TypeError, match="item_counts"):
        log_chance(given(power=1.0)[0], Given(), 5)


def test_a_constant_chance_changes_nothing():
    torch.manual_seed(0)
    config = LossSettings(loss="sampled_softmax", power=1.0)
    positive, negative, items, negatives = torch.randn(6), torch.randn(6, 4), torch.arange(6), torch.arange(6, 10)
    plain = from_samples(config, positive, negative, items, negatives, 10, None)
    corrected = from_samples(config, positive, negative, items, negatives, 10, torch.full((10,), -2.3))
    torch.testing.assert_close(plain, corrected)


def fitted_scores(correct):
    """Free scores of 150 items, targets drawn from P, negatives from another Q."""
    torch.manual_seed(0)
    n = 150
    P = torch.softmax(torch.randn(n), 0)
    counts = (1000 * torch.softmax(1.5 * torch.randn(n), 0)).round().clamp(min=1).long()
    config, facts = LossSettings(loss="sampled_softmax", power=1.0, correct=correct), Given(item_counts=counts)
    log_q, Q = log_chance(config, facts, n), counts / counts.sum()
    s = torch.zeros(n, requires_grad=True)
    optimizer = torch.optim.Adam([s], lr=0.05)
    for step in range(300):
        if step == 200:
            optimizer.param_groups[0]["lr"] = 0.01
        items, negatives = torch.multinomial(P, 1500, replacement=True), torch.multinomial(Q, 1500 * 5, replacement=True).view(1500, 5)
        loss = from_samples(config, s[items], s[negatives], items, negatives, n, log_q)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gap = s.detach() - P.log()
    return float(gap.std())


def test_with_the_correction_scores_are_log_chances_whatever_negatives_were_drawn():
    assert fitted_scores(True) < 0.25 and fitted_scores(False) > 0.8


def test_temperature_and_loss_of_ignorance():
    config = LossSettings(loss="sampled_softmax", temperature=0.5)
    zeros = from_samples(config, torch.zeros(4), torch.zeros(4, 3), torch.arange(4), torch.arange(4, 7), 10, None)
    assert float(zeros) == pytest.approx(math.log(4))
    half = from_samples(config, torch.ones(1), torch.zeros(1, 1), torch.tensor([0]), torch.tensor([1]), 10, None)
    assert float(half) == pytest.approx(math.log1p(math.exp(-2)), abs=1e-6)
