"""Checks of the card base/simplex that hand values allow; the loss itself is checked with the losses, Gowalla needs its data."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.data.batches import Pairs, Sets
from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.simplex import SimpleX

HAVE = np.random.default_rng(0).random((20, 15)) < 0.4
HAVE[2] = False
LOG = Log(np.concatenate([[0], np.cumsum(HAVE.sum(1))]), np.nonzero(HAVE)[1].astype(np.int32), 15)
KINDS = ["mean", "user_attention", "self_attention"]


def make(**settings):
    torch.manual_seed(0)
    return SimpleX(SimpleX.Config(**({"dim": 6, "negatives": 5} | settings)), Sizes(20, 15), Given.of(LOG, SimpleX.needs)).eval()


def strangers(*histories):
    indptr = torch.tensor(np.concatenate([[0], np.cumsum([len(h) for h in histories])]))
    return Sets(torch.full((len(histories),), -1), indptr, torch.tensor([i for h in histories for i in h], dtype=torch.int64))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_order_of_the_history_change_nothing(kind):
    model = make(aggregate=kind)
    own = torch.randn(1, 6)
    items = torch.tensor([[3, 7, 1]])
    short = model.fuse(own, items, torch.ones(1, 3, dtype=torch.bool))
    padded = model.fuse(own, F.pad(items, (0, 4)), F.pad(torch.ones(1, 3, dtype=torch.bool), (0, 4)))
    turned = model.fuse(own, items[:, [2, 0, 1]], torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(short, padded)
    torch.testing.assert_close(short, turned)


def test_the_mean_by_hand():
    model = make(gamma=0.3)
    items = model.items[[4, 9]].mean(0)
    torch.testing.assert_close(model.fold_in(strangers([4, 9]))[0], 0.7 * model.out(items))
    user = 5
    own = torch.from_numpy(LOG.items[LOG.indptr[user] : LOG.indptr[user + 1]].astype(np.int64))
    expected = 0.3 * model.users[user] + 0.7 * model.out(model.items[own].mean(0))
    torch.testing.assert_close(model.user(torch.tensor([user]))[0], expected)


def test_attention_by_hand():
    model = make(gamma=0.5, aggregate="user_attention")
    own, items = torch.randn(6), torch.tensor([4, 9])
    keys = torch.tanh(model.key(model.items[items]))
    weights = torch.softmax(keys @ own, 0)
    expected = 0.5 * own + 0.5 * model.out(weights @ model.items[items])
    torch.testing.assert_close(model.fuse(own[None], items[None], torch.ones(1, 2, dtype=torch.bool))[0], expected)


def test_only_the_newest_are_read():
    model = make(history=2)
    torch.testing.assert_close(model.fold_in(strangers([1, 2, 3, 4])), model.fold_in(strangers([3, 4])))


def test_with_gamma_one_histories_say_nothing_and_lengths_of_items_neither():
    model = make(gamma=1.0)
    assert not hasattr(model, "out")
    model.prepare()
    known = LOG.histories(np.array([1, 2]))
    scores = model.scores(known)
    torch.testing.assert_close(scores[0], F.cosine_similarity(model.users[1][None], model.items))
    assert model.answerable(known).tolist() == [True, False] and not bool(model.answerable(strangers([1, 2]))[0])
    with torch.no_grad():
        model.items *= torch.rand(15, 1) + 0.5
    model.prepare()
    torch.testing.assert_close(model.scores(known)[0], scores[0])


def test_the_loss_is_the_cosine_contrastive_loss():
    model = make(gamma=0.5, margin=0.1, negative_weight=7.0, l2=0.0)
    batch = Pairs(torch.tensor([1, 4, 5]), torch.tensor([2, 3, 4]), torch.tensor([0, 6, 7, 8]))
    u, i = F.normalize(model.user(batch.users), dim=1), F.normalize(model.items, dim=1)
    positive, negative = (u * i[batch.items]).sum(1), u @ i[batch.negatives].T
    expected = (1 - positive).mean() + 7 * F.relu(negative - 0.1).mean()
    torch.testing.assert_close(model.loss(batch), expected)


def test_a_new_person_is_answered_by_history_alone():
    model = make()
    model.prepare()
    assert model.answerable(strangers([1, 2], [])).tolist() == [True, False]
    assert model.scores(strangers([1, 2])).abs().max() <= 1 + 1e-5
