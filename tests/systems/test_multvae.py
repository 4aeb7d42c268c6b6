"""Checks of the card base/multvae that hand values allow."""

import math

import numpy as np
import pytest
import torch

from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.systems.autoencoder import distinct
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.multvae import MultVAE, kl, multinomial
from vitrail.train.loop import train


def sets(*histories):
    indptr = np.concatenate([[0], np.cumsum([len(h) for h in histories])])
    return Sets(torch.full((len(histories),), -1), torch.from_numpy(indptr), torch.tensor([i for h in histories for i in h], dtype=torch.int64))


def make(items=12, **settings):
    torch.manual_seed(0)
    return MultVAE(MultVAE.Config(**({"dim": 4, "hidden": 6} | settings)), Sizes(5, items), Given())


def test_by_hand():
    assert float(multinomial(torch.tensor([[1.0, 0, -1]]), sets([0, 1]))) == pytest.approx(1.815212, abs=1e-6)
    assert float(kl(torch.tensor([[1.0, 0]]), torch.tensor([[0, math.log(0.5)]]))[0]) == pytest.approx(0.596574, abs=1e-6)
    assert float(kl(torch.zeros(1, 3), torch.zeros(1, 3))[0]) == 0
    assert float(multinomial(torch.full((2, 7), 3.0), sets([1, 2, 3], [4]))) == pytest.approx((3 + 1) / 2 * math.log(7), abs=1e-6)


def test_the_first_layer_is_that_of_a_normalised_dense_row():
    model = make().eval()
    mu, logvar = model.moments(sets([1, 5, 7, 8]))
    x = torch.zeros(12)
    x[[1, 5, 7, 8]] = 0.5
    code = model.to_code(torch.tanh(x @ model.read + model.shift))
    torch.testing.assert_close(torch.cat([mu, logvar], 1)[0], code)


def test_an_answer_has_no_noise_and_reads_a_set():
    model = make().eval()
    model.prepare()
    with torch.no_grad():
        once, twice, again = model.scores(sets([3, 1])), model.scores(sets([1, 3, 3, 1])), model.scores(sets([3, 1]))
    assert torch.equal(once, again)
    torch.testing.assert_close(once, twice)
    assert once.shape == (1, 12)


def test_distinct():
    d = distinct(sets([4, 2, 4], [], [0, 11]), 12)
    assert d.indptr.tolist() == [0, 2, 2, 4] and d.items.tolist() == [2, 4, 0, 11]


def test_without_kl_and_noise_it_is_mult_dae(monkeypatch):
    vae, dae = make(beta=0.0), make(variational=False)
    with torch.no_grad():
        for name in ("read", "shift", "widen", "write"):
            target = getattr(dae, name)
            (target.load_state_dict(getattr(vae, name).state_dict()) if isinstance(target, torch.nn.Module) else target.copy_(getattr(vae, name)))
        dae.to_code.weight.copy_(vae.to_code.weight[:4])
        dae.to_code.bias.copy_(vae.to_code.bias[:4])
    batch = sets([1, 5, 7], [2, 3])
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    losses = []
    for model in (vae, dae):
        torch.manual_seed(7)  # the same dropout
        losses.append(model.loss(batch))
    assert torch.equal(losses[0], losses[1])


def test_noise_has_standard_deviation_one_times_the_learned_one(monkeypatch):
    seen = []
    model = make(dropout=0.0)
    decode = MultVAE.decode
    monkeypatch.setattr(MultVAE, "decode", lambda self, code: seen.append(code.detach()) or decode(self, code))
    with torch.no_grad():
        model.loss(sets(*[[1, 5, 7]] * 3000))
        mu, logvar = model.moments(sets([1, 5, 7]))
    codes = seen[0]
    torch.testing.assert_close(codes.mean(0), mu[0], atol=0.1, rtol=0)
    torch.testing.assert_close(codes.std(0), torch.exp(0.5 * logvar)[0], atol=0.06, rtol=0)


def test_annealing_rises_to_its_cap_and_is_saved():
    log = Log(np.array([0, 3, 6, 8]), np.array([1, 2, 3, 1, 4, 5, 2, 5], dtype=np.int32), 12)
    model = make(anneal=10, beta=0.5, batch=1, epochs=2)
    weights = []
    after = model.after_step
    model.after_step = lambda parameters: (weights.append(model.weight), after(parameters))
    train(model, log, model.config, seed=0, validate=None)
    assert weights == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert int(model.state_dict()["step"]) == 6 and model.weight == 0.5
