"""The funnel file: what it takes, what it refuses in a sentence, where its paths begin."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vitrail.errors import SettingError, VitrailError
from vitrail.funnel.file import FunnelFile, read_funnel
from vitrail.recipes import is_funnel
from vitrail.systems import registry

RECIPES = [file for file in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")) if is_funnel(file)]

BASE = {"funnel": "shop", "retrieve": [{"system": "ease"}]}


def write(tmp_path, **changes):
    path = tmp_path / "funnel.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}))
    return path


def test_a_short_one_has_defaults(tmp_path):
    file = read_funnel(write(tmp_path))
    assert file.retrieve[0].label == "ease" and file.fuse.k == 200 and file.filter.seen and file.rank is None


def test_paths_are_relative_to_the_file(tmp_path):
    file = read_funnel(write(tmp_path, data="shop", retrieve=[{"run": "runs/a", "index": "i"}, {"system": "ease"}], rank={"run": "../r"}))
    assert file.data == str(tmp_path / "shop") and file.retrieve[0].run == str(tmp_path / "runs/a") and file.retrieve[0].index == str(tmp_path / "i")
    assert file.rank.run == str(tmp_path.parent / "r") and file.retrieve[0].label == "a"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"retreive": []}, 'Did you mean "retrieve"'),
        ({"retrieve": [{"system": "ease", "wieght": 2}]}, 'Did you mean "weight"'),
        ({"retrieve": [{"system": "eese"}]}, 'Did you mean "ease"'),
        ({"retrieve": [{"system": "ease", "settings": {"l22": 1}}]}, 'Did you mean "l2"'),
        ({"retrieve": [{"system": "ease", "run": "x"}]}, "one of the two"),
        ({"retrieve": [{}]}, "one of the two"),
        ({"retrieve": [{"run": "x", "settings": {"l2": 1}}]}, "finished run has its settings"),
        ({"retrieve": [{"system": "ease"}, {"system": "ease"}]}, 'two sources are called "ease"'),
        ({"retrieve": [{"system": "ease", "name": "a/b"}]}, "no slash"),
        ({"retrieve": [{"system": "ease", "date": "released"}]}, "belongs to the system fresh"),
        ({"retrieve": []}, "at least 1"),
        ({"fuse": {"methd": "rrf"}}, 'Did you mean "method"'),
        ({"rank": {"system": "ease", "budget_ms": 0}}, "budget_ms"),
        ({"arrange": {"system": "mrr"}}, 'Did you mean "mmr"'),
        ({"arrange": {"system": "mmr", "settings": {"wait": 1}}}, 'Did you mean "weight"'),
        ({"arrange": {"rules": {"pin": [{"item": "1", "place": 2}]}}}, "place|position"),
        ({"explore": {"policy": "greedy"}}, "no policy"),
        ({"explore": {"policy": "thompson", "settings": {"draw": 2}}}, 'Did you mean "draws"'),
        ({"split": "temporel"}, 'Did you mean "temporal"'),
        ({"data": {"name": "x", "ingest": {"files": ["a"], "user": []}}}, 'Did you mean "users"'),
    ],
)
def test_mistakes_are_sentences(tmp_path, changes, words):
    with pytest.raises(SettingError, match=words) as told:
        read_funnel(write(tmp_path, **changes))
    assert "\n" not in str(told.value)


def test_another_yaml_is_no_funnel(tmp_path):
    (tmp_path / "x.yaml").write_text("name: ease\n")
    with pytest.raises(SettingError, match='no key "funnel"'):
        read_funnel(tmp_path / "x.yaml")


def test_it_survives_json(tmp_path):
    file = read_funnel(write(tmp_path, arrange={"system": "dpp", "rules": {"caps": {"category": 2}}}, explore={"policy": "thompson"}))
    assert FunnelFile.of(file.model_dump(mode="json")) == file


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_funnels_of_the_project_are_sound(path):
    rank = yaml.safe_load(path.read_text()).get("rank") or {}
    if rank.get("system", "ease") not in registry.names():
        pytest.skip(f"the ranker {rank['system']} is not installed")
    assert read_funnel(path).about


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
WHOLE = {
    "funnel": "shop",
    "about": "x",
    "data": {"name": "x", "ingest": {"files": ["a.csv"]}},
    "split": "temporal",
    "retrieve": [{"system": "ease", "settings": {"l2": 1}, "k": 5, "weight": 1, "above": 0}, {"system": "fresh", "date": "released"}],
    "fuse": {"method": "rrf", "constant": 60, "k": 9},
    "filter": {"condition": "stock > 0", "seen": True},
    "rank": {"system": "ease", "settings": {}, "budget_ms": 5, "mix": 0.5},
    "arrange": {"system": "mmr", "settings": {"weight": 0.5}, "rules": {"caps": {"a": 1}, "pin": [{"item": "1", "position": 1}], "quotas": []}},
    "explore": {"policy": "thompson", "settings": {"draws": 5}},
}


def places(value, path=()):
    """Every path into nested keys and lists."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([path for path in places(WHOLE) if path]), VALUES, st.booleans())
@example(("rank",), {"\n": None}, False)
@example(("explore", "policy"), "a\nb", False)
@example(("retrieve", 0, "system"), "a\x85b", False)
@example(("split",), "a\u2028b", False)
def test_whatever_stands_in_a_file_is_taken_or_refused_in_a_sentence(tmp_path, path, value, as_key):
    told = copy.deepcopy(WHOLE)
    inner = told
    for key in path[:-1]:
        inner = inner[key]
    if as_key and isinstance(inner, dict):
        inner[f"{path[-1]}x"] = inner.pop(path[-1])
    else:
        inner[path[-1]] = value
    (tmp_path / "f.yaml").write_text(yaml.safe_dump(told, allow_unicode=True), encoding="utf-8")
    try:
        file = read_funnel(tmp_path / "f.yaml")
    except VitrailError as error:
        assert len(str(error).splitlines()) == 1 and str(error).rstrip().endswith((".", "?", "]", ")"))
    else:
        assert FunnelFile.of(file.model_dump(mode="json")).funnel == file.funnel
