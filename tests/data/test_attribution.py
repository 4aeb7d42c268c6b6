"""Delayed feedback: labels are the events within a window, never from beyond the part's time; what is open is left out or weighed."""

import numpy as np
import polars as pl
import pytest

from vitrail.data.dataset import write_dataset
from vitrail.data.declared import Asked
from vitrail.data.features import learn
from vitrail.data.fields import FieldSettings
from vitrail.data.impressions import make_impressions
from vitrail.data.schema import DatasetInfo
from vitrail.data.splits import Shown, parse_split
from vitrail.errors import DataError, SettingError

DAY = 86_400_000_000


def stamp(days):
    return pl.Series([round(d * DAY) for d in days]).cast(pl.Datetime("us", "UTC"))


def shop(folder, shown, events, *, order="timestamp"):
    """`shown`: (user, item, day, part); `events`: (user, item, day, kind)."""
    table = pl.DataFrame(shown, schema=["user", "item", "day", "part"], orient="row")
    log = pl.DataFrame(events, schema=["user", "item", "day", "event"], orient="row")
    table = table.with_columns(timestamp=stamp(table["day"].to_list()), clicked=pl.lit(0.0)).drop("day")
    log = log.with_columns(**({"timestamp": stamp(log["day"].to_list())} if order == "timestamp" else {"position": log["day"].cast(pl.Int64)})).drop("day")
    return write_dataset(folder, DatasetInfo(name="shop", order=order), log, impressions=table)


SHOWN = [("a", "x", 1, "train"), ("a", "y", 1, "train"), ("b", "x", 2, "train"), ("b", "y", 6, "train"), ("a", "x", 6.5, "train"),
         ("a", "y", 8, "valid"), ("b", "x", 9, "valid"), ("a", "x", 12, "test"), ("b", "y", 12.5, "test"), ("b", "x", 19, "test")]  # fmt: skip
EVENTS = [("a", "x", 2, "buy"), ("a", "y", 2, "view"), ("b", "x", 5, "buy"), ("b", "y", 7, "buy"), ("a", "x", 8.5, "buy"), ("a", "y", 8.25, "buy"),
          ("b", "x", 13, "buy"), ("a", "x", 12, "buy"), ("b", "y", 20, "view")]  # fmt: skip


def told(part, data):
    users, items = data.user_ids.decode(part.users), data.item_ids.decode(part.items)
    return {(u, i, t / DAY): y for u, i, t, y in zip(users, items, part.times.tolist(), part.labels.tolist(), strict=True)}


def test_labels_are_the_events_within_the_window_and_open_rows_are_left_out(tmp_path):
    data = shop(tmp_path / "d", SHOWN, EVENTS)
    split = make_impressions(data, parse_split('shown:within=3d,objective=event == "buy"'))
    # 3 days after (b, x, 2) begins its fourth: a buy on day 5 is too late; rows of day 6 and later end after day 8, where validation begins
    assert told(split.train, data) == {("a", "x", 1): 1.0, ("a", "y", 1): 0.0, ("b", "x", 2): 0.0}
    assert told(split.valid, data) == {("a", "y", 8): 1.0, ("b", "x", 9): 0.0}
    assert told(split.test, data) == {("a", "x", 12): 1.0, ("b", "y", 12.5): 0.0}, "an event of the same moment counts, a window past the log does not"
    assert split.matures == 3 * DAY and any("3 of 10 rows have a window of 3d" in note for note in split.leaks)
    assert split.settings["within"] == "3d" and "within" not in make_impressions(data, Shown()).settings
    every = make_impressions(data, Shown(within="3d"))
    assert told(every.train, data)[("a", "y", 1)] == 1.0, "without an objective any event counts"


def test_no_label_comes_from_beyond_the_time_of_its_part(tmp_path):
    """Whatever happens from the first validation row on, training rows stay as they are; the same for validation and test."""
    ways = [Shown(within="3d"), Shown(within="3d", pending="weigh")]
    for n, settings in enumerate(ways):
        whole = make_impressions(shop(tmp_path / f"a{n}", SHOWN, EVENTS), settings)
        for part, cut in (("train", 8), ("valid", 12)):
            data = shop(tmp_path / f"{part}{n}", SHOWN, [e for e in EVENTS if e[2] < cut] + [("a", "x", cut, "buy"), ("b", "y", cut, "buy")])
            found, wanted = getattr(make_impressions(data, settings), part), getattr(whole, part)
            assert told(found, data) == told(wanted, data)
            assert (found.weights is None) == (wanted.weights is None) and (found.weights is None or (found.weights == wanted.weights).all())


def test_open_rows_that_train_are_weighed_by_how_many_successes_come_so_soon(tmp_path):
    """Four closed successes after 1, 1, 2 and 2.5 days; a row that is open for 1.5 days has seen half of its kind."""
    shown = [(f"u{k}", "x", 1 + k / 100, "train") for k in range(5)] + [("p", "x", 8.5, "train"), ("q", "x", 8.5, "train")]
    shown += [("v", "x", 10, "valid"), ("w", "x", 20, "test")]
    events = [(f"u{k}", "x", 1 + k / 100 + delay, "buy") for k, delay in enumerate((1, 1, 2, 2.5))] + [("p", "x", 9, "buy"), ("w", "x", 40, "buy")]
    data = shop(tmp_path / "d", shown, events)
    split = make_impressions(data, Shown(within="3d", pending="weigh"))
    users = data.user_ids.decode(split.train.users)
    weights = dict(zip(users, split.train.weights.tolist(), strict=True))
    labels = dict(zip(users, split.train.labels.tolist(), strict=True))
    assert weights["p"] == 2.0 and weights["q"] == 1.0 and labels["p"] == 1.0 and labels["q"] == 0.0 and weights["u0"] == 1.0 and len(weights) == 7
    assert make_impressions(data, Shown(within="3d", pending="weigh", largest_weight=1.5)).train.weights.max() == 1.5
    assert len(make_impressions(data, Shown(within="3d")).train) == 5


def test_what_is_counted_of_items_waits_until_the_window_is_over(tmp_path):
    """`item rate` and declared rates see a row once its outcome is known."""
    data = shop(tmp_path / "d", SHOWN, EVENTS)
    split = make_impressions(data, Shown(within="3d", objective='event == "buy"'))
    declared = {"bought": {"kind": "rate", "by": "item", "source": "impressions", "hit": "clicked > 0"}}
    features, _ = learn(data, split, FieldSettings(features=declared), length=5)
    x = np.array([data.item_ids.code("x")])
    for day, wanted in ((4, np.nan), (4.01, 1.0), (5.01, 0.5), (9.51, 2 / 3)):
        now = np.array([round(day * DAY)])
        rates = features.shown.rate(x, now)[0], features.declared.values(["bought"], Asked(np.array([0]), x, now))["bought"][0]
        assert rates == pytest.approx((wanted, wanted), nan_ok=True), day


def test_rows_may_tell_when_their_outcome_is_known(tmp_path):
    """`outcome_known` of each row: the rates see it strictly after that, and one that is empty from when it was shown."""
    data = shop(tmp_path / "d", SHOWN, EVENTS)
    table = data.impressions.with_columns(clicked=pl.when(pl.col("item") == "x").then(1.0).otherwise(0.0))
    known = table.with_columns(outcome_known=pl.when(pl.col("user") == "a").then(pl.col("timestamp") + pl.duration(days=2)))
    data = write_dataset(tmp_path / "k", DatasetInfo(name="shop", order="timestamp"), data.interactions, impressions=known)
    split = make_impressions(data, Shown())
    assert "outcome_known" not in split.train.context and (split.train.known - split.train.times).tolist() == [2 * DAY] * 3 + [0] * 2
    declared = {"shown": {"kind": "count", "by": "item", "source": "impressions"}}
    features, _ = learn(data, split, FieldSettings(features=declared), length=5)
    x = np.array([data.item_ids.code("x")])
    for day, wanted in ((2, 0.0), (2.01, 1.0), (3, 1.0), (3.01, 2.0), (8.5, 2.0), (8.51, 3.0)):
        now = np.array([round(day * DAY)])
        assert features.shown.count(x, now)[0] == features.declared.values(["shown"], Asked(np.array([0]), x, now))["shown"][0] == wanted, day
    assert make_impressions(data, Shown(within="3d")).train.known is None, "a declared window has a moment of its own"
    soon = known.with_columns(outcome_known=stamp([0.5] * len(known)))
    early = write_dataset(tmp_path / "e", DatasetInfo(name="shop", order="timestamp"), data.interactions, impressions=soon)
    with pytest.raises(DataError, match="an outcome_known before their timestamp"):
        make_impressions(early, Shown())


def test_what_cannot_be_is_a_sentence(tmp_path):
    with pytest.raises(SettingError, match="say how long with within=3d"):
        parse_split("shown:pending=weigh")
    with pytest.raises(SettingError, match='"soon" is no length of time'):
        parse_split("shown:within=soon")
    mixed = [(u, i, 20 - d, part) for u, i, d, part in SHOWN]
    with pytest.raises(DataError, match="do not follow each other in time"):
        make_impressions(shop(tmp_path / "m", mixed, EVENTS), Shown(within="3d"))
    table = pl.DataFrame({"user": ["a"] * 4, "item": ["x"] * 4, "clicked": [0.0] * 4, "before": [0, 1, 2, 2], "part": ["train", "train", "valid", "test"]})
    log = pl.DataFrame({"user": ["a"] * 3, "item": ["x", "y", "z"], "position": [0, 1, 2]})
    data = write_dataset(tmp_path / "p", DatasetInfo(name="p", order="position"), log, impressions=table)
    with pytest.raises(DataError, match="has no clock times, and within=3d counts them"):
        make_impressions(data, Shown(within="3d"))
    bare = shop(tmp_path / "n", SHOWN, [("z", "z", 0, "view")])
    assert make_impressions(bare, Shown(within="1d", objective='event == "buy"')).train.labels.tolist() == [0.0] * 5


def test_the_rate_of_the_newest_rows_is_not_that_of_those_who_were_quick(tmp_path):
    """A tenth buys, after a day in the mean: among rows of the last day half of them had not yet, and the planted rate comes back."""
    rng = np.random.default_rng(0)
    n, edge = 6000, 10.0
    days, delay = rng.uniform(0, 14, n), rng.exponential(1.0, n)
    buys = (rng.random(n) < 0.1) & (delay < 3)
    part = np.where(days < edge, "train", np.where(days < 12, "valid", "test")).tolist()
    shown = [(f"u{k}", "x", d, p) for k, (d, p) in enumerate(zip(days.tolist(), part, strict=True))]
    events = [(f"u{k}", "x", days[k] + delay[k], "buy") for k in np.flatnonzero(buys)] + [("end", "x", 18, "view")]
    data = shop(tmp_path / "d", shown, events)
    planted = 0.1 * (1 - np.exp(-3))
    weighed = make_impressions(data, Shown(within="3d", pending="weigh")).train
    newest = weighed.times > (edge - 1) * DAY
    naive = weighed.labels[newest].mean()
    assert naive < 0.6 * planted
    assert np.average(weighed.labels[newest], weights=weighed.weights[newest]) == pytest.approx(planted, rel=0.3)
    assert np.average(weighed.labels, weights=weighed.weights) == pytest.approx(planted, rel=0.1)
    assert make_impressions(data, Shown(within="3d")).train.labels.mean() == pytest.approx(planted, rel=0.1)
