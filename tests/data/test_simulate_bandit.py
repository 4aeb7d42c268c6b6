"""Simulated pages: the log is drawn from the truth it comes with."""

import numpy as np
import pytest

from vitrail.data.simulate import SimulatorSettings, simulate
from vitrail.data.simulate_bandit import BanditSettings, make_world, simulate_bandit
from vitrail.systems.slates.epsilon_greedy import marginals


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("pages") / "shop", settings=SimulatorSettings(users=80, items=30, events=400, pictures=False))


def test_the_mean_chance_is_as_asked_and_looks_fall(shop):
    world = make_world(shop, BanditSettings(items=20, clicks=0.2, falls=0.5, places=3))
    assert world.chance.mean() == pytest.approx(0.2, abs=1e-6) and world.looks.tolist() == [1.0, 0.5, 0.25]


def test_the_logger_earns_what_the_truth_says(shop):
    settings = BanditSettings(requests=30_000, items=12, epsilon=0.4)
    impressions, world = simulate_bandit(shop, settings)
    assert impressions.columns == ["request_id", "user", "item", "position", "clicked", "propensity", "conditional"] and impressions.height == 90_000
    table = marginals(12, 3, 0.4)
    ranks = np.argsort(np.argsort(-world.scores, axis=1, kind="stable"), axis=1)
    target = table[:, np.minimum(ranks, 3)].transpose(1, 0, 2)  # (U, L, A)
    np.testing.assert_allclose(target.sum(2), 1.0)
    assert impressions["clicked"].mean() == pytest.approx(world.value(target), abs=0.004)


def test_the_same_seed_is_the_same_log(shop):
    first, second = (simulate_bandit(shop, BanditSettings(requests=50, items=10))[0] for _ in range(2))
    assert first.equals(second) and not first.equals(simulate_bandit(shop, BanditSettings(requests=50, items=10, seed=1))[0])
