"""Features of the past against a loop over events; none sees its own event or the future."""

import numpy as np
import pytest

from vitrail.data.log import Log
from vitrail.data.past import DAY, ItemPast, affinity, before, user_gap, user_rate


def world(seed=0, users=6, items=5, events=80):
    rng = np.random.default_rng(seed)
    u, t, i = rng.integers(0, users, events), rng.integers(0, 25, events) * DAY, rng.integers(0, items, events)
    order = np.lexsort([i, t, u])
    u, t, i = u[order], t[order], i[order]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(u, minlength=users))])
    weights = (np.arange(events) % 3 == 0).astype(np.float32)
    return Log(indptr, i.astype(np.int32), items, t, weights), u


CODES = np.array([[2, 3], [3, 0], [2, 0], [0, 0], [1, 4]], dtype=np.int32)


def test_everything_equals_the_loop_and_is_strictly_before():
    log, owners = world()
    items, now = np.random.default_rng(1).integers(0, 5, len(log)), log.times
    stops = before(log, owners, now)
    past = ItemPast(5, log.items.astype(np.int64), log.times, log.weights)
    starts = log.indptr[owners]
    found = {
        "count": past.count(items, now), "gap": past.gap(items, now), "rate": past.rate(items, now), "user gap": user_gap(log, starts, stops, now),
        "user rate": user_rate(log, starts, stops), "affinity": affinity(log, owners, starts, stops, items, CODES),
    }  # fmt: skip
    for r in range(len(log)):
        mine = [e for e in range(len(log)) if owners[e] == owners[r] and log.times[e] < now[r]]
        assert stops[r] - starts[r] == len(mine) and (not mine or max(mine) == stops[r] - 1)
        of_item = [e for e in range(len(log)) if log.items[e] == items[r] and log.times[e] < now[r]]
        cats = [c for c in CODES[items[r]] if c >= 2]
        wanted = {
            "count": len(of_item),
            "gap": (now[r] - max(log.times[e] for e in of_item)) / DAY if of_item else np.nan,
            "rate": np.mean([log.weights[e] for e in of_item]) if of_item else np.nan,
            "user gap": (now[r] - max(log.times[e] for e in mine)) / DAY if mine else np.nan,
            "user rate": np.mean([log.weights[e] for e in mine]) if mine else np.nan,
            "affinity": np.mean([np.mean([c in CODES[log.items[e]] for e in mine]) for c in cats]) if mine and cats else np.nan,
        }
        for name, value in wanted.items():
            assert found[name][r] == pytest.approx(value, nan_ok=True), (name, r)


def test_nothing_at_all_is_missing():
    none = np.zeros(0, dtype=np.int64)
    log = Log(np.zeros(3, dtype=np.int64), none.astype(np.int32), 5, none, none.astype(np.float32))
    past, two, zero = ItemPast(5, none, none), np.array([0, 1]), np.zeros(2, dtype=np.int64)
    assert past.count(two, two).tolist() == [0, 0] and np.isnan(past.gap(two, two)).all() and np.isnan(past.rate(two, two)).all()
    assert np.isnan(user_gap(log, zero, zero, two)).all() and np.isnan(user_rate(log, zero, zero)).all()
    assert np.isnan(affinity(log, two, zero, zero, two, CODES)).all() and before(log, two, two).tolist() == [0, 0]


@pytest.mark.parametrize("fresh", [1 << 16, 20])
def test_what_is_heard_later_counts_as_what_was_told_at_once(monkeypatch, fresh):
    """One event after the other, some of them late; `fresh`: how many may wait before all are sorted anew."""
    monkeypatch.setattr("vitrail.data.past.FRESH", fresh)
    log, _ = world()
    order = np.argsort(log.times, kind="stable")
    order[[30, 60]] = order[[60, 30]]
    items, times = log.items[order].astype(np.int64), log.times[order]
    whole, heard = ItemPast(5, items, times), ItemPast(5, items[:10], times[:10])
    for n in range(10, 80):
        heard = heard.heard(items[n : n + 1], times[n : n + 1])
    asked, now = np.arange(5).repeat(4), np.tile(np.array([0, 7, 15, 30]) * DAY, 5)
    assert heard.count(asked, now).tolist() == whole.count(asked, now).tolist() and heard.moment == whole.moment
    assert heard.gap(asked, now).tobytes() == whole.gap(asked, now).tobytes() and heard.heard(items[:0], times[:0]).moment == whole.moment


def test_candidates_of_one_person_are_counted_once():
    """The same numbers as rows of several people, where events are sorted by person and category."""
    rng = np.random.default_rng(0)
    log = Log(np.array([0, 9, 14, 14]), rng.integers(0, 6, 14).astype(np.int32), 6)
    codes = np.array([[2, 3], [2, 0], [4, 4], [1, 0], [0, 0], [5, 2]], dtype=np.int32)
    items = np.array([0, 1, 2, 3, 4, 5])
    for person, (start, stop) in enumerate([(2, 8), (9, 14), (14, 14)]):
        alone = affinity(log, np.full(6, person), np.full(6, start), np.full(6, stop), items, codes)
        others = np.array([0, 1])  # so that not all rows have one history
        owners, starts, stops = np.append(np.full(6, person), others), np.append(np.full(6, start), [0, 9]), np.append(np.full(6, stop), [3, 11])
        np.testing.assert_array_equal(alone, affinity(log, owners, starts, stops, np.append(items, [0, 1]), codes)[:6])
