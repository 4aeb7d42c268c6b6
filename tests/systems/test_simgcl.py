"""Checks of the card base/simgcl that hand values allow; InfoNCE is checked with the losses, Yelp2018 needs its data."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from worlds import plain_log

from vitrail.blocks.graph import nudge
from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.lightgcn import LightGCN
from vitrail.systems.collaborative.simgcl import SimGCL
from vitrail.train.loop import train

LOG = plain_log(30, 20)


def make(cls=SimGCL, **settings):
    torch.manual_seed(0)
    return cls(cls.Config(**({"dim": 8} | settings)), Sizes(LOG.n_users, LOG.n_items), Given.of(LOG, cls.needs))


def test_noise_has_its_length_and_changes_no_sign():
    torch.manual_seed(0)
    x = torch.randn(50, 8)
    x[3] = 0
    moved = nudge(x, 0.1)
    lengths = (moved - x).norm(dim=1)
    assert float(lengths[3]) == 0
    torch.testing.assert_close(lengths[torch.arange(50) != 3], torch.full((49,), 0.1), atol=1e-6, rtol=0)
    assert torch.equal(moved.sign(), x.sign())
    assert not torch.equal(nudge(x, 0.1), moved)


def test_noise_is_passed_on():
    model = make(layers=2)
    torch.manual_seed(1)
    noisy = model.passes(0.1)
    torch.manual_seed(1)
    A, x = model.adjacency, torch.cat([model.users, model.items])
    first = nudge(A @ x, 0.1)
    torch.testing.assert_close(noisy[1], nudge(A @ first, 0.1))


@pytest.mark.parametrize("form", ["simgcl", "xsimgcl"])
def test_without_contrast_and_noise_it_is_lightgcn_without_layer_zero(form, monkeypatch):
    def nodes(self):
        mean = torch.stack(self._layers()[1:]).mean(0)
        return mean[: len(self.users)], mean[len(self.users) :]

    monkeypatch.setattr(LightGCN, "nodes", nodes)
    monkeypatch.setattr(LightGCN, "regulariser", lambda self, batch: 0.0)
    shared = {"epochs": 3, "batch": 32, "init": "xavier"}
    a, b = make(form=form, contrast=0, noise=0, l2=0, **shared), make(LightGCN, **shared)
    curves = [[r["loss"] for r in train(m, LOG, m.config, seed=3, validate=None).progress.curve] for m in (a, b)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-6)


def test_contrast_counts_every_id_once():
    model = make(contrast=1.0, noise=0.0, l2=0.0, contrast_temperature=0.2)
    model._step = model.nodes()
    batch = next(model.batcher(LOG, 0, 0, 1).epoch(0))
    users, items = model._step[0][batch.users.unique()], model._step[1][batch.items.unique()]
    expected = 0.0
    for x in (users, items):
        unit = F.normalize(x, dim=1)
        expected = expected - torch.log_softmax(unit @ unit.T / 0.2, 1).diagonal().mean()
    torch.testing.assert_close(model.regulariser(batch), expected)


def test_xsimgcl_answers_without_noise():
    model = make(form="xsimgcl")
    train_nodes, clean = torch.cat(model.train().nodes()), torch.cat(model.eval().nodes())
    assert not torch.equal(train_nodes, clean)
    assert torch.equal(clean, torch.cat(model.nodes()))
    with pytest.raises(SettingError, match="no layer"):
        make(form="xsimgcl", view=4)


def test_contrast_spreads_vectors_out_and_lists_are_less_popular():
    """Where a few items are everywhere: the uniformity value, log mean exp(-2 |x - y|^2), and the mean popularity of lists
    fall as the weight of the contrast grows."""
    have = np.random.default_rng(1).random((60, 40)) < 0.9 / np.arange(1, 41) ** 0.7
    log = Log(np.concatenate([[0], np.cumsum(have.sum(1))]), np.nonzero(have)[1].astype(np.int32), 40)
    uniformity, popularity = [], []
    for weight in (0.0, 0.3, 3.0):
        torch.manual_seed(0)
        model = SimGCL(SimGCL.Config(dim=8, contrast=weight, epochs=15, batch=128, lr=0.01), Sizes(60, 40), Given.of(log, SimGCL.needs))
        train(model, log, model.config, seed=0, validate=None)
        with torch.no_grad():
            model.eval().prepare()
            unit = F.normalize(model._items, dim=1)
            top = model.scores(log.histories(np.arange(60))).topk(5).indices
        uniformity.append(float(torch.log(torch.exp(-2 * torch.pdist(unit).square()).mean())))
        popularity.append(float(log.item_counts[top.numpy()].mean()))
    assert uniformity[0] > uniformity[1] > uniformity[2]
    assert popularity[0] > popularity[1] > popularity[2]


def test_a_user_whose_own_vector_is_zero_is_what_the_history_gives():
    model = make(layers=2).eval()
    with torch.no_grad():
        model.users[3] = 0
        model.prepare()
        h = LOG.histories(np.array([3]))
        folded = model.fold_in(Sets(torch.tensor([-1]), h.indptr, h.items))
    torch.testing.assert_close(folded[0], model._users[3])
    assert not bool(model.answerable(LOG.histories(np.array([0])))[0])
