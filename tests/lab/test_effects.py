import json

import pytest

from vitrail.errors import SettingError
from vitrail.lab.effects import effects, moved, report
from vitrail.testing import checkerboard


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return checkerboard(tmp_path_factory.mktemp("data") / "board", side=36)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("effects") / "e"
    said = []
    return effects(["popular", "item-knn"], data, out=folder, splits=["leave-last-out", "ratio"], say=said.append), folder, said


def test_every_condition_has_every_system(whole):
    result, folder, said = whole
    assert len(result["conditions"]) == 8 and len(result["rows"]) == 16 and len(said) == 9
    assert {row["rank"] for row in result["rows"]} == {1, 2}
    assert {(c["split"], c["mask"], c["refit"]) for c in result["conditions"]} == {
        (split, mask, refit) for split in ("leave-last-out", "ratio") for mask in ("train+valid", "train") for refit in (False, True)
    }
    assert set(result["axes"]) == {"split", "mask", "refit"} and len(result["sentences"]) == 3
    assert json.loads((folder / "result.json").read_text())["rows"] == result["rows"]
    assert (folder / "effects.svg").stat().st_size > 1000 and (folder / "effects.png").exists()
    text = (folder / "report.md").read_text()
    assert text == report(result) and text.count("| leave-last-out |") == 4


def test_what_is_finished_is_not_measured_again(whole, data, monkeypatch):
    result, folder, _ = whole
    monkeypatch.setattr("vitrail.lab.effects.evaluate_run", None)
    assert effects(["popular", "item-knn"], data, out=folder, splits=["leave-last-out", "ratio"], quiet=True)["rows"] == result["rows"]


def test_an_axis_is_moved_with_everything_else_held():
    conditions = [{"split": split, "mask": mask, "refit": False} for split in ("x", "y") for mask in ("train", "none")]
    means = {"a": [0.1, 0.1, 0.3, 0.3], "b": [0.2, 0.2, 0.2, 0.1]}
    cells = [{"system": name, "condition": n, "mean": value} for name, row in means.items() for n, value in enumerate(row)]
    split = moved("split", conditions, cells)
    assert split["factor"] == pytest.approx(3) and (split["system"], split["from"], split["to"]) == ("a", "x", "y")
    assert (split["turned"], split["pairs"]) == (2, 2)
    mask = moved("mask", conditions, cells)
    assert mask["factor"] == pytest.approx(2) and mask["system"] == "b" and (mask["turned"], mask["pairs"]) == (0, 2)
    assert moved("refit", conditions, cells) is None


def test_what_cannot_be_compared_is_refused(data, tmp_path):
    with pytest.raises(SettingError, match="one condition only"):
        effects(["popular", "item-knn"], data, out=tmp_path / "e", splits=["ratio"], masks=["train"], refits=[False])
    with pytest.raises(SettingError, match="'none', 'train'"):
        effects(["popular", "item-knn"], data, out=tmp_path / "e", splits=["ratio"], masks=["trian"])
    with pytest.raises(SettingError, match="--seeds is 0"):
        effects(["popular", "item-knn"], data, out=tmp_path / "e", splits=["ratio"], seeds=0)
    assert not (tmp_path / "e").exists()
