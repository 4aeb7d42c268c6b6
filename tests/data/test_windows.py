"""The index of events against loops: every answer, for windows of any length, told at once or heard one after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.windows import NEVER, Stream, Streams

EVENTS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 12), st.integers(-3, 3)), max_size=25)
ASKED = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 14), st.one_of(st.none(), st.integers(1, 8))), min_size=1, max_size=8)


def of(events, earlier=None):
    keys, times, values = (np.array([event[place] for event in events], dtype=np.int64) for place in range(3))
    return Stream(keys, times, {"v": values}, earlier)


@settings(max_examples=60, deadline=None)
@given(EVENTS, ASKED, st.integers(0, 25))
def test_every_answer_equals_the_loop(events, asked, cut):
    events = sorted(events, key=lambda event: event[1])
    cut = min(cut, len(events))
    old = of(events[:cut])
    for streams in (Streams([of(events)]), Streams([old, of(events[cut:], old)])):
        for window in {window for _, _, window in asked}:
            some = [(key, now) for key, now, length in asked if length == window]
            keys, now = (np.array(column, dtype=np.int64) for column in zip(*some, strict=True))
            found = streams.asked(keys, None if window is None else now - window, now)
            for r, (key, moment) in enumerate(some):
                seen = [(t, v) for k, t, v in events if k == key and t < moment and (window is None or t >= moment - window)]
                values = [v for _, v in seen]
                assert found.count[r] == len(seen) and found.newest[r] == max([t for t, _ in seen], default=NEVER)
                assert found.total("v")[r] == sum(values) and found.distinct("v")[r] == len(set(values))
                assert found.least("v")[r] == min(values, default=np.inf)
        assert streams.moment == max([t for _, t, _ in events], default=NEVER)


def test_sums_are_exact_wherever_they_stand_and_pass_any_total():
    """Sums of floats would depend on what was added up before; whole numbers wrap around and come back."""
    big = 2**62
    stream = Stream(np.array([1, 1, 1, 2]), np.arange(4), {"v": np.array([big, big, big, 5])})
    asked = Streams([stream]).asked(np.array([2, 1]), None, np.array([9, 1]))
    assert asked.total("v").tolist() == [5, big]


def test_many_events_at_once():
    rng = np.random.default_rng(0)
    n = 2000
    keys, times, values = rng.integers(1, 20, n), rng.integers(0, 300, n), rng.integers(0, 40, n)
    streams = Streams([Stream(keys, times, {"v": values})])
    asked, now = rng.integers(1, 22, 200), rng.integers(0, 320, 200)
    found = streams.asked(asked, now - 50, now)
    inside = (keys == asked[:, None]) & (times < now[:, None]) & (times >= now[:, None] - 50)
    assert (found.count == inside.sum(1)).all() and (found.total("v") == (inside * values).sum(1)).all()
    assert found.distinct("v").tolist() == [len(set(values[row])) for row in inside]
    assert found.least("v").tolist() == [values[row].min() if row.any() else np.inf for row in inside]


@pytest.mark.parametrize("parts", [0, 1])
def test_nothing_at_all(parts):
    none = np.zeros(0, dtype=np.int64)
    empty = Stream(none, none, {"v": none})
    streams = Streams([empty, Stream(none, none, {"v": none}, empty)][: parts + 1])
    found = streams.asked(np.array([1, 2]), None, np.array([5, 5]))
    assert found.count.tolist() == [0, 0] and found.total("v").tolist() == [0, 0] and found.distinct("v").tolist() == [0, 0]
    assert found.newest.tolist() == [NEVER] * 2 and np.isinf(found.least("v")).all() and streams.moment == NEVER
