"""Impressions: how each source makes rows, how they are cut, and that histories end strictly before."""

import numpy as np
import polars as pl
import pytest

from vitrail.data.dataset import write_dataset
from vitrail.data.impressions import make_impressions, rank_split
from vitrail.data.schema import DatasetInfo
from vitrail.data.splits import Pairs, Rated, Shown, make_split, parse_split
from vitrail.errors import DataError, SettingError
from vitrail.evaluation.protocol import protocol_for

HOUR = 3_600_000_000


def stamp(hours):
    return pl.Series([h * HOUR for h in hours]).cast(pl.Datetime("us", "UTC"))


def shop(folder, order="timestamp", shown=None, **info):
    """Ten users who take the items u, u + 1, ... u + 5 at the hours 0, 1, ... with a rating."""
    rows = [(f"u{u}", f"i{(u + n) % 12}", n, float(1 + (u + n) % 5)) for u in range(10) for n in range(6)]
    table = pl.DataFrame(rows, schema=["user", "item", "n", "value"], orient="row")
    when = {"timestamp": stamp(table["n"].to_list())} if order == "timestamp" else {"position": table["n"]} if order == "position" else {}
    columns = {"items": {"brand": "category", "tags": "categories", "price": "number", "made": "date"}, "users": {"city": "category"}}
    items = pl.DataFrame(
        {"item": [f"i{n}" for n in range(12)], "brand": ["a", "b", None] * 4, "tags": [["x"], ["x", "y"], []] * 4, "price": [float(n) for n in range(12)],
         "made": stamp([n - 3 for n in range(12)])}
    )  # fmt: skip
    users = pl.DataFrame({"user": [f"u{n}" for n in range(10)], "city": ["here", "there"] * 5})
    record = DatasetInfo(name="shop", order=order, columns=columns, **info)
    return write_dataset(folder, record, table.drop("n").with_columns(**when), items, users, impressions=shown)


def test_pairs_put_a_stranger_item_beside_each_event(tmp_path):
    data = shop(tmp_path / "d", "position")
    split = make_impressions(data, Pairs(negatives=2))
    for part, events in ((split.train, 3), (split.valid, 1), (split.test, 1)):
        assert len(part) == 10 * events * 3 and part.labels.reshape(-1, 3).sum(0).tolist() == [10 * events, 0, 0]
        assert (part.users.reshape(-1, 3).std(1) == 0).all() and (part.stops.reshape(-1, 3).std(1) == 0).all()
    log = split.train.log
    own = {(u, i) for u, i in zip(log.users, log.items, strict=True)}
    rows = split.train
    assert all(((u, i) in own) == bool(y) for u, i, y in zip(rows.users, rows.items, rows.labels, strict=True))
    assert (log.items[rows.stops[::3]] == rows.items[::3]).all(), "a history ends just before its own event"
    assert len(split.known) == 50 and split.shown is None and not split.leaks
    again = make_impressions(data, Pairs(negatives=2))
    assert (again.train.items == rows.items).all() and (
        make_impressions(data, Pairs(seed=1)).train.items[1::2] != make_impressions(data, Pairs()).train.items[1::2]
    ).any()


def test_pairs_cut_in_time_and_their_leak_is_said(tmp_path):
    data = shop(tmp_path / "d")
    by_time = make_impressions(data, Pairs(cut="time", test=0.2, valid=0.2))
    assert by_time.train.times.max() < by_time.valid.times.min() <= by_time.valid.times.max() < by_time.test.times.min() and not by_time.leaks
    late = shop(tmp_path / "e")
    assert not make_impressions(late, Pairs()).leaks  # all users end at the same hour
    with pytest.raises(DataError, match="no clock times"):
        make_impressions(shop(tmp_path / "f", "position"), Pairs(cut="time"))
    with pytest.raises(DataError, match="needs ordered events"):
        make_impressions(shop(tmp_path / "g", "none"), Pairs())


def test_rated_rows_are_the_events_and_their_success(tmp_path):
    split = make_impressions(shop(tmp_path / "d"), Rated(label="value >= 4", test=0.2, valid=0.2))
    rows = split.train
    assert len(rows) + len(split.valid) + len(split.test) == 60 and rows.log.weights is not None
    assert rows.labels.tolist() == rows.log.weights[np.isin(rows.log.times, np.unique(rows.times))].tolist()
    assert all((rows.log.times[s:e] < t).all() for s, e, t in zip(rows.starts, rows.stops, rows.times, strict=True))
    assert len(split.known) == len(rows) + len(split.valid) and split.shown is not None and len(split.shown) == 60
    with pytest.raises(DataError, match="counts only events"):
        make_impressions(shop(tmp_path / "e", positive="value >= 4"), Rated())


def shown_table(parts=True, times=True):
    hours = [6, 6, 7, 8, 9, 9]
    table = pl.DataFrame({"user": ["u0", "u0", "u1", "u1", "u2", "new"], "item": ["i9", "i8", "i9", "i3", "i4", "fresh"], "clicked": [1.0, 0, 1, 0, 1, 0]})
    table = table.with_columns(score=pl.Series([0.1, 0.2, None, 0.4, 0.5, 0.6]), source=pl.Series(["pop", "cf", None, "cf", "pop", "pop"]), position=pl.lit(1))
    table = table.with_columns(weight=pl.lit(0.5), before=pl.Series([6, 6, 6, 6, 6, 0]))
    table = table.with_columns(timestamp=stamp(hours)) if times else table
    return table.with_columns(part=pl.Series(["train", "train", "valid", "train", "test", "test"])) if parts else table


@pytest.mark.parametrize("times", [True, False])
def test_shown_rows_are_those_of_the_table(tmp_path, times):
    data = shop(tmp_path / "d", "timestamp" if times else "position", shown_table(times=times))
    assert rank_split(data.info, None) == Shown() and len(data.user_ids) == 11 and "fresh" in data.item_ids.ids.to_list()
    split = make_impressions(data, Shown())
    assert [len(split.train), len(split.valid), len(split.test)] == [3, 1, 2]
    assert set(split.train.context) == {"score", "source"} and split.train.weights.tolist() == [0.5] * 3
    lengths = split.test.stops - split.test.starts
    assert sorted(lengths.tolist()) == [0, 6] and len(split.known) == 60
    assert split.train.log.weights is not None  # the events say what happened


def test_shown_rows_are_cut_by_time_where_they_have_no_parts(tmp_path):
    data = shop(tmp_path / "d", shown=shown_table(parts=False))
    split = make_impressions(data, Shown(test=0.4, valid=0.2))
    assert split.train.times.max() < split.valid.times.min() and split.test.times.min() == 9 * HOUR
    with pytest.raises(DataError, match="neither parts nor times"):
        make_impressions(shop(tmp_path / "e", "position", shown_table(parts=False, times=False)), Shown())
    with pytest.raises(DataError, match='neither a timestamp nor "before"'):
        make_impressions(shop(tmp_path / "f", "position", shown_table().drop("timestamp", "before")), Shown())
    with pytest.raises(DataError, match='no column "clicked"'):
        make_impressions(shop(tmp_path / "g", shown=shown_table().drop("clicked")), Shown())
    with pytest.raises(DataError, match="does not say what was shown"):
        make_impressions(shop(tmp_path / "h"), Shown())


def test_each_kind_of_system_has_its_splits(tmp_path):
    data = shop(tmp_path / "d")
    assert rank_split(data.info, None) == Pairs()
    assert rank_split(data.info, "rated:label=value >= 3,cut=position") == Rated(label="value >= 3", cut="position")
    with pytest.raises(SettingError, match="makes none"):
        rank_split(data.info, "temporal")
    with pytest.raises(SettingError, match="makes rows for rankers"):
        make_split(data, parse_split("pairs"), protocol_for("temporal"))
    with pytest.raises(DataError, match="leaves no test row"):
        make_impressions(data, Rated(test=0.0))


def test_nothing_to_pair_is_a_sentence(tmp_path):
    table = pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "position": [0, 0]})
    data = write_dataset(tmp_path / "d", DatasetInfo(name="d", order="position"), table)
    with pytest.raises(DataError, match="No user has two events"):
        make_impressions(data, Pairs())
