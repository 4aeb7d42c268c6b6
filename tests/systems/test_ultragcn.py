"""Checks of the card base/ultragcn that hand values allow; Gowalla needs its data."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import sparse

from vitrail.blocks import loss as losses
from vitrail.data.batches import Pairs
from vitrail.data.log import Log
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.ultragcn import UltraGCN, item_weights

X = sparse.csr_array(np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]]))
LOG = Log(X.indptr.astype(np.int64), X.indices.astype(np.int32), 3)


def make(log=LOG, **settings):
    torch.manual_seed(0)
    config = UltraGCN.Config(**({"dim": 4, "negatives": 2, "init_scale": 1.0, "neighbours": 3} | settings))
    model = UltraGCN(config, Sizes(log.n_users, log.n_items), Given.of(log, UltraGCN.needs))
    model.batcher(log, 0, 0, 1)
    return model


def test_degree_weights_by_hand():
    model = make()
    beta = model.beta_users[:, None] * model.beta_items
    torch.testing.assert_close(beta[0], torch.tensor([0.5, 0.433013, 0.5]), atol=1e-6, rtol=0)
    torch.testing.assert_close(beta[1], torch.tensor([0.3849, 0.333333, 0.3849]), atol=1e-5, rtol=0)
    many = Log(np.array([0, 4]), np.arange(4, dtype=np.int32), 5)
    assert make(many).beta_items[4] == 0  # no event, no weight


def dense(ids, weights):
    out = np.zeros((3, 3))
    np.put_along_axis(out, ids, weights, 1)
    return out


@pytest.mark.parametrize("block", [1, 1000])
def test_item_weights_by_hand(block):
    code = dense(*item_weights(X, 3, "code", block))
    np.testing.assert_allclose(code, [[0.4, 0.34641, 0.2], [0.329914, 0.428571, 0.329914], [0.2, 0.34641, 0.4]], atol=1e-6)
    ids, weights = item_weights(X, 2, "paper", block)
    assert ids.tolist() == [[1, 2], [0, 2], [1, 0]]
    np.testing.assert_allclose(weights[0], [0.563436, 0.333333], atol=1e-6)
    np.testing.assert_allclose(weights[1], [0.591608, 0.591608], atol=1e-6)
    ids, weights = item_weights(X, 2, "code", block)
    assert ids[1, 0] == 1 and weights.shape == (3, 2)  # the item itself weighs most


BATCH = Pairs(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([[2, 2], [0, 1]]))


def test_with_constant_weights_it_is_bce():
    model = make(w1=1.0, w3=1.0, w2=0.0, w4=0.0, items_weight=0.0, negatives_weight=1.0, l2=0.0)
    u, i = model.users[BATCH.users], model.items
    positive, negative = (u * i[BATCH.items]).sum(1), (u[:, None] * i[BATCH.negatives]).sum(2)
    torch.testing.assert_close(model.loss(BATCH), losses.bce(positive, negative))


def test_the_loss_term_by_term():
    model = make(w1=0.1, w2=1.0, w3=0.2, w4=0.5, items_weight=2.0, negatives_weight=3.0, l2=0.01)
    beta = model.beta_users[:, None] * model.beta_items
    ids, omega = item_weights(X, 3, "code")
    total = 0.0
    for u, i, js in zip(BATCH.users.tolist(), BATCH.items.tolist(), BATCH.negatives.tolist(), strict=True):
        score = model.items @ model.users[u]
        total = total + (0.1 + beta[u, i]) * F.softplus(-score[i])
        total = total + 3 * sum((0.2 + 0.5 * beta[u, j]) * F.softplus(score[j]) for j in js) / 2
        total = total + 2 * sum(float(w) * F.softplus(-score[k]) for k, w in zip(ids[i], omega[i], strict=True))
    total = total + 0.01 / 2 * (model.users.square().sum() + model.items.square().sum())
    torch.testing.assert_close(model.loss(BATCH), total / 2)
    shared = Pairs(BATCH.users, BATCH.items, torch.tensor([2, 0]))
    each = Pairs(BATCH.users, BATCH.items, torch.tensor([[2, 0], [2, 0]]))
    torch.testing.assert_close(model.loss(shared), model.loss(each))


def test_another_loss_is_refused():
    with pytest.raises(SettingError, match="leave it at bce"):
        make(loss="bpr")
