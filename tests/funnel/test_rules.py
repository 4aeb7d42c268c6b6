"""Business rules: what is never shown, what always is, and how much of a kind."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.errors import DataError, SettingError
from vitrail.funnel.rules import Rules, Ruling

ITEMS = pl.DataFrame(
    {
        "item": [f"i{n}" for n in range(12)],
        "category": ["a", "a", "a", "a", "b", "b", "b", "c", "c", None, None, "d"],
        "tags": [["x"], ["x", "y"], ["y"], None, ["x"], ["z"], ["y"], [], ["z"], ["x"], ["y"], ["z"]],
        "stock": [1, 0, 5, 5, 5, 5, 5, 5, 5, 5, 5, 0],
    }
)
USERS = pl.DataFrame({"user": ["ann", "bob"], "country": ["FR", "DE"]})
EVERYBODY = np.array([-1])


def page_of(rules, codes, k, users=EVERYBODY, allowed=None):
    asked = np.atleast_2d(np.asarray(codes, dtype=np.int64))
    return Ruling(Rules.of(rules), ITEMS, USERS).apply(asked, k, np.broadcast_to(users, (len(asked),)), allowed)[0].tolist()


def test_no_rules_change_nothing():
    assert page_of({}, range(12), 5) == [[0, 1, 2, 3, 4]]
    assert page_of({}, [3, 1, -1, -1], 4) == [[3, 1, -1, -1]]


def test_excluded_and_buried():
    assert page_of({"exclude": ["stock == 0"]}, range(12), 12) == [[0, 2, 3, 4, 5, 6, 7, 8, 9, 10, -1, -1]]
    assert page_of({"bury": ['category == "a"']}, range(6), 6) == [[4, 5, 0, 1, 2, 3]]


def test_caps_and_overflow():
    assert page_of({"caps": {"category": 2}}, range(12), 6) == [[0, 1, 4, 5, 7, 8]]
    assert page_of({"caps": {"category": 1}}, [0, 1, 2, 4], 4) == [[0, 4, 1, 2]]
    assert page_of({"caps": {"category": 1}, "overflow": "short"}, [0, 1, 2, 4], 4) == [[0, 4, -1, -1]]
    assert page_of({"caps": {"category": 1}}, [9, 10, 0, 1], 3) == [[9, 10, 0]]  # an item without a category fills no cap


def test_caps_over_lists_count_every_value():
    assert page_of({"caps": {"tags": 1}}, [0, 1, 2, 5, 8], 3) == [[0, 2, 5]]


def test_pins_stand_at_their_places():
    rules = {"pin": [{"item": "i7", "position": 2}, {"item": "i11", "position": 9}]}
    assert page_of(rules, [0, 1, 7, 2], 4) == [[0, 7, 1, 2]]
    assert page_of(rules, [], 3) == [[7, -1, -1]]
    assert page_of({**rules, "exclude": ['item == "i7"']}, [0, 1, 2], 2) == [[0, 1]]
    assert page_of(rules, [0, 1, 2], 2, allowed=np.arange(12) != 7) == [[0, 1]]


def test_pins_for_some():
    rules = {"pin": [{"item": "i7", "position": 1, "when": 'country == "FR"'}]}
    assert page_of(rules, [[0, 1]] * 3, 2, users=np.array([0, 1, -1])) == [[7, 0], [0, 1], [0, 1]]


def test_pins_count_for_caps():
    assert page_of({"pin": [{"item": "i0", "position": 3}], "caps": {"category": 1}}, [1, 2, 4, 7], 3) == [[4, 7, 0]]


def test_quotas_come_where_places_run_out():
    rules = {"quotas": [{"where": 'category == "c"', "least": 2}]}
    assert page_of(rules, range(12), 5) == [[0, 1, 2, 7, 8]]
    assert page_of(rules, [7, 0, 1, 8, 2], 3) == [[7, 0, 8]]
    assert page_of(rules, [0, 1, 7, 2], 3) == [[0, 1, 7]]  # one there is, so one there is on the page
    assert page_of({**rules, "caps": {"category": 1}}, range(12), 4) == [[0, 4, 7, 9]]


def test_mistakes_are_sentences():
    for rules, words in (
        ({"cap": {}}, 'Did you mean "caps"'),
        ({"caps": {"category": 0}}, "caps"),
        ({"pin": [{"item": "i1", "position": 1}, {"item": "i2", "position": 1}]}, "position 1"),
        ({"pin": [{"item": "i1", "position": 1}, {"item": "i1", "position": 2}]}, "item i1"),
        ({"exclude": ["colour == 1"]}, "colour"),
    ):
        with pytest.raises(SettingError, match=words):
            page_of(rules, [0], 1)
    for rules, words in (({"caps": {"catgory": 1}}, 'Did you mean "category"'), ({"pin": [{"item": "no", "position": 1}]}, "not in the catalogue")):
        with pytest.raises(DataError, match=words):
            page_of(rules, [0], 1)


order = st.permutations(list(range(12))).flatmap(lambda p: st.integers(0, 12).map(lambda n: p[:n]))
pinned_lists = st.lists(st.tuples(st.integers(0, 11), st.integers(1, 8)), max_size=3)


@settings(max_examples=150, deadline=None)
@given(order, st.integers(1, 12), st.integers(1, 3), st.sampled_from(["category", "tags"]), pinned_lists)
def test_properties(codes, k, most, attribute, pins):
    """Caps hold unless what they allow ran out; pins stand where they should; every item once; nothing from nowhere."""
    pins = list({position: item for item, position in dict(pins).items()}.items())
    rules = {"caps": {attribute: most}, "overflow": "short", "pin": [{"item": f"i{item}", "position": position} for position, item in pins]}
    (page,) = page_of(rules, codes, k)
    shown = [item for item in page if item >= 0]
    assert len(set(shown)) == len(shown) and page == shown + [-1] * (k - len(shown))
    pinned = {item for position, item in pins if position <= k}
    assert pinned <= set(shown) <= set(codes) | pinned
    if len(shown) == k:
        assert all(page[position - 1] == item for position, item in pins if position <= k)
    held = {}
    for item in shown:
        value = ITEMS[attribute][item]
        for one in value if isinstance(value, pl.Series) else [value] if value is not None else []:
            held.setdefault(one, []).append(item)
    assert all(len(items) <= most or sum(i in pinned for i in items) >= most for items in held.values())
    (filled,) = page_of({**rules, "overflow": "fill"}, codes, k)
    assert sum(item >= 0 for item in filled) == min(k, len(set(codes) | pinned))


@settings(max_examples=40, deadline=None)
@given(st.lists(order, min_size=1, max_size=6), st.integers(1, 6))
def test_a_batch_is_its_rows(rows, k):
    width = max(len(row) for row in rows)
    codes = np.array([[*row, *[-1] * (width - len(row))] for row in rows], dtype=np.int64).reshape(len(rows), width)
    rules = {"caps": {"category": 2}, "quotas": [{"where": "stock == 0", "least": 1}], "bury": ['category == "b"']}
    assert page_of(rules, codes, k) == [page_of(rules, row, k)[0] for row in codes]
