"""Declared features against a loop over events: none sees its own event, its instant or the future, and a service that hears of events gets the same bits."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.declare import Feature
from vitrail.data.declared import Asked, Declaration, Declared
from vitrail.data.fields import MISSING, UNSEEN, Field
from vitrail.data.happened import Past, cell_tokens, joined, numbers, tokens
from vitrail.data.log import Log
from vitrail.data.past import DAY

BRAND, TAGS, PRICE = ["a", "b", "a", None], [["x"], ["x", "y"], [], ["y"]], [1.5, None, 3.25, 10.1]
CITY, AGE = ["here", None, "there"], [30.0, 41.5, None]
NUMBERS = {"items.price": numbers(pl.Series(PRICE)), "users.age": np.array([30.0, 41.5, np.nan, np.nan])}
TOKENS = {"items.brand": cell_tokens(pl.Series(BRAND)), "items.tags": cell_tokens(pl.Series(TAGS)), "users.city": cell_tokens(pl.Series([*CITY, None]))}
BY = [("user",), ("item",), ("user", "item"), ("user", "items.brand"), ("items.brand",), ("user", "items.tags"), ("users.city", "item"), ("users.city",)]
COLUMNS = {"distinct": ("item", "user", "events.event", "items.brand", "users.city"), "mean": ("events.value", "items.price", "users.age")}
KINDS = {"event": pl.String, "value": pl.Float64}
UNITS = dict.fromkeys(COLUMNS["mean"], 2.0**-26)


@st.composite
def features(draw):
    kind = draw(st.sampled_from(["count", "distinct", "sum", "mean", "min", "max", "recency", "rate"]))
    more = {"column": draw(st.sampled_from(COLUMNS["distinct" if kind == "distinct" else "mean"]))} if kind in ("distinct", "sum", "mean", "min", "max") else {}
    more |= {"hit": "value > 0.5", "prior": draw(st.sampled_from([None, (1, 4)]))} if kind == "rate" else {}
    told = {name: draw(st.sampled_from([None, text])) for name, text in (("where", 'event == "cart"'), ("window", "3d"), ("lag", "1d"))}
    return Feature.of({"kind": kind, "by": draw(st.sampled_from(BY)), **more, **told})


EVENTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 9), st.sampled_from(["view", "cart", None]),
                            st.sampled_from([None, 0.1, 0.7, 2.5])), max_size=20)  # fmt: skip
ROWS = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 3), st.integers(0, 11)), min_size=1, max_size=6)


def keys_of(by, user, item):
    """Every key of a row or an event: an item of several tags has several."""
    found = [()]
    for part in by:
        cells = {"user": [user] if user >= 0 else [], "item": [item], "items.brand": [BRAND[item]], "items.tags": TAGS[item],
                 "users.city": [CITY[user] if user >= 0 else None]}[part]  # fmt: skip
        found = [(*key, cell) for key in found for cell in cells if cell is not None]
    return found


def cell_of(name, event):
    user, item, _, kind, value = event
    return {"item": item, "user": user, "events.event": kind, "events.value": value, "items.brand": BRAND[item], "items.price": PRICE[item],
            "users.city": CITY[user], "users.age": AGE[user]}[name]  # fmt: skip


def reference(f, events, user, item, day):
    """The feature by the words of its definition: NaN where nothing is known."""
    until = day - (1 if f.lag else 0)
    values = []
    for key in keys_of(f.by, user, item):
        seen = [e for e in events if key in keys_of(f.by, e[0], e[1]) and e[2] < until and (f.window is None or e[2] >= until - 3)]
        seen = [e for e in seen if f.where is None or e[3] == "cart"]
        if f.kind in ("sum", "mean", "min", "max"):
            cells = [cell for e in seen if (cell := cell_of(f.column, e)) is not None]
            made = {"sum": sum, "mean": lambda c: sum(c) / len(c), "min": min, "max": max}[f.kind]
            values.append(made(cells) if cells or f.kind == "sum" else math.nan)
        elif f.kind == "distinct":
            values.append(len({cell for e in seen if (cell := cell_of(f.column, e)) is not None}))
        elif f.kind == "rate":
            a, b = f.prior or (0, 0)
            hits = sum((e[4] or 0) > 0.5 for e in seen)
            values.append((hits + a) / (len(seen) + b) if len(seen) + b else math.nan)
        else:
            values.append(len(seen) if f.kind == "count" else day - max(e[2] for e in seen) if seen else math.nan)
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def past_of(events, f):
    from vitrail.data.declared import wanted_of

    table = pl.DataFrame({"event": [e[3] for e in events], "value": [e[4] for e in events]}, schema=KINDS)
    columns = [np.array([e[place] for e in events], dtype=np.int64) for place in range(3)]
    return Past.of(columns[0], columns[1], columns[2] * DAY, table, wanted_of({"f": f}, "interactions"))


def engine(f, events):
    return Declared(Declaration({"f": f}, units=UNITS), NUMBERS, TOKENS, {"interactions": past_of(events, f)})


def ask(declared, user, item, day):
    now = np.asarray(day, dtype=np.int64) * DAY
    return declared.values(["f"], Asked(np.asarray(user), np.asarray(item), now))["f"]


@settings(max_examples=120, deadline=None)
@given(features(), EVENTS, ROWS)
def test_offline_equals_the_loop_and_online_equals_offline_to_the_last_bit(f, events, rows):
    users, items, days = (np.array(column) for column in zip(*rows, strict=True))
    whole = engine(f, events)
    table = ask(whole, users, items, days)
    for r, (user, item, day) in enumerate(rows):
        wanted = reference(f, events, user, item, day)
        assert table[r] == pytest.approx(wanted, abs=1e-6, nan_ok=True), (f.text, rows[r])
    # events that come in any order end as the same table
    late = engine(f, events[len(events) // 2 :])
    for event in events[: len(events) // 2]:
        late = late.heard("interactions", past_of([event], f))
    assert ask(late, users, items, days).tobytes() == table.tobytes(), f.text
    # a service that starts with the oldest events, hears of the others as they come, and is asked row by row
    ordered = sorted(events, key=lambda e: e[2])
    start = len(ordered) // 3
    service, told = engine(f, ordered[:start]), start
    for r in np.argsort(days, kind="stable"):
        coming = [n for n in range(told, len(ordered)) if ordered[n][2] < days[r]]
        for n in coming:
            service, told = service.heard("interactions", past_of([ordered[n]], f)), told + 1
        one = ask(service, users[r : r + 1], items[r : r + 1], days[r : r + 1])
        assert one.tobytes() == table[r : r + 1].tobytes(), (f.text, rows[r])
    # what happens at the moment of a row or after it changes nothing
    more = [*events, *((user, item, day + later, "cart", 2.5) for user, item, day in rows for later in (0, 1) if user >= 0)]
    first = int(np.argmin(days))
    again = ask(engine(f, more), users[first : first + 1], items[first : first + 1], days[first : first + 1])
    assert again.tobytes() == table[first : first + 1].tobytes()


def test_with_many_heard_of_all_are_sorted_anew(monkeypatch):
    monkeypatch.setattr("vitrail.data.declared.FRESH", 2)
    f = Feature.of({"kind": "count", "by": "user"})
    service, waiting = engine(f, [(0, 0, 0, None, None)]), []
    for day in range(1, 5):
        service = service.heard("interactions", past_of([(0, 0, day, None, None)], f))
        waiting.append(sum(map(len, service.fresh.values())))
        assert ask(service, [0], [0], [9]).tolist() == [day + 1.0]
    assert waiting == [1, 2, 0, 1]


def test_events_that_come_late_are_put_in_their_place():
    f = Feature.of({"kind": "distinct", "by": "user", "column": "item"})
    events = [(0, 0, 1, None, None), (0, 1, 5, None, None), (0, 0, 7, None, None), (0, 2, 3, None, None)]
    service = engine(f, events[:2])
    for event in events[2:]:
        service = service.heard("interactions", past_of([event], f))
    assert ask(service, [0, 0], [0, 0], [4, 9]).tolist() == [2.0, 3.0]
    assert service.heard("impressions", past_of(events, f)) is service and service.moment == 7 * DAY


def test_a_stranger_is_known_by_the_history_that_comes_along():
    """The same person under a code and without one: what their items and times tell is equal; what other columns would tell is missing."""
    told = {"seen": {"kind": "count", "by": ["user", "items.brand"], "window": "3d"}, "carts": {"kind": "count", "by": "user", "where": 'event == "cart"'},
            "all": {"kind": "count", "by": "item"}, "ratio": {"kind": "ratio", "parts": ["seen", "all"], "prior": [0, 1]},
            "city": {"kind": "column", "column": "users.city", "category": True}}  # fmt: skip
    made = {name: Feature.of(f) for name, f in told.items()}
    events = [(0, 0, 1, "cart", None), (0, 2, 2, "view", None), (1, 0, 2, "view", None), (0, 1, 3, "cart", None)]
    columns = [np.array([e[place] for e in events]) for place in range(3)]
    table = pl.DataFrame({"event": [e[3] for e in events]})
    past = Past.of(columns[0], columns[1], columns[2] * DAY, table, ['holds event == "cart"'])
    fields = {name: Field(name=name, whose="event", kind="number", codes=6, edges=[0.5, 1.5, 2.5]) for name in made}
    fields["city"] = Field(name="city", whose="event", kind="category", codes=3, keys=tokens(pl.Series(["here"])).tolist())
    declared = Declared(Declaration(made, fields), NUMBERS, TOKENS, {"interactions": past})
    own = columns[0] == 0
    log = Log(np.array([0, 0, int(own.sum())]), columns[1][own].astype(np.int32), 4, columns[2][own] * DAY)
    now, items, owners = np.full(3, 4 * DAY), np.array([0, 1, 3]), np.array([1, 1, 1])
    known = declared.values(made, Asked(np.zeros(3, dtype=np.int64), items, now))
    strange = declared.values(made, Asked(np.full(3, -1), items, now, log=log, owners=owners))
    assert known["seen"].tolist()[:2] == [2.0, 1.0] and math.isnan(known["seen"][2]) and known["ratio"].tolist()[:2] == [2 / 3, 1 / 2]
    for name in ("seen", "all", "ratio"):
        assert strange[name].tobytes() == known[name].tobytes(), name
    assert known["carts"].tolist() == [2.0] * 3 and np.isnan(strange["carts"]).all()
    codes = declared.codes(["city", "seen"], Asked(np.array([0, 2, -1]), items, now))
    assert codes["city"].tolist() == [2, UNSEEN, MISSING] and codes["seen"].tolist() == [4, 2, MISSING]
    untimed = Log(log.indptr, log.items, 4)
    assert np.isnan(declared.values(["seen"], Asked(np.full(3, -1), items, now, log=untimed, owners=owners))["seen"]).all()
    assert np.isnan(declared.values(["all"], Asked(np.zeros(3, dtype=np.int64), items))["all"]).all(), "without a clock nothing is known"


def test_the_artifact_keeps_all_that_was_heard():
    f = Feature.of({"kind": "sum", "by": "item", "column": "events.value", "where": 'event == "cart"'})
    events = [(0, 0, 1, "cart", 0.5), (1, 0, 2, "cart", 2.5), (2, 0, 3, "view", 9.0)]
    service = engine(f, events[:1]).heard("interactions", past_of(events[1:], f))
    again = Declared.of(service.told, service.arrays())
    assert ask(again, [0], [0], [5]).tolist() == ask(service, [0], [0], [5]).tolist() == [3.0]
    assert ask(again.over({"interactions": past_of([], f)}), [0], [0], [5]).tolist() == [0.0]


def test_crosses_and_their_codes():
    told = {
        "age": {"kind": "column", "column": "users.age", "missing": 0},
        "device": {"kind": "column", "column": "context.device", "category": True, "missing": "none"},
        "cross": {"kind": "cross", "columns": ["age", "items.brand"]},
        "hashed": {"kind": "cross", "columns": ["items.brand", "context.device"], "hash": 7},
    }
    made = {name: Feature.of(f) for name, f in told.items()}
    fields = {"age": Field(name="age", whose="event", kind="number", codes=5, edges=[10.0, 35.0]),
              "device": Field(name="device", whose="event", kind="category", codes=4, keys=np.sort(tokens(pl.Series(["none", "phone"]))).tolist()),
              "hashed": Field(name="hashed", whose="event", kind="category", codes=9, hashed=True)}  # fmt: skip
    declared = Declared(Declaration(made, fields), NUMBERS, TOKENS, {})
    asked = Asked(np.array([0, 1, 2, -1]), np.array([0, 2, 3, 1]), context={"device": pl.Series(["phone", None, "tv", "phone"])})
    values = declared.values(made, asked)
    assert values["age"].tolist() == [30.0, 41.5, 0.0, 0.0] and values["cross"][2] == 0, "no brand, no cross"
    assert len(set(values["cross"].tolist())) == 4 and (values["hashed"] == 0).tolist() == [False, True, True, False]
    codes = declared.codes(["age", "device", "hashed"], asked)
    assert codes["age"].tolist() == [3, 4, 2, 2] and codes["device"][2] == UNSEEN and sorted(codes["device"][[0, 1]].tolist()) == [2, 3]
    assert codes["hashed"][1] == MISSING and 2 <= codes["hashed"][0] < 9
    bare = declared.values(["device"], Asked(asked.who, asked.items))["device"]
    assert (bare == tokens(pl.Series(["none"]))[0]).all()


def test_hashes_of_cells():
    assert tokens(pl.Series(["b", None, "b"])).tolist()[1] == 0 and len(set(tokens(pl.Series(["b", None, "b", "c"])).tolist())) == 3
    cells = cell_tokens(pl.Series([["x", "y"], [], None, ["y"]]))
    assert cells.shape == (4, 2) and cells[0, 1] == cells[3, 0] and not cells[[1, 2]].any()
    both = joined(cells, cell_tokens(pl.Series(["a", "a", "b", "a"])))
    assert both.shape == (4, 2) and both[0, 1] == both[3, 0] and not both[1:3].any() and both[0, 0] != cells[0, 0]
