"""Checks of the card base/ials beside those of its solver."""

import numpy as np
import pytest
import torch
from scipy import sparse

from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.ials import IALS

rng = np.random.default_rng(0)
HAVE = rng.random((30, 20)) < 0.3
HAVE[4] = False
LOG = Log(np.concatenate([[0], np.cumsum(HAVE.sum(1))]), np.nonzero(HAVE)[1].astype(np.int32), 20)


def fitted(log=LOG, **settings):
    torch.manual_seed(0)
    model = IALS(IALS.Config(**({"dim": 5} | settings)), Sizes(log.n_users, log.n_items), Given())
    model.learn(log)
    model.prepare()
    return model


def strangers(log):
    sets = log.histories(np.arange(log.n_users))
    return type(sets)(torch.full_like(sets.users, -1), sets.indptr, sets.items, sets.times, sets.weights)


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
@pytest.mark.parametrize("nu", [0.0, 1.0])
def test_a_known_history_told_anew_gives_the_stored_vector(solver, nu):
    model = fitted(solver=solver, nu=nu, l2=0.1)
    torch.testing.assert_close(model.fold_in(strangers(LOG)), model.users, atol=1e-5, rtol=1e-4)
    assert not model.users[4].any() and not bool(model.answerable(LOG.histories(np.array([4]))))


def test_repeated_events_and_weights_raise_confidence():
    model = fitted(alpha=2.0)
    counts = sparse.csr_array(np.array([[0.0, 1, 3]]))
    np.testing.assert_allclose(model.confidence(counts).data, [3, 7])
    weighted = Log(np.array([0, 2]), np.array([1, 2], dtype=np.int32), 3, weights=np.array([1, 3], dtype=np.float32))
    repeated = Log(np.array([0, 4]), np.array([1, 2, 2, 2], dtype=np.int32), 3)
    np.testing.assert_allclose(weighted.matrix(binary=False).toarray(), repeated.matrix(binary=False).toarray())


def test_a_stronger_row_penalty_with_nu():
    model = fitted(nu=1.0, l2=0.5, alpha=4.0)
    C = model.confidence(LOG.matrix(binary=False))
    np.testing.assert_allclose(model.ridge(C).numpy(), 0.5 * (HAVE.sum(1) + 20 / 4), rtol=1e-6)


def test_both_solvers_end_near_one_another():
    a, b = fitted(sweeps=60), fitted(sweeps=60, solver="cholesky")
    torch.testing.assert_close(a.users @ a.items.T, b.users @ b.items.T, atol=0.02, rtol=0)
