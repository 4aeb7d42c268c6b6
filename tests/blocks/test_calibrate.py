"""Calibration: what was distorted is found again, and what is fitted survives as tensors."""

import numpy as np
import pytest
import torch

from vitrail.blocks.calibrate import KNOTS, Calibrator, isotonic, platt


def distorted(n=20_000, slope=0.5, shift=1.0):
    rng = np.random.default_rng(0)
    z = rng.normal(size=n) * 2
    return z, (rng.random(n) < 1 / (1 + np.exp(-(slope * z + shift)))).astype(np.float64)


def test_platt_finds_the_line():
    np.testing.assert_allclose(platt(*distorted()), [0.5, 1.0], atol=0.05)


def test_isotonic_is_pool_adjacent_violators_by_hand():
    """Rates 0, 1, 0, 1 at 1..4: the middle two pool to 1/2 at 2.5; smoothed by half a row each way: 1/4, 1/2, 3/4."""
    found = isotonic(np.array([4.0, 2, 1, 3]), np.array([1.0, 1, 0, 0]))
    assert found.shape == (2, KNOTS)
    np.testing.assert_allclose(found[:, :3], [[1, 2.5, 4], [0.25, 0.5, 0.75]])
    assert (found[0, 3:] == 4).all() and (np.diff(found[1]) >= 0).all()


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_calibrator_mends_and_is_saved(method):
    z, y = distorted()
    calibrator, again = Calibrator(method), Calibrator(method)
    before = calibrator(torch.tensor(z))
    torch.testing.assert_close(before, torch.sigmoid(torch.tensor(z)).float())
    calibrator.fit(z, y)
    again.load_state_dict(calibrator.state_dict())
    after = again(torch.tensor(z)).numpy()

    def loss(p):
        return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))

    assert loss(after.astype(np.float64)) < loss(before.numpy().astype(np.float64)) - 0.02
    np.testing.assert_allclose(again(torch.tensor([-2.0, 0.0, 2.0])).numpy(), 1 / (1 + np.exp(-np.array([0.0, 1, 2]))), atol=0.05)


def test_nothing_to_fit_changes_nothing():
    for calibrator in (Calibrator("platt"), Calibrator("isotonic"), Calibrator("none")):
        calibrator.fit(np.array([1.0, 2.0]), np.array([1.0, 1.0] if calibrator.method != "none" else [0.0, 1.0]))
        torch.testing.assert_close(calibrator(torch.zeros(1)), torch.tensor([0.5]))


def test_many_steps_are_kept_as_so_many_knots():
    rng = np.random.default_rng(0)
    z = np.sort(rng.normal(size=50_000))
    found = isotonic(z, (rng.random(50_000) < 1 / (1 + np.exp(-z))).astype(float), knots=8)
    assert found.shape == (2, 8) and (np.diff(found) >= 0).all()
