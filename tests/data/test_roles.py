"""Roles by name and by content; doubt is an error that names the candidates and the flag."""

from pathlib import Path

import polars as pl
import pytest

from vitrail.data.kinds import convert, guess_kind
from vitrail.data.roles import guess_roles
from vitrail.data.times import looks_like_time, parse_times
from vitrail.errors import DataError

PATH = Path("log.csv")


def columns(**cells):
    return pl.DataFrame({name: pl.Series([str(c) for c in values], dtype=pl.String) for name, values in cells.items()})


def guessed(frame, header=True, **told):
    return {role: guess.column for role, guess in guess_roles(frame, told, path=PATH, header=header).items()}


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["user_id", "item_id", "rating", "timestamp"], {"user": "user_id", "item": "item_id", "value": "rating", "timestamp": "timestamp"}),
        (["SessionId", "ItemId", "Count", "Time"], {"user": "SessionId", "item": "ItemId", "value": "Count", "timestamp": "Time"}),
        (["Customer ID", "asin", "Stars", "date"], {"user": "Customer ID", "item": "asin", "value": "Stars", "timestamp": "date"}),
        (
            ["reviewerID", "productId", "overall", "unixReviewTime"],
            {"user": "reviewerID", "item": "productId", "value": "overall", "timestamp": "unixReviewTime"},
        ),
        (["visitorid", "movieId", "weight", "ts"], {"user": "visitorid", "item": "movieId", "value": "weight", "timestamp": "ts"}),
    ],
)
def test_usual_names(names, roles):
    frame = columns(**dict(zip(names, [["7", "8"], ["x1", "x2"], ["3", "4.5"], ["1400000000", "1400000001"]], strict=True)))
    assert guessed(frame) == roles


def test_a_usual_name_whose_content_belies_it_is_no_role():
    frame = columns(user=["a", "b"], item=["x", "y"], rating=["good", "bad"], type=["3.25", "9.5"], part=["left", "right"])
    assert guessed(frame) == {"user": "user", "item": "item"}


def test_user_comes_before_session_and_the_id_before_the_name():
    frame = columns(session_id=["s1", "s2"], user_id=["u1", "u2"], product=["Pen", "Ink"], product_id=["1", "2"])
    assert guessed(frame) == {"user": "user_id", "item": "product_id"}


def test_times_are_found_by_content_and_events_by_name():
    frame = columns(user=["a", "b"], item=["x", "y"], when_seen=["2020-01-01T10:00:00Z", "2020-01-02T10:00:00Z"], behaviour=["view", "buy"])
    assert guessed(frame) == {"user": "user", "item": "item", "timestamp": "when_seen", "event": "behaviour"}


def test_position_only_where_there_is_no_time():
    frame = columns(user=["a", "b"], item=["x", "y"], position=["1", "2"])
    assert guessed(frame)["position"] == "position"
    assert "position" not in guessed(frame.with_columns(timestamp=pl.Series(["5", "6"])))


def test_without_header_places_decide():
    frame = columns(column1=["1", "1"], column2=["5", "9"])
    assert guessed(frame, header=False) == {"user": "column1", "item": "column2"}
    frame = columns(column1=["1", "1"], column2=["5", "9"], column3=["4", "3"], column4=["881250949", "891717742"])
    assert guessed(frame, header=False) == {"user": "column1", "item": "column2", "value": "column3", "timestamp": "column4"}


    frame = columns(column1=["u1", "u2"], column2=["2009-05-04T23:08:57Z", "2009-05-04T13:54:10Z"], column3=["x1", "x2"])
    assert guessed(frame, header=False) == {"user": "column1", "item": "column3", "timestamp": "column2"}


def test_two_likely_columns_are_named_with_the_flag():
    frame = columns(user=["a", "b"], track_id=["1", "2"], artist_id=["3", "4"])
    with pytest.raises(DataError, match=r'"track_id", "artist_id".*--item COLUMN'):
        guessed(frame)
    assert guessed(frame, item="track_id")["item"] == "track_id"


def test_two_columns_of_times_are_named_with_the_flag():
    frame = columns(user=["a", "b"], item=["1", "2"], begun=["2020-01-01", "2020-01-02"], ended=["2020-01-03", "2020-01-04"])
    with pytest.raises(DataError, match=r'"begun", "ended".*--timestamp COLUMN'):
        guessed(frame)
    assert "timestamp" not in guessed(frame, timestamp="none")


def test_absent_roles_name_the_candidates():
    with pytest.raises(DataError, match=r'the user and which the item.*--user COLUMN and --item COLUMN.*"foo", "bar"'):
        guessed(columns(foo=["a", "b"], bar=["c", "d"], timestamp=["1", "2"]))


def test_the_only_column_left_is_taken():
    assert guessed(columns(user=["a", "b"], thing=["c", "d"], price=["1.5", "2.5"], ts=["1", "2"]))["item"] == "thing"


def test_told_columns_hold_or_are_refused():
    frame = columns(uid=["a", "b"], iid=["x", "y"])
    with pytest.raises(DataError, match=r'no column "itm" for --item. Known: iid'):
        guessed(frame, item="itm")
    with pytest.raises(DataError, match="two roles"):
        guessed(frame, user="uid", item="uid")


@pytest.mark.parametrize("scale", [1, 10**3, 10**6, 10**9])
def test_units_of_unix_times(scale):
    series = pl.Series([str(1_400_000_000 * scale), str(1_400_000_001 * scale)])
    assert looks_like_time(series)
    times = parse_times(series)
    assert times.values.dt.epoch("s").to_list() == [1_400_000_000, 1_400_000_001]
    assert times.unit == {1: "s", 10**3: "ms", 10**6: "us", 10**9: "ns"}[scale]


def test_mixed_units_are_brought_to_the_majoritys():
    times = parse_times(pl.Series(["1400000000", "1400000001", "1400000002000"]))
    assert times.values.dt.epoch("s").to_list() == [1_400_000_000, 1_400_000_001, 1_400_000_002]
    assert times.rescaled.tolist() == [False, False, True]


def test_small_numbers_are_seconds_of_1970_and_no_mix():
    times = parse_times(pl.Series(["0", "7", "100"]))
    assert times.values.dt.epoch("s").to_list() == [0, 7, 100] and not times.rescaled.any()


def test_a_told_unit_is_kept():
    assert parse_times(pl.Series(["1400000000", "1400000001"]), "ms").rescaled.all()  # 1.4e9 ms is January 1970: seconds among milliseconds
    assert parse_times(pl.Series(["200000000000"]), "ms").values.dt.year().to_list() == [1976]


def test_microseconds_and_fractions_survive():
    times = parse_times(pl.Series(["1396437466.940001", "1396438212"]))
    assert times.values.dt.epoch("us").to_list() == [1396437466940001, 1396438212000000]


@pytest.mark.parametrize(
    ("name", "cells", "kind"),
    [
        ("price", ["1.5", "2", "", "n/a"], "number"),
        ("asin", [f"B00{i:05}X" for i in range(30)], "id"),
        ("imdb_id", [f"0{i}" for i in range(100, 130)], "id"),
        ("zip", ["02139", "02139", "90210", "90210"] * 6, "category"),
        ("colour", ["red", "blue", "red", "green"] * 8, "category"),
        ("genres", ["Drama|War", "Drama", "War|Comedy", "Comedy|Drama"] * 8, "categories"),
        ("tags", ["['a', 'b']", "['b']", "['a', 'c']"] * 4, "categories"),
        ("title", [f"The {i}th night, a story" for i in range(30)], "text"),
        ("cover", [f"covers/{i}.jpg" for i in range(30)], "image"),
        ("url", [f"https://x.org/{i}.jpg" for i in range(30)], "id"),
        ("in_stock", ["true", "false", "true"], "flag"),
        ("released", ["1995-01-02", "1958-07-01", ""], "date"),
    ],
)
def test_kinds_of_attributes(name, cells, kind):
    series = pl.Series(name, cells, dtype=pl.String)
    guess = guess_kind(series)
    assert guess.kind == kind
    column, lost = convert(series, guess)
    assert lost == 0 and column.name == name
    assert column.dtype == {"number": pl.Float64, "flag": pl.Boolean, "date": pl.Datetime("us", "UTC"), "categories": pl.List(pl.String)}.get(kind, pl.String)


def test_lists_are_cut_and_stripped():
    series = pl.Series("tags", ["['a', 'b c']", "[]", None], dtype=pl.String)
    assert convert(series, guess_kind(series))[0].to_list() == [["a", "b c"], [], None]
