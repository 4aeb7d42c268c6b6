"""The funnel file: what it takes, what it refuses in a sentence, where its paths begin."""

import pytest
import yaml

from vitrail.errors import SettingError
from vitrail.funnel.file import FunnelFile, read_funnel

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
