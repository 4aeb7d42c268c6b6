"""Off-policy estimates: the hand values of both cards, unbiasedness where the truth is known, and what people get wrong."""

import os
from pathlib import Path

import numpy as np
import pytest

from vitrail.data.simulate import SimulatorSettings, simulate
from vitrail.data.simulate_bandit import BanditSettings, simulate_bandit
from vitrail.errors import DataError, SettingError
from vitrail.evaluation import bandit_log
from vitrail.evaluation import offpolicy as O

OPEN = Path(os.environ.get("VITRAIL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")) / "open-bandit-sample"


def test_base_card_weights():
    w, r = np.array([2, 0.5, 1, 0.1]), np.array([1.0, 0, 1, 0])
    found = O.ips(r, w)
    assert found.value == pytest.approx(0.75) and found.se == pytest.approx(0.4787, abs=1e-4)
    assert found.lower == pytest.approx(0.75 - 1.645 * found.se)
    assert O.snips(r, w).value == pytest.approx(0.8333, abs=1e-4)
    assert O.snips(r, w).se == pytest.approx(np.sqrt((w**2 * (r - 3 / 3.6) ** 2).sum()) / 3.6)
    assert O.ips(r, w, clip=1.0).value == pytest.approx(0.5)
    assert O.diagnose(w, None, 0.0).effective == pytest.approx(2.4639, abs=1e-4)
    assert O.controlled(r, w).value == pytest.approx(0.86386, abs=1e-5)


def test_base_card_pages():
    w, r = np.array([[2, 0.5], [0.5, 1], [2, 2]]), np.array([[1.0, 0], [0, 1], [1, 1]])
    for estimator, value in ((O.sips, 3.16667), (O.iips, 2.33333), (O.rips, 2.83333), (O.pseudo_inverse, 2.66667)):
        assert estimator(r, w).value == pytest.approx(value, abs=1e-5)
        assert estimator(r[:, :1], w[:, :1]).value == pytest.approx(O.ips(r[:, 0], w[:, 0]).value)
        assert estimator(r, np.ones_like(w)).value == pytest.approx(r.sum(1).mean())


@pytest.mark.parametrize(("combine", "truth", "inverse"), [(np.add, 4.4, 4.4), (np.multiply, 3.84, 3.0)])
def test_base_card_enumeration(combine, truth, inverse):
    logger, target, phi = np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[1.0, 3], [2, 5]])
    total = {"sips": 0.0, "pi": 0.0, "truth": 0.0}
    for a in range(2):
        for b in range(2):
            w = np.array([[target[0, a] / logger[0, a], target[1, b] / logger[1, b]]])
            reward = np.array([[combine(phi[0, a], phi[1, b]), 0.0]])
            chance = logger[0, a] * logger[1, b]
            total["sips"] += chance * O.sips(reward, w).value
            total["pi"] += chance * O.pseudo_inverse(reward, w).value
            total["truth"] += target[0, a] * target[1, b] * reward.sum()
    assert total["truth"] == pytest.approx(truth) and total["sips"] == pytest.approx(truth) and total["pi"] == pytest.approx(inverse)


def test_bandits_card():
    w, r, q = np.array([1.6, 0.4, 1.6, 0.4]), np.array([1.0, 0, 1, 1]), np.array([0.9, 0.3])
    expected = np.full(4, 0.8 * q[0] + 0.2 * q[1])
    predicted = q[[0, 1, 0, 1]]
    assert O.ips(r, w).value == pytest.approx(0.9) and O.snips(r, w).value == pytest.approx(0.9)
    assert O.direct(expected).value == pytest.approx(0.78)
    assert O.doubly_robust(r, w, expected, predicted).value == pytest.approx(0.9)
    assert O.doubly_robust(predicted, w, expected, predicted).value == pytest.approx(0.78)  # r = q: DR is DM
    assert O.ips(r, np.ones(4)).value == O.snips(r, np.ones(4)).value == r.mean()
    assert O.snips(np.full(4, 0.3), w).value == pytest.approx(0.3)  # IPS of a constant is not that constant


def test_intervals_cover_and_doubly_robust_is_no_wider():
    """500 logs of a ten-armed problem with contexts: 95 % intervals cover in 92 to 98 % of them; DR varies no more than IPS."""
    rng = np.random.default_rng(0)
    arms, n, runs = 10, 400, 500
    q = rng.uniform(0.1, 0.9, size=(4, arms))
    logger = rng.dirichlet(np.full(arms, 3.0), size=4) * 0.7 + 0.03
    target = rng.dirichlet(np.full(arms, 3.0), size=4)
    truth = (q * target).sum(1).mean()
    covered, values = {"ips": 0, "snips": 0, "dr": 0}, {"ips": [], "dr": []}
    guess = np.clip(q + rng.normal(0, 0.1, q.shape), 0, 1)
    for _ in range(runs):
        x = rng.integers(4, size=n)
        a = (rng.random(n)[:, None] > np.cumsum(logger, axis=1)[x]).sum(1)
        r = (rng.random(n) < q[x, a]).astype(float)
        w = target[x, a] / logger[x, a]
        terms = {"ips": (w * r, np.ones(n)), "snips": (w * r, w), "dr": ((guess * target).sum(1)[x] + w * (r - guess[x, a]), np.ones(n))}
        for name, (top, bottom) in terms.items():
            found = O.ratio_estimate(name, top, bottom, draws=1)
            covered[name] += found.ci[0] <= truth <= found.ci[1]
            if name in values:
                values[name].append(found.value)
    assert all(0.92 <= hits / runs <= 0.98 for hits in covered.values()), covered
    for name in values:
        assert np.mean(values[name]) == pytest.approx(truth, abs=2.5 * np.std(values[name]) / np.sqrt(runs))
    assert np.var(values["dr"]) <= np.var(values["ips"])


def test_rows_of_a_user_are_drawn_together():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(100), 20)
    rewards = np.repeat(rng.random(100), 20)
    alone, together = O.ips(rewards, np.ones(2000)), O.ips(rewards, np.ones(2000), users)
    assert together.value == pytest.approx(alone.value) and together.se == pytest.approx(alone.se * np.sqrt(20), rel=0.05)
    low, high = together.bootstrap
    assert (high - low) / (alone.bootstrap[1] - alone.bootstrap[0]) == pytest.approx(np.sqrt(20), rel=0.2)
    assert (O.user_folds(users, 2000).reshape(100, 20).std(1) == 0).all()


def test_verdicts():
    rng = np.random.default_rng(0)
    good = rng.uniform(0.5, 1.5, 5000)
    assert O.diagnose(good, None, 0.0).verdict == "ok"
    assert O.diagnose(good, None, 0.2).verdict == "no support"
    assert O.diagnose(good * 2, None, 0.0).verdict == "wrong propensities"
    heavy = np.zeros(5000)
    heavy[:10] = 500.0
    told = O.diagnose(heavy, None, 0.0)
    assert told.verdict == "not identifiable" and "10 rows" in told.reason


def test_cross_fitting_never_shows_a_row_its_own_answer():
    items, positions = np.array([0, 0, 0, 1]), np.zeros(4, dtype=np.int64)
    folds = np.array([0, 1, 1, 1])
    tables, mine = O.click_rates(items, positions, np.array([1.0, 0, 0, 0]), 2, folds, strength=1.0)
    other, same = O.click_rates(items, positions, np.array([0.0, 0, 0, 0]), 2, folds, strength=1.0)
    assert mine[0] == same[0] and tables[1, 0, 0] > other[1, 0, 0]
    whole, _ = O.click_rates(items, positions, np.array([1.0, 0, 0, 0]), 2, np.zeros(4, dtype=np.int64))
    assert whole.shape == (1, 1, 2)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    shop = simulate(tmp_path_factory.mktemp("bandit") / "shop", settings=SimulatorSettings(users=200, items=60, events=1000, pictures=False))
    return simulate_bandit(shop, BanditSettings(requests=20_000, items=20, epsilon=0.5))


def test_the_truth_of_the_simulated_shop_is_found(logged, tmp_path):
    """IPS, SNIPS and DR of the uniform policy cover what it truly earns; the log itself earns something else."""
    impressions, world = logged
    impressions.write_parquet(tmp_path / "log.parquet")
    found = bandit_log.evaluate_log(tmp_path / "log.parquet")
    truth = world.value(np.full(20, 1 / 20))
    assert abs(found.logged - truth) > 0.005
    by = {e.estimator: e for e in found.estimates}
    for name in ("ips", "snips", "control variate", "doubly robust", "self-normalised doubly robust"):
        assert by[name].ci[0] <= truth <= by[name].ci[1], (name, by[name], truth)
        assert by[name].bootstrap[0] <= truth <= by[name].bootstrap[1]
    assert found.diagnostics.verdict == "ok" and found.diagnostics.users == 200


def test_pages_of_the_simulated_shop(logged):
    """The logger's own value from pages: weights are 1, so every estimator is the mean; a page policy of more exploration is found too."""
    impressions, _ = logged
    clicked, conditional, marginal = (impressions[name].to_numpy().reshape(-1, 3) for name in ("clicked", "conditional", "propensity"))
    same = O.evaluate_pages(clicked, np.ones_like(conditional), np.ones_like(marginal))
    assert all(e.value == pytest.approx(clicked.sum(1).mean()) for e in same.estimates)
    uniform = 1 / (20 - np.arange(3))
    found = O.evaluate_pages(clicked, uniform / conditional, (1 / 20) / marginal)
    by = {e.estimator: e for e in found.estimates}
    assert set(by) == {"sips", "rips", "self-normalised sips", "iips", "pseudo-inverse"}
    singles = (1 / 20) / marginal
    reference = O.iips(clicked, singles)
    for name in ("rips", "sips"):
        assert abs(by[name].value - reference.value) <= 2.5 * np.hypot(by[name].se, reference.se)
    with pytest.raises(DataError, match="no pages"):
        O.evaluate_pages(np.empty((0, 3)), np.empty((0, 3)))


def test_a_policy_may_differ_by_row_or_place():
    rng = np.random.default_rng(1)
    items, positions = rng.integers(4, size=2000), rng.integers(2, size=2000)
    clicked = (rng.random(2000) < 0.2).astype(float)
    one = O.evaluate_policy(items, positions, clicked, np.full(2000, 0.25), np.full(4, 0.25))
    for table in (np.full((2, 4), 0.25), np.full((2000, 4), 0.25)):
        again = O.evaluate_policy(items, positions, clicked, np.full(2000, 0.25), table)
        assert [e.value for e in again.estimates] == pytest.approx([e.value for e in one.estimates])
    assert one.diagnostics.outside == 0.0
    half = O.evaluate_policy(items % 2, positions, clicked, np.full(2000, 0.5), np.array([0.25, 0.25, 0.25, 0.25]))
    assert half.diagnostics.outside == pytest.approx(0.5) and half.diagnostics.verdict == "no support"


def test_mistakes_are_sentences():
    items, positions, clicked = np.array([0, 1]), np.array([0, 1]), np.array([0.0, 1.0])
    with pytest.raises(DataError, match=r"\(0, 1\]"):
        O.evaluate_policy(items, positions, clicked, np.array([0.0, 0.5]), np.array([0.5, 0.5]))
    with pytest.raises(SettingError, match="add up to 1"):
        O.evaluate_policy(items, positions, clicked, np.array([0.5, 0.5]), np.array([0.5, 0.9]))
    with pytest.raises(SettingError, match="1 positions"):
        O.evaluate_policy(items, positions, clicked, np.array([0.5, 0.5]), np.array([[0.5, 0.5]]))
    with pytest.raises(DataError, match="no impressions"):
        O.evaluate_policy(items[:0], positions[:0], clicked[:0], clicked[:0], np.array([0.5, 0.5]))
    with pytest.raises(DataError, match="weight is 0"):
        O.snips(clicked, np.zeros(2))


@pytest.mark.data
@pytest.mark.skipif(not OPEN.exists(), reason="no real data: set VITRAIL_DATA")
def test_uniform_from_the_bts_log_covers_the_random_log():
    """Open Bandit sample: what uniform would have earned, from the log of Bernoulli Thompson sampling, against the log of uniform itself."""
    truth = bandit_log.read_impressions(OPEN / "random" / "men")["clicked"].mean()
    found = bandit_log.evaluate_log(OPEN / "bts" / "men")
    assert truth == pytest.approx(0.0046) and found.diagnostics.rows == 10_000 and found.diagnostics.verdict == "ok"
    for estimate in found.estimates:
        if estimate.estimator in ("ips", "snips", "doubly robust", "self-normalised doubly robust"):
            assert estimate.bootstrap[0] <= truth <= estimate.bootstrap[1], estimate
    snips = next(e for e in found.estimates if e.estimator == "snips")
    assert snips.ci[0] <= truth <= snips.ci[1]
