"""Declared features on a data set: what is learned on training rows alone, and a log replayed through the serving path against the offline table."""

import numpy as np
import polars as pl
import pytest
import torch

from vitrail.data.batches import Sets
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.declare import read_features
from vitrail.data.features import Features, learn
from vitrail.data.fields import MISSING, UNSEEN, FieldSettings
from vitrail.data.impressions import make_impressions
from vitrail.data.schema import DatasetInfo
from vitrail.data.splits import Pairs, Rated, Shown
from vitrail.errors import DataError, SettingError
from vitrail.systems.base import Given, Sizes
from vitrail.systems.ranking.logistic import Logistic

HOUR = 3_600_000_000
FEATURES = {
    "carts": {"kind": "count", "by": "user", "where": 'event == "cart"', "window": "20h"},
    "dear_carts": {"kind": "rate", "by": "user", "where": 'event == "cart"', "hit": "value > 0.5"},
    "of_brand": {"kind": "count", "by": ["user", "brand"]},
    "of_tags": {"kind": "recency", "by": ["user", "tags"]},
    "spent": {"kind": "mean", "by": "user", "column": "price", "window": "2d"},
    "value": {"kind": "sum", "by": "item", "column": "events.value"},
    "dear": {"kind": "max", "by": "brand", "column": "items.price"},
    "fans": {"kind": "distinct", "by": "item", "column": "user", "window": "30h"},
    "kinds": {"kind": "distinct", "by": "user", "column": "event"},
    "ctr": {"kind": "rate", "by": "item", "source": "impressions", "hit": "clicked > 0", "prior": [1, 10]},
    "phones": {"kind": "count", "by": "city", "source": "impressions", "where": 'device == "phone"', "lag": "2h"},
    "share": {"kind": "ratio", "parts": ["carts", "of_brand"]},
    "device": {"kind": "column", "column": "device", "missing": "none", "at_least": 2},
    "band": {"kind": "column", "column": "price", "edges": [2, 8], "missing": 0},
    "where_what": {"kind": "cross", "columns": ["city", "brand"], "vocabulary": 3},
    "band_phone": {"kind": "cross", "columns": ["band", "device"], "hash": 5},
}


def stamp(hours):
    return pl.Series([h * HOUR for h in hours]).cast(pl.Datetime("us", "UTC"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    n, shown = 90, 60
    events = pl.DataFrame(
        {"user": [f"u{k % 7}" for k in rng.integers(0, 7, n)], "item": [f"i{k}" for k in rng.integers(0, 9, n)],
         "timestamp": stamp(np.sort(rng.integers(0, 70, n))), "event": [("view", "cart", "buy")[k] for k in rng.integers(0, 3, n)],
         "value": [[0.1, 0.7, None, 3.3][k] for k in rng.integers(0, 4, n)]}
    )  # fmt: skip
    items = pl.DataFrame({"item": [f"i{k}" for k in range(9)], "brand": ["a", "b", None] * 3, "tags": [["x"], ["x", "y"], []] * 3,
                          "price": [1.1, 2.2, None, 3.3, 4.4, 9.9, 1.7, 0.3, 2.9]})  # fmt: skip
    users = pl.DataFrame({"user": [f"u{k}" for k in range(7)], "city": ["here", "there", None, "here", "here", "there", "far"]})
    table = pl.DataFrame(
        {"user": [f"u{k}" for k in rng.integers(0, 7, shown)], "item": [f"i{k}" for k in rng.integers(0, 9, shown)],
         "clicked": rng.integers(0, 2, shown).astype(float), "timestamp": stamp(np.sort(rng.integers(5, 75, shown))),
         "device": [("phone", "desk", None)[k] for k in rng.integers(0, 3, shown)]}
    )  # fmt: skip
    columns = {"items": {"brand": "category", "tags": "categories", "price": "number"}, "users": {"city": "category"}}
    info = DatasetInfo(name="shop", order="timestamp", columns=columns, features=read_features(FEATURES, "here"))
    return write_dataset(tmp_path_factory.mktemp("d") / "d", info, events, items, users, impressions=table)


def ranker(features):
    given = Given(tables={name: torch.from_numpy(np.array(array)) for name, array in features.arrays().items()} | {"occurrences": torch.zeros(9)})
    return Logistic(Logistic.Config(), Sizes(7, 9, {}, features.spec), given).eval()


def test_a_log_replayed_through_the_serving_path_gives_the_offline_table(data):
    """A ranker that knows nothing but its definitions hears of event after event, and is asked for each row just when it is shown."""
    split = make_impressions(Dataset(data.path), Shown(valid=0.2, test=0.2))
    features, _ = learn(data, split, FieldSettings(), length=50)
    rows = features.fill(split.shown)
    names = [f.name for f in features.spec.owned("event")]
    assert set(FEATURES) <= set(names) and features.spec.declared["spent"].column == "items.price"
    model = ranker(Features.of(features.spec, features.arrays()))
    log = split.shown.log
    model.observe(log.where(np.zeros(len(log), dtype=bool)), data.interactions)
    events = data.interactions.select("event", "value")[log.rows].with_columns(user=log.users, item=log.items.astype(np.int64), timestamp=log.times)
    order, told = np.argsort(log.times, kind="stable"), 0
    for r in np.argsort(rows.times, kind="stable"):
        t, user = rows.times[r], rows.users[r : r + 1].copy()
        while told < len(order) and log.times[order[told]] < t:
            model.hear(events[order[told : told + 1]])
            told += 1
        seen = split.shown.where(split.shown.times < t)
        model.source = model.source.showing([seen])
        past = log.where(log.times < t)
        history = past.histories(user)
        context = {name: column[r : r + 1] for name, column in rows.context.items()}
        found = model.features_at(history, torch.tensor([[rows.items[r]]]), int(t), context)[0, 0]
        wanted = rows.fields[r].tolist()
        assert found.tolist() == wanted, {n: (a, b) for n, a, b in zip(names, found.tolist(), wanted, strict=True) if a != b}
        # a stranger with the same history: all that items and times tell is the same
        nobody = Sets(torch.tensor([-1]), history.indptr, history.items, history.times, history.weights)
        strange = model.features_at(nobody, torch.tensor([[rows.items[r]]]), int(t))
        for name in ("of_brand", "of_tags", "spent"):
            assert strange[0, 0, names.index(name)] == found[names.index(name)], name
    assert told > 60 and len({tuple(row) for row in rows.fields.tolist()}) > 40


def test_what_is_known_of_no_column_is_missing(data):
    """A log without the rows that its events came from tells who, what and when."""
    split = make_impressions(data, Shown(valid=0.2, test=0.2))
    features, _ = learn(data, split, FieldSettings(), length=50)
    names = [f.name for f in features.spec.owned("event")]
    bare = features.at(split.known)
    heard = bare.heard(pl.DataFrame({"user": [0], "item": [0], "timestamp": [80 * HOUR]}))
    for some in (bare, heard):
        codes = some.fill(split.test).fields
        assert not codes[:, names.index("carts")].any() and codes[:, names.index("fans")].all()
    assert heard.events.moment == heard.declared.moment == 80 * HOUR


def test_vocabularies_and_edges_are_those_of_the_training_rows(data):
    split = make_impressions(data, Shown(valid=0.2, test=0.2))
    features, _ = learn(data, split, FieldSettings(), length=50)
    spec = {f.name: f for f in features.spec.fields}
    assert spec["band"].edges == [2.0, 8.0] and spec["where_what"].codes == 5 and spec["band_phone"].codes == 7 and spec["band_phone"].hashed
    assert spec["carts"].edges and spec["device"].kind == "category"
    coded = features.fill(split.train).fields[:, [f.name for f in features.spec.owned("event")].index("device")]
    assert MISSING not in coded, "a missing device is a value of its own name"
    changed = split.train.context["device"].to_list()
    rare = {name: split.train.context["device"].eq(name).sum() for name in ("phone", "desk")}
    assert min(rare.values()) >= 2 and changed.count(None) >= 2 and spec["device"].codes == 5
    fewer, _ = learn(data, split, FieldSettings(features=["where_what"], past=False), length=50)
    assert [f.name for f in fewer.spec.owned("event")] == ["device", "where_what"] and list(fewer.spec.declared) == ["where_what"]
    none, _ = learn(data, split, FieldSettings(features=[]), length=50)
    assert not none.spec.declared and none.declared is None
    assert (features.fill(split.test).fields[:, -1] >= 0).all() and UNSEEN == 1


def test_test_rows_of_other_splits_and_what_the_artifact_holds(data):
    """`rated`: every event was shown; and of the artifact, nothing of the test part is counted."""
    told = {"liked": {"kind": "rate", "by": "user", "source": "impressions", "hit": "clicked > 0"}, "n": {"kind": "count", "by": "item"}}
    split = make_impressions(data, Rated(label="value > 0.5", valid=0.2, test=0.2))
    features, _ = learn(data, split, FieldSettings(features=read_features(told, "x")), length=50)
    saved = features.at(split.known, data.interactions).showing([split.train, split.valid])
    end = split.test.times.min()
    assert len(saved.declared.pasts["interactions"]) == len(split.known) and saved.declared.pasts["impressions"].times.max() < end
    assert len(features.declared.pasts["interactions"]) == 90


WRONG = [
    ({"x": {"kind": "count", "by": "colour"}}, Shown(), 'There is no column "colour"'),
    ({"x": {"kind": "count", "by": "price"}}, Shown(), 'cannot read "items.price", which is of kind number'),
    ({"x": {"kind": "mean", "by": "user", "column": "brand"}}, Shown(), 'cannot read "items.brand", which is of kind category'),
    ({"x": {"kind": "mean", "by": "user", "column": "item"}}, Shown(), "which is no number"),
    ({"x": {"kind": "count", "by": "user", "where": "evnt == 1"}}, Shown(), 'There is no column "evnt"'),
    ({"x": {"kind": "column", "column": "price", "hash": 4}}, Shown(), "has hash, and"),
    ({"x": {"kind": "column", "column": "brand", "buckets": 4}}, Shown(), "has buckets, and"),
    ({"x": {"kind": "column", "column": "price", "missing": "dear"}}, Shown(), "missing: dear is none"),
    ({"x": {"kind": "cross", "columns": ["price", "brand"]}}, Shown(), "which is of kind number"),
    ({"price": {"kind": "count", "by": "user"}}, Shown(), "has the name of another field"),
    ({"x": {"kind": "count", "by": "user", "source": "impressions"}}, Pairs(), "draws its rows"),
]


@pytest.mark.parametrize(("told", "split", "sentence"), WRONG)
def test_what_the_data_cannot_give_is_a_sentence(data, told, split, sentence):
    made = make_impressions(data, split.but({"valid": 0.2, "test": 0.2}) if isinstance(split, Shown) else split)
    with pytest.raises((SettingError, DataError), match=sentence):
        learn(data, made, FieldSettings(features=read_features(told, "x")), length=50)


def test_two_tables_with_one_column_and_no_clock(tmp_path):
    events = pl.DataFrame({"user": ["a", "a", "a", "b"] * 3, "item": [f"i{k % 5}" for k in range(12)], "position": list(range(12)), "value": [1.0] * 12})
    items = pl.DataFrame({"item": [f"i{k}" for k in range(5)], "size": ["s"] * 5})
    users = pl.DataFrame({"user": ["a", "b"], "size": ["l", "m"]})
    info = DatasetInfo(name="d", order="position", columns={"items": {"size": "category"}, "users": {"size": "category"}})
    data = write_dataset(tmp_path / "d", info, events, items, users)
    split = make_impressions(data, Pairs())
    with pytest.raises(SettingError, match=r"there are items\.size and users\.size: write which"):
        learn(data, split, FieldSettings(features=read_features({"x": {"kind": "column", "column": "size"}}, "x")), length=50)
    with pytest.raises(DataError, match="has no clock times"):
        learn(data, split, FieldSettings(features=read_features({"x": {"kind": "count", "by": "user"}}, "x")), length=50)
    one, _ = learn(data, split, FieldSettings(features=read_features({"x": {"kind": "column", "column": "users.size"}}, "x")), length=50)
    assert one.fill(split.test).fields is not None and one.spec.declared["x"].category


def test_a_data_set_with_bad_features_says_so(tmp_path, data):
    import shutil

    shutil.copytree(data.path, tmp_path / "d")
    file = tmp_path / "d" / "dataset.yaml"
    file.write_text(file.read_text().replace("window: 20h", "windows: 20h"))
    with pytest.raises(SettingError, match='Unknown key "windows" in feature "carts" of dataset'):
        Dataset(tmp_path / "d")
