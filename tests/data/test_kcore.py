"""The k-core against a slow reference, and its promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.kcore import kcore


def slow(pairs, k, m):
    rows = list(range(len(pairs)))
    while True:
        users = [pairs[r][0] for r in rows]
        items = [pairs[r][1] for r in rows]
        left = [r for r in rows if users.count(pairs[r][0]) >= k and items.count(pairs[r][1]) >= m]
        if left == rows:
            return left
        rows = left


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40), st.integers(0, 4), st.integers(0, 4))
def test_equals_the_slow_reference(pairs, k, m):
    users, items = (np.array([p[i] for p in pairs], dtype=np.int64) for i in (0, 1))
    assert np.flatnonzero(kcore(users, items, min_user_events=k, min_item_events=m)).tolist() == slow(pairs, k, m)


def test_a_removal_that_sets_off_others_is_followed_to_the_end():
    users, items = np.arange(10).repeat(2)[:-1], np.concatenate([[0], np.arange(1, 10).repeat(2)])
    assert not kcore(users, items, min_user_events=2, min_item_events=2).any()


@pytest.mark.parametrize("k", [0, 1])
def test_small_bounds_keep_everything(k):
    assert kcore(np.array([0, 1, 5]), np.array([3, 3, 0]), min_user_events=k, min_item_events=k).all()
