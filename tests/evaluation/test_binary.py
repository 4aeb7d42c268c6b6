"""Metrics of rankers: hand cases, the quadratic definition as reference, ties, groups without both classes, intervals."""

import numpy as np
import pytest

from vitrail.evaluation import binary

Y = np.array([1, 0, 0, 1, 0, 1, 1])
S = np.array([0.9, 0.8, 0.1, 0.3, 0.4, 0.5, 0.6])
USERS = np.array([0, 0, 0, 1, 1, 2, 2])


def slow_auc(y, s):
    wins = [(a > b) + (a == b) / 2 for a in s[y == 1] for b in s[y == 0]]
    return float(np.mean(wins)) if wins else float("nan")


def some(n=400, users=30, seed=0):
    rng = np.random.default_rng(seed)
    s = rng.integers(0, 12, n) / 11
    return (rng.random(n) < 0.2 + 0.6 * s).astype(np.float64), s, rng.integers(0, users, n) * 7


def test_hand_cases():
    assert binary.auc(Y, S) == pytest.approx(2 / 3)
    assert binary.gauc(Y, S, USERS) == (pytest.approx(0.6), 2, 1)
    assert binary.gauc(Y, S, USERS, "equal") == (pytest.approx(0.5), 2, 1)
    assert binary.log_losses([1, 0], [0.731059, 0.5]) == pytest.approx([0.313262, np.log(2)], abs=1e-5)


def test_auc_and_gauc_equal_the_definition_with_ties():
    y, s, users = some()
    assert binary.auc(y, s) == pytest.approx(slow_auc(y, s), abs=1e-12)
    each = {u: (slow_auc(y[users == u], s[users == u]), (users == u).sum()) for u in np.unique(users)}
    kept = [(v, n) for v, n in each.values() if not np.isnan(v)]
    assert binary.gauc(y, s, users)[0] == pytest.approx(sum(v * n for v, n in kept) / sum(n for _, n in kept))
    assert binary.gauc(y, s, users, "equal")[0] == pytest.approx(np.mean([v for v, _ in kept]))


@pytest.mark.parametrize("users", ["dense", "sparse", "negative"])
@pytest.mark.parametrize("scores", ["float32", "float64", "whole", "zeros", "nan"])
def test_every_way_of_sorting_equals_a_loop_over_users(scores, users):
    """Scores that a float32 holds are sorted as whole numbers with their rows, others by keys; groups are told by marks or by sorting."""
    y, s, u = some(300, 12)
    s = s - 0.5
    kinds = {"float32": s.astype(np.float32), "float64": s + 1e-12 * y, "whole": np.round(9 * s).astype(np.int64), "zeros": np.where(s > 0, 0.0, -0.0)}
    s = kinds.get(scores, s)
    if scores == "nan":
        s[0] = np.nan
    u = {"dense": u // 7, "sparse": u * 10**9, "negative": u // 7 - 3}[users]
    value, counts, group = binary.grouped_auc(y, s, u)
    known = np.unique(u)
    assert np.array_equal(known[group], u) and counts.tolist() == [(u == each).sum() for each in known]
    each = [slow_auc(y[u == one], s[u == one]) for one in known]
    kept = [place for place, one in enumerate(known) if not np.isnan(s[u == one].astype(float)).any()]
    np.testing.assert_allclose(value[kept], np.array(each)[kept], atol=1e-12)
    soft = y * 0.5 + 0.25  # labels between: the sum of ranks is weighed, as before
    assert np.isfinite(binary.grouped_auc(soft, s, u)[0]).any()


def test_what_cannot_be_asked_is_nan_and_counted():
    assert np.isnan(binary.auc([1, 1], [0.1, 0.2])) and np.isnan(binary.auc([], []))
    value, kept, dropped = binary.gauc([1, 1, 0], [0.1, 0.2, 0.3], np.array([0, 0, 1]))
    assert np.isnan(value) and (kept, dropped) == (0, 2)
    assert binary.auc([0, 1], [0.5, 0.5]) == 0.5 and np.isnan(binary.ece([], []))


def test_calibration():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    y = (rng.random(len(p)) < p).astype(float)
    assert binary.ece(y, p) < 0.01 and binary.ece(y, p**2) > 0.1
    curve = binary.calibration_curve([0, 0, 1, 1], [0.1, 0.1, 0.1, 0.9], bins=2)
    assert [(b.rate, b.rows) for b in curve] == [(pytest.approx(1 / 3), 3), (1.0, 1)], "equal probabilities stay together"
    assert binary.ece([0, 0, 1, 1], [0.1, 0.1, 0.1, 0.9], bins=2) == pytest.approx((3 * (1 / 3 - 0.1) + 0.1) / 4)


def test_an_interval_of_auc_is_that_of_drawing_users_anew():
    y, s, users = some()
    low, high = binary.auc_ci(y, s, users, draws=300, seed=1)
    _, codes = np.unique(users, return_inverse=True)
    found = []
    for times in binary.drawn_users(codes, 300, 1):
        rows = np.repeat(np.arange(len(y)), times[codes].astype(int))
        found.append(slow_auc(y[rows], s[rows]) if len(found) < 20 else binary.auc(y[rows], s[rows]))
    assert (low, high) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])), abs=1e-12)
    assert np.isnan(binary.auc_ci([1, 1], [0, 1], np.array([0, 0]), draws=5)[0])


@pytest.mark.parametrize(("told", "repeats"), [(lambda p: p, 300), (lambda p: np.clip(p + 0.05, 0, 1), 60), (lambda p: np.where(p > 0.6, p - 0.2, p), 60)])
def test_the_intervals_of_calibration_cover_the_truth_and_hold_the_plain_value(told, repeats):
    rng = np.random.default_rng(0)
    plain, absolute, squared = [], [], []
    for _ in range(repeats):
        p = rng.beta(1.5, 3, 1200)
        users, y = np.arange(1200) % 150, (rng.random(1200) < told(p)).astype(float)
        which = binary.bins_of(p, binary.BINS)
        gap, rows = np.bincount(which, p - told(p)), np.bincount(which)
        (low, high), (value, (least, most)) = binary.ece_ci(y, p, users, draws=100), binary.ece_l2(y, p, users, draws=100)
        absolute.append(low <= np.abs(gap).sum() / 1200 <= high)
        squared.append(least <= np.sqrt((gap**2 / rows).sum() / 1200) <= most)
        plain.append(low <= binary.ece(y, p) <= high and least <= value <= most)
    assert all(plain) and np.mean(absolute) >= 0.93 and np.mean(squared) >= (0.93 if repeats == 300 else 0.87)


def test_the_debiased_error_by_hand_and_its_limits():
    # one user a row, one bin of all rows that can be told apart by nothing: the noise is that of the mean of independent rows
    y, p = np.tile([1.0, 0.0], 400), np.full(800, 0.4)
    value, (low, high) = binary.ece_l2(y, p, np.arange(800), draws=2000)
    assert value == pytest.approx(np.sqrt(0.1**2 - 0.25 / 800), abs=5e-4) and low < 0.1 < high
    assert (low, high) == pytest.approx((0.1 - 1.96 * np.sqrt(0.25 / 800), 0.1 + 1.96 * np.sqrt(0.25 / 800)), abs=4e-3)
    assert binary.ece_ci(y, p, np.arange(800), draws=2000) == pytest.approx((low, high), abs=1e-3), "one bin: both are the distance of that bin"
    alone = binary.ece_l2(y, p, np.zeros(800), draws=5)
    assert alone[0] == pytest.approx(0.1) and alone[1] == pytest.approx((0.1, 0.1), abs=1e-5)
    assert binary.ece_ci(y, p, np.zeros(800), draws=5) == pytest.approx((0.1, 0.1), abs=1e-5)
    assert binary.ece_l2([1.0], [1.0], np.zeros(1), draws=5) == (0.0, (0.0, 0.0))
    assert np.isnan([binary.ece_l2([], [], np.zeros(0))[0], *binary.ece_ci([], [], np.zeros(0))]).all()


def test_a_paired_difference_sees_a_better_system_and_averages_seeds_both_ways():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(300), 4)
    y = np.tile([1.0, 0, 1, 0], 300)
    good, bad = ([y * gain + rng.normal(size=len(y)) for _ in range(3)] for gain in (1.5, 0.5))
    for average in ("metric", "score"):
        found = binary.paired_gauc(y, good, bad, users, average=average, draws=500)
        assert found["ci"][0] > 0.05 and found["p"] < 0.01 and found["n"] == 300
    wanted = np.mean([binary.gauc(y, s, users)[0] for s in good]) - np.mean([binary.gauc(y, s, users)[0] for s in bad])
    assert binary.paired_gauc(y, good, bad, users, draws=50)["diff"] == pytest.approx(wanted)


def test_a_whole_measurement():
    y, s, users = some(2000, 60)
    logits = np.log((s + 0.01) / (1.01 - s))
    lengths = np.arange(2000) % 120
    metrics, ci, slices, values = binary.measure(y.astype(np.float32), logits, s, users, lengths)
    assert set(metrics) == {"auc", "gauc", "gauc_equal", "logloss", "ece", "ece_l2", "logloss_raw", "ece_raw"} == set(ci)
    assert all(ci[name][0] <= value <= ci[name][1] for name, value in metrics.items())
    assert list(slices) == ["history:0", "history:1-5", "history:6-20", "history:21-100", "history:>100"]
    assert sum(row["users"] for row in slices.values()) == 2000 and np.nanmean(values["gauc"]) == pytest.approx(metrics["gauc"])
    metrics, ci, _, _ = binary.measure(np.ones(3, np.float32), logits[:3], s[:3], users[:3], lengths[:3], intervals=False)
    assert "auc" not in metrics and not ci


def test_lift_by_hand():
    """Ten rows in five parts: rate, rate over .4, successes so far, rows."""
    scores, labels = np.arange(10)[::-1] / 10.0, [1, 1, 1, 0, 0, 0, 1, 0, 0, 0]
    parts = binary.lift(labels, scores, parts=5)
    assert [part.rate for part in parts] == [1.0, 0.5, 0.0, 0.5, 0.0] and [part.lift for part in parts] == pytest.approx([2.5, 1.25, 0, 1.25, 0])
    assert [part.caught for part in parts] == [0.5, 0.75, 0.75, 1.0, 1.0] and [part.rows for part in parts] == [2] * 5
    tied = binary.lift(labels, np.zeros(10))
    assert len(tied) == 1 and tied[0] == (0.4, 1.0, 1.0, 10) and binary.lift(np.zeros(4), np.zeros(4)) == []


def test_weighted_auc_is_that_of_rows_repeated():
    y, s, users = some(n=60, users=4)
    w = np.random.default_rng(1).integers(1, 4, 60)
    rows = np.repeat(np.arange(60), w)
    value, counts = binary.weighted_auc(y, s, users, w.astype(float))
    wanted, _, _ = binary.grouped_auc(y[rows], s[rows], users[rows])
    assert value == pytest.approx(wanted, nan_ok=True) and counts.tolist() == np.unique(users, return_counts=True)[1].tolist()
    assert binary.chosen_by("auc", y, s, users, w.astype(float)) == pytest.approx(slow_auc(y[rows], s[rows]))
    even = np.ones(60)
    for metric in ("auc", "gauc"):
        assert binary.chosen_by(metric, y, s, users, even) == pytest.approx(binary.chosen_by(metric, y, s, users))
    assert np.isnan(binary.chosen_by("gauc", np.ones(3), np.ones(3), np.arange(3), np.ones(3)))
