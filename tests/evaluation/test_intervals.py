import numpy as np
import pytest
from scipy import stats

from vitrail.evaluation import intervals
from vitrail.evaluation.intervals import bootstrap_ci, holm, paired_difference, wilson


@pytest.mark.parametrize("discrete", [True, False])
def test_interval_is_that_of_the_normal_theory(discrete):
    rng = np.random.default_rng(0)
    values = (rng.random(4000) < 0.1).astype(float) if discrete else rng.gamma(2.0, size=4000)
    low, high = bootstrap_ci(values, draws=2000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.15 * half)


def test_interval_equals_that_of_scipy():
    values = np.random.default_rng(1).exponential(size=200)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0, batch=500).confidence_interval
    assert bootstrap_ci(values, draws=4000) == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_seed_and_order_of_users():
    values = (np.random.default_rng(2).random(500) < 0.2).astype(float)
    assert bootstrap_ci(values, seed=4) == bootstrap_ci(values[::-1], seed=4)
    assert bootstrap_ci(values, seed=4) != bootstrap_ci(values, seed=5)


def test_a_user_who_asks_often_is_drawn_whole():
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(100), 30)
    values = np.repeat(rng.random(100), 30)  # thirty copies of one fact are one fact
    wide = np.diff(bootstrap_ci(values, clusters=users))[0]
    assert wide == pytest.approx(np.diff(bootstrap_ci(values[::30]))[0], rel=0.1)
    assert wide > 4 * np.diff(bootstrap_ci(values))[0]


def test_edges():
    assert bootstrap_ci([3.0]) == (3.0, 3.0)
    assert np.isnan(bootstrap_ci([])).all() and np.isnan(bootstrap_ci([np.nan])).all()
    assert bootstrap_ci([1.0, np.nan, 1.0]) == (1.0, 1.0)
    same = paired_difference([1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    assert same == {"diff": 0.0, "ci": (0.0, 0.0), "p": 1.0, "n": 3}
    assert paired_difference([], [])["n"] == 0


@pytest.mark.parametrize("discrete", [True, False])
def test_paired_p_agrees_with_the_t_test(discrete):
    rng = np.random.default_rng(5)
    d = rng.choice([-1.0, 0.0, 0.5, 1.0], 600, p=[0.12, 0.66, 0.05, 0.17]) if discrete else rng.normal(0.1, 1, 600)
    found = paired_difference(d, np.zeros(600))
    assert found["p"] == pytest.approx(stats.ttest_1samp(d, 0).pvalue, rel=0.25, abs=0.002)
    assert found["diff"] == pytest.approx(d.mean()) and found["ci"][0] < d.mean() < found["ci"][1]
    assert paired_difference(np.zeros(600), d)["diff"] == -found["diff"]


def test_p_under_no_difference_is_uniform_enough():
    rng = np.random.default_rng(6)
    ps = [paired_difference(rng.normal(size=40), np.zeros(40), draws=10, flips=400)["p"] for _ in range(200)]
    assert 0.01 <= np.mean(np.array(ps) <= 0.05) <= 0.1
    assert paired_difference(np.ones(50), np.zeros(50))["p"] == pytest.approx(1 / 10_001)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_normal_limit_of_many_users_agrees(monkeypatch):
    rng = np.random.default_rng(7)
    values, users = rng.gamma(2.0, size=6000) - 1.96, rng.integers(0, 2000, 6000)
    drawn = [bootstrap_ci(values, draws=4000, clusters=c) for c in (None, users)] + [paired_difference(values, 0 * values)["p"]]
    monkeypatch.setattr(intervals, "MANY", 1000)
    limit = [bootstrap_ci(values, draws=4000, clusters=c) for c in (None, users)] + [paired_difference(values, 0 * values)["p"]]
    for a, b in zip(drawn, limit, strict=True):
        assert a == pytest.approx(b, abs=0.006)
    assert drawn[0] != limit[0]


def test_wilson_against_worked_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: 81/263, 15/148, 0/20, 1/29
    for hits, trials, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        assert wilson(hits, trials) == pytest.approx((low, high), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(7, 7)[1] == 1.0
