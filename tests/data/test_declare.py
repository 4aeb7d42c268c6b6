"""Declarations: what may be said, one sentence for what may not, and which features a setting asks for."""

import pytest

from vitrail.data.declare import Feature, chosen, microseconds, read_features
from vitrail.errors import SettingError

TOLD = {
    "carts": {"kind": "count", "by": "user", "where": 'event == "cart"', "window": "7d", "lag": "1h"},
    "shows": {"kind": "count", "by": "item", "source": "impressions"},
    "rate": {"kind": "ratio", "parts": ["carts", "shows"], "prior": [1, 20]},
    "cross": {"kind": "cross", "columns": ["rate", "city"], "hash": 10},
    "cheap": {"kind": "min", "by": ["user", "brand"], "column": "price"},
}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1_800), ("1.5h", 5_400), ("7d", 604_800), ("2w", 1_209_600)])
def test_lengths_of_time(text, seconds):
    assert microseconds(text) == seconds * 1_000_000


def test_each_feature_comes_after_those_it_reads():
    turned = {name: TOLD[name] for name in ("cross", "rate", "carts", "shows", "cheap")}
    found = read_features(turned, "a.yaml")
    order = list(found)
    assert order.index("cross") > order.index("rate") > max(order.index("carts"), order.index("shows"))
    assert found["carts"].by == ("user",) and found["cheap"].past and not found["cross"].past
    assert found["carts"].text == 'events of interactions by user where event == "cart", 7d back, 1h late'
    assert [found[name].text for name in ("rate", "cheap", "cross")] == ["carts / shows", "min price by user x brand", "rate x city"]
    again = {name: Feature.of(f.model_dump(mode="json")) for name, f in found.items()}
    assert again == found


WRONG = [
    ({"kind": "count", "by": "user", "windw": "7d"}, 'Unknown key "windw" in feature "x" of a.yaml. Did you mean "window"?'),
    ({"kind": "coumt", "by": "user"}, 'Bad value for "kind"'),
    ({"kind": "count"}, 'kind count needs "by"'),
    ({"kind": "count", "by": "user", "column": "price"}, 'kind count has no "column"; it takes'),
    ({"kind": "count", "by": "user", "window": "soon"}, '"soon" is no length of time'),
    ({"kind": "count", "by": "user", "window": "-3d"}, '"-3d" is no length of time that can be looked back'),
    ({"kind": "cross", "columns": ["city"]}, "names two columns at least"),
    ({"kind": "ratio", "parts": ["a", "b", "c"]}, "names two features"),
    ({"kind": "ratio", "parts": ["x", "none"]}, 'There is no feature "none".'),
    ({"kind": "ratio", "parts": ["x", "x"]}, "reads itself by way of others"),
    ({"kind": "column", "column": "price", "edges": [2, 1]}, "edges must rise"),
    ({"kind": "column", "column": "price", "edges": [1, 2], "buckets": 4}, "edges stand in place of buckets"),
    ({"kind": "column", "column": "city", "hash": 4, "vocabulary": 2}, "hash stands in place of a vocabulary"),
    (3, "must be a mapping with a kind"),
]


@pytest.mark.parametrize(("told", "sentence"), WRONG)
def test_what_may_not_be_said_is_a_sentence(told, sentence):
    with pytest.raises(SettingError) as error:
        read_features({"x": told}, "a.yaml")
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_ratio_of_a_category_and_a_list_are_refused():
    with pytest.raises(SettingError, match="which is no number of events"):
        read_features({"x": {"kind": "ratio", "parts": ["y", "y"]}, "y": {"kind": "column", "column": "city"}}, "a.yaml")
    with pytest.raises(SettingError, match="must be a mapping of names"):
        read_features([1], "a.yaml")


def test_which_features_a_setting_asks_for(tmp_path):
    known = read_features(TOLD, "dataset.yaml")
    assert list(chosen(None, known)) == list(known) and not chosen([], known) and list(chosen(["cheap"], known)) == ["cheap"]
    assert set(chosen(["cross"], known)) == {"cross", "rate", "carts", "shows"}
    assert chosen({"cheap": known["cheap"]}, {}) == {"cheap": known["cheap"]}
    with pytest.raises(SettingError, match='There is no feature "chep"'):
        chosen(["chep"], known)
    for text in ("features:\n  n: {kind: count, by: item}\n", "n: {kind: count, by: item}\n"):
        (tmp_path / "f.yaml").write_text(text)
        assert list(chosen(str(tmp_path / "f.yaml"), known)) == ["n"]
    with pytest.raises(SettingError, match="There is no file"):
        chosen(str(tmp_path / "no.yaml"), known)
