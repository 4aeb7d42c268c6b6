"""Checks of the card base/popular."""

import numpy as np
import pytest

from vitrail.data.log import Log
from vitrail.errors import DataError
from vitrail.systems.collaborative.popular import DAY, decayed_counts


def events(rows, n_items):
    """(user, item, day) rows -> Log."""
    rows = sorted(rows, key=lambda r: (r[0], r[2]))
    users = np.array([r[0] for r in rows])
    return Log(
        np.concatenate([[0], np.cumsum(np.bincount(users))]),
        np.array([r[1] for r in rows], dtype=np.int32),
        n_items,
        times=np.array([r[2] * DAY for r in rows], dtype=np.int64),
    )


A, B = 0, 1
LOG = events([(0, A, 0), (1, A, 0), (2, A, 0), (0, B, 10), (1, B, 10)], 2)


def test_decay_reverses_the_all_time_order():
    assert decayed_counts(LOG, 5.0, "events").tolist() == [0.75, 2.0]
    assert decayed_counts(LOG, None, "events").tolist() == [3.0, 2.0]


def test_limits_of_the_half_life():
    np.testing.assert_allclose(decayed_counts(LOG, 1e12, "events"), decayed_counts(LOG, None, "events"), rtol=1e-9)
    shortest = decayed_counts(events([(0, A, 0), (1, A, 0), (2, A, 9), (0, B, 10)], 2), 0.1, "events")
    assert shortest[B] > shortest[A]


def test_a_shift_of_all_times_changes_nothing_and_updates_add_up():
    later = events([(0, A, 7), (1, A, 7), (2, A, 7), (0, B, 17), (1, B, 17)], 2)
    assert decayed_counts(later, 5.0, "events").tolist() == decayed_counts(LOG, 5.0, "events").tolist()
    score = last = 0.0
    for day in (1.0, 4.0, 9.5):  # score <- score * 2^(-(t - last) / h) + 1
        score, last = score * 2 ** (-(day - last) / 5) + 1, day
    batch = decayed_counts(events([(0, A, 1.0), (1, A, 4.0), (2, A, 9.5)], 1), 5.0, "events")[A]
    assert abs(score - batch) < 1e-9


def test_users_are_counted_once():
    twice = events([(u, i, t) for u, i, t in [(0, A, 0), (1, A, 0), (0, B, 1)] for _ in range(2)], 2)
    assert decayed_counts(twice, None, "users").tolist() == [2.0, 1.0]
    assert decayed_counts(twice, None, "events").tolist() == [4.0, 2.0]


def test_decay_needs_a_clock():
    untimed = Log(LOG.indptr, LOG.items, 2)
    with pytest.raises(DataError, match="clock times"):
        decayed_counts(untimed, 5.0, "events")
