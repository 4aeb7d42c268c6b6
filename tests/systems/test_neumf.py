"""Checks of the card base/neumf that hand values allow; the margin over popularity on ML-1M needs a recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from worlds import ITEMS, USERS, make, random_log

from vitrail.data.batchers import PairBatcher, draws
from vitrail.errors import SettingError
from vitrail.systems.base import Sizes
from vitrail.systems.collaborative.neumf import NeuMF
from vitrail.systems.pair_scorer import PairScorer
from vitrail.train.loop import train

ONE = torch.tensor([0])


def test_logit_and_loss_by_hand() -> None:
    model = make(NeuMF, random_log(), dim=2, layers=[2, 2])
    with torch.no_grad():
        model.users[0], model.items[0] = torch.tensor([1.0, 2]), torch.tensor([3.0, -1])
        model.tower_users[0], model.tower_items[0] = torch.tensor([1.0]), torch.tensor([-2.0])
        model.tower[0].weight.copy_(torch.tensor([[1.0, 1], [-1, -1]]))
        model.tower[0].bias.zero_()
        model.product_out.weight.copy_(torch.tensor([[0.5, 0.5]]))
        model.tower_out.weight.copy_(torch.tensor([[1.0, 1]]))
    assert torch.equal(model.climb(model.tower_users[:1], model.tower_items[:1]), torch.tensor([[0.0, 1]]))
    logit = model.pair_scores(ONE, ONE).detach()
    assert float(logit) == 1.5 and float(torch.sigmoid(logit)) == pytest.approx(0.817574, abs=1e-6)
    assert float(F.binary_cross_entropy_with_logits(logit, torch.ones(1))) == pytest.approx(0.201413, abs=1e-6)


def test_halves_trained_apart_are_joined_to_half_their_sum() -> None:
    log = random_log()
    model = make(NeuMF, log, pretrain=2, epochs=2, batch=32)
    train(model, log, model.config, seed=0, validate=None)
    assert model.apart
    users, items = torch.arange(USERS)[:, None], torch.arange(ITEMS)[None]
    product, tower = model.halves(users, items)
    before = model.pair_scores(users, items)
    torch.testing.assert_close(before, 0.5 * (product + tower))
    model.on_epoch(2, draws(0, 2, 0))
    assert not model.apart
    torch.testing.assert_close(model.pair_scores(users, items), before)


def test_apart_each_half_learns_as_it_would_alone() -> None:
    log = random_log()
    both, alone = make(NeuMF, log, pretrain=5), make(NeuMF, log, form="gmf")
    batch = next(PairBatcher(log, 32, 4, seed=0).epoch(0))
    both.loss(batch).backward()
    alone.loss(batch).backward()
    torch.testing.assert_close(both.items.grad, alone.items.grad)
    assert alone.tower_items.grad is None


def test_with_a_plain_product_it_is_factorisation_and_the_tower_is_not_symmetric() -> None:
    model = make(NeuMF, random_log(), layers=[8, 4])
    with torch.no_grad():
        model.product_out.weight.fill_(1.0)
        model.tower_out.weight.zero_()
        u, i = torch.arange(5)[:, None], torch.arange(7)[None]
        torch.testing.assert_close(model.pair_scores(u, i), model.users[:5] @ model.items[:7].T)
        a, b = torch.randn(1, 4), torch.randn(1, 4)
        assert not torch.allclose(model.climb(a, b), model.climb(b, a))


def test_the_tower_is_that_of_concatenated_vectors() -> None:
    model = make(NeuMF, random_log(), layers=[8, 6, 4])
    p, q = torch.randn(3, 1, 4), torch.randn(1, 5, 4)
    h = torch.cat(torch.broadcast_tensors(p, q), -1)
    for layer in model.tower:
        h = torch.relu(layer(h))
    torch.testing.assert_close(model.climb(p, q), h)
    bare = make(NeuMF, random_log(), layers=[8])
    torch.testing.assert_close(bare.climb(p, q), torch.cat(torch.broadcast_tensors(p, q), -1))


def test_loss_is_the_mean_over_all_pairs_and_the_regulariser() -> None:
    log = random_log()
    model, heavy = make(NeuMF, log), make(NeuMF, log, l2=0.5)
    batch = next(PairBatcher(log, 32, 4, seed=0).epoch(0))
    items = torch.cat([batch.items[:, None], batch.negatives], 1)
    logits = model.pair_scores(batch.users[:, None], items)
    plain = -(F.logsigmoid(logits[:, 0]).sum() + F.logsigmoid(-logits[:, 1:]).sum()) / items.numel()
    torch.testing.assert_close(model.loss(batch), plain)
    squares = sum(t.square().sum() for t in (model.users[batch.users], model.items[items], model.tower_users[batch.users], model.tower_items[items]))
    torch.testing.assert_close(heavy.loss(batch) - model.loss(batch), 0.5 * squares / 2 / 32, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("settings", "sentence"), [({"loss": "bpr"}, "has a loss of its own"), ({"layers": [7, 3]}, "name one that is even")])
def test_settings_that_do_not_fit(settings: dict, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        make(NeuMF, random_log(), **settings)


def test_one_half_alone_has_its_own_vectors_for_similarity() -> None:
    log = random_log()
    for form, width in (("gmf", 8), ("mlp", 32), ("neumf", 40)):
        assert make(NeuMF, log, form=form).item().shape == (ITEMS, width)
    assert NeuMF.memory(NeuMF.Config(), Sizes(USERS, ITEMS), 100) > 0


class Sum(PairScorer):
    """The losses of the skeleton, on scores that add."""

    def build(self, config: PairScorer.Config, sizes: Sizes, given: object) -> None:
        self.table = torch.nn.Parameter(torch.randn(sizes.items, 1))

    def pair_scores(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return users * 0.1 + self.table[items, 0]

    def item(self) -> torch.Tensor:
        return self.table


def test_the_skeleton_scores_in_blocks_and_has_every_loss() -> None:
    log = random_log()
    model = make(Sum, log, loss="bpr", negatives=3)
    batch = next(model.batcher(log, 0, 0, 1).epoch(0))
    table = model.table[:, 0]
    torch.testing.assert_close(model.loss(batch), F.softplus(table[batch.negatives] - table[batch.items][:, None]).mean())
    model.prepare()
    histories = log.histories(np.array([0, 4, -1]))
    torch.testing.assert_close(model.scores(histories)[1], 0.4 + table)
    assert model.answerable(histories).tolist() == [False, True, False]
    assert model.similarity(ONE).shape == (1, ITEMS)
