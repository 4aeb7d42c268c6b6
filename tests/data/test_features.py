"""Features: what is learned on training rows, and that serving computes what training saw."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from vitrail.data import fields as F
from vitrail.data.dataset import write_dataset
from vitrail.data.features import Features, debiased, learn, occurrences
from vitrail.data.fields import FieldSettings
from vitrail.data.impressions import make_impressions
from vitrail.data.schema import DatasetInfo
from vitrail.data.splits import Pairs, Rated, Shown
from vitrail.errors import DataError, SettingError

HOUR = 3_600_000_000


def stamp(hours):
    return pl.Series([h * HOUR for h in hours]).cast(pl.Datetime("us", "UTC"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten users, twelve items with every kind of attribute, ratings, and what was shown."""
    rows = [(f"u{u}", f"i{(u * 5 + n) % 11}", u + 30 * n, float(1 + (u + n) % 5)) for u in range(10) for n in range(6)]
    table = pl.DataFrame(rows, schema=["user", "item", "n", "value"], orient="row")
    columns = {
        "items": {"brand": "category", "tags": "categories", "price": "number", "made": "date", "good": "flag", "name": "text"},
        "users": {"city": "category", "age": "number"},
    }
    items = pl.DataFrame(
        {"item": [f"i{n}" for n in range(12)], "brand": ["a", "b", None] * 3 + ["a", "b", "only here"], "tags": [["x"], ["x", "y"], []] * 4,
         "price": [float(n) for n in range(11)] + [None], "made": stamp([n - 30 for n in range(12)]),
         "good": [True, False, None] * 4, "name": ["n"] * 12}
    )  # fmt: skip
    users = pl.DataFrame({"user": [f"u{n}" for n in range(10)], "city": ["here", "there"] * 5, "age": list(range(20, 30))})
    n = 40
    shown = pl.DataFrame(
        {"user": [f"u{k % 10}" for k in range(n)], "item": [f"i{(7 * k) % 12}" for k in range(n)], "clicked": [float(k % 3 == 0) for k in range(n)],
         "timestamp": stamp([60 + 4 * k for k in range(n)]), "score": [k / n for k in range(n)], "source": [["pop", "cf", None][k % 3] for k in range(n)]}
    )  # fmt: skip
    info = DatasetInfo(name="shop", order="timestamp", columns=columns)
    return write_dataset(
        tmp_path_factory.mktemp("d") / "d", info, table.drop("n").with_columns(timestamp=stamp(table["n"].to_list())), items, users, impressions=shown
    )


@pytest.mark.parametrize("split", [Rated(valid=0.2, test=0.2), Pairs(), Shown(test=0.2, valid=0.2)])
def test_serving_computes_what_training_saw_and_nothing_of_the_future(data, split):
    """Each row asked alone, from a log and counts cut just before it, has the fields it had in training."""
    made = make_impressions(data, split)
    features, _ = learn(data, made, FieldSettings(user_id=True), length=50)
    for part in (made.train, made.test):
        rows = features.fill(part)
        for r in range(len(rows)):
            t = rows.times[r]
            keep = rows.log.times < t  # all that had happened, to anybody
            past = rows.log.where(keep)
            alone = features.at(past)
            if features.shown is not None:
                seen = features.shown.times < t
                cut = F.ItemPast(12, features.shown.items[seen], features.shown.times[seen], features.shown.labels[seen])
                alone = Features(alone.spec, alone.catalogue, alone.events, cut)
            owner = rows.users[r : r + 1]
            context = {name: column[r : r + 1] for name, column in rows.context.items()}
            codes = alone.codes(past, owner, past.indptr[owner], past.indptr[owner + 1], rows.items[r : r + 1], rows.times[r : r + 1], context)
            assert codes.tolist() == rows.fields[r : r + 1].tolist(), r
    again = Features.of(features.spec.model_validate_json(features.spec.model_dump_json()), features.arrays())
    assert (again.fill(made.test).fields == features.fill(made.test).fields).all()


def test_which_fields_there_are(data):
    made = make_impressions(data, Shown(test=0.2, valid=0.2))
    features, _ = learn(data, made, FieldSettings(), length=50)
    names = {whose: [f.name for f in features.spec.owned(whose)] for whose in ("item", "user", "event")}
    assert names["item"] == ["item", "brand", "tags", "price", "good"] and names["user"] == ["city", "age"]
    assert names["event"] == [
        "score",
        "source",
        "user count",
        "user rate",
        "user gap",
        "item count",
        "item gap",
        "item rate",
        "affinity:brand",
        "affinity:good",
        "affinity:tags",
        "age:made",
    ]
    plain, _ = learn(data, made, FieldSettings(past=False, attributes=["tags"], context=["source"], user_id=True), length=50)
    assert [f.name for f in plain.spec.fields] == ["item", "tags", "user", "source"]
    pairs, _ = learn(data, make_impressions(data, Pairs()), FieldSettings(), length=50)
    assert not {"item rate", "user rate"} & {f.name for f in pairs.spec.fields}, "drawn failures are no rates"
    for wrong, error in (({"attributes": ["brnad"]}, SettingError), ({"attributes": ["name"]}, DataError), ({"context": ["sorce"]}, SettingError)):
        with pytest.raises(error):
            learn(data, made, FieldSettings(**wrong), length=50)


def test_what_training_never_saw_is_told_from_what_is_missing(data):
    made = make_impressions(data, Rated(valid=0.2, test=0.2))
    features, occurs = learn(data, made, FieldSettings(hash_space=0), length=50)
    brand = [f.name for f in features.spec.owned("item") if f.kind != "categories"].index("brand")
    of = dict(zip(data.item_ids.ids.to_list(), features.catalogue.items[:, brand].tolist(), strict=True))
    ids = dict(zip(data.item_ids.ids.to_list(), features.catalogue.items[:, 0].tolist(), strict=True))
    assert of["i2"] == F.MISSING and of["i11"] == F.UNSEEN and of["i0"] == 2 and of["i1"] == 3
    assert ids["i11"] == F.UNSEEN and occurs[data.item_ids.code("i11")] == 0 and ids["i0"] >= 2
    assert features.catalogue.users[-1].tolist() == [F.UNSEEN] * 2
    hashed, _ = learn(data, made, FieldSettings(hash_space=1), length=50)
    assert {f.codes for f in hashed.spec.fields if f.hashed} == {3}


def test_occurrences_equal_the_loop(data):
    rows = make_impressions(data, Pairs()).train
    wanted = np.bincount(rows.items, minlength=12)
    for start, stop in zip(rows.starts, rows.stops, strict=True):
        wanted += np.bincount(rows.log.items[max(start, stop - 2) : stop], minlength=12)
    assert (occurrences(rows, 2) == wanted).all()


def test_codes_of_numbers_and_categories():
    edges = F.quantile_edges(np.array([1.0, 1, 2, 4, np.nan]), 8)
    assert edges == [1.5, 3.0] and F.code_numbers(np.array([1, 2, 9, np.nan]), edges).tolist() == [2, 3, 4, 0]
    many = F.quantile_edges(np.arange(1000.0), 4)
    assert np.bincount(F.code_numbers(np.arange(1000.0), many)).tolist() == [0, 0, 250, 250, 250, 250]
    assert F.quantile_edges(np.array([np.nan]), 4) == [] and F.code_numbers(np.array([3.0]), []).tolist() == [2]
    column = pl.Series(["b", None, "z", "a"])
    assert F.code_category(column, ["a", "b"]).tolist() == [3, 0, 1, 2]
    hashed = F.code_category(column, [], 4)
    assert hashed[1] == 0 and set(hashed[[0, 2, 3]]) <= {2, 3, 4, 5} and F.code_category(column.reverse(), [], 4)[::-1].tolist() == hashed.tolist()
    assert F.code_signals(None, F.FeatureSpec(signal=True)) is None
    assert F.code_signals(np.array([0, 1], dtype=np.float32), F.FeatureSpec(signal=True, signals=[0.5])).tolist() == [1, 2]


def test_a_success_weighs_one_over_the_chance_that_its_place_is_looked_at(data):
    rows = make_impressions(data, Shown(test=0.2, valid=0.2)).train
    kept = rows.where(np.arange(len(rows)) < 5)
    some = replace(kept, labels=np.array([1, 1, 0, 1, 1], dtype=np.float32), positions=np.array([1, 4, 4, np.nan, 40], dtype=np.float32))
    for more, wanted in (({}, [1, 4, 1, 1, 10]), ({"looked_at": 0.5, "largest_weight": 3}, [1, 2, 1, 1, 3]), ({"looked_at": (1.0, 0.5)}, [1, 2, 1, 1, 2])):
        assert debiased(some, FieldSettings(position="weight", **more), data).weights.tolist() == wanted
    own = replace(some, propensities=np.array([0.5, np.nan, 0.1, 0.25, 0.0], dtype=np.float32), weights=np.full(5, 0.5, dtype=np.float32))
    assert debiased(own, FieldSettings(position="weight", looked_at="propensity"), data).weights.tolist() == [1, 0.5, 0.5, 2, 5]
    assert debiased(some, FieldSettings(position="feature"), data) is some
    for settings, sentence in ((FieldSettings(position="feature"), "no position for position=feature"), (FieldSettings(position="weight"), "no position"),
                               (FieldSettings(position="weight", looked_at="propensity"), "no propensity")):  # fmt: skip
        with pytest.raises(DataError, match=sentence):
            debiased(rows, settings, data)
            learn(data, make_impressions(data, Shown(test=0.2, valid=0.2)), settings, length=5)
