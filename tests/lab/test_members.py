import json

import pytest

import vitrail.lab.compare as module
from vitrail.errors import SettingError
from vitrail.files import write_json
from vitrail.lab.compare import compare
from vitrail.lab.members import ASKED, best_baseline, fixed_settings, members, of_family, outsiders, told
from vitrail.testing import checkerboard


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return checkerboard(tmp_path_factory.mktemp("data") / "board", side=36)


def test_settings_of_systems_beside_a_family_and_of_those_left_out_count(data):
    settings = {"neumf.batch": 64, "dgvae.batch": 32, "vbpr": {"dim": 4}}
    names, left_out = members(["lightgcn", "neumf"], "multimodal", (), data, settings)
    assert names[:2] == ["lightgcn", "neumf"] and {"vbpr", "freedom"} <= set(names) and "words" in left_out["dgvae"] and "dgvae" not in names
    fixed = fixed_settings(names, settings, [*names, *left_out])
    assert fixed["neumf"] == {"batch": 64} and fixed["vbpr"] == {"dim": 4} and "dgvae" not in fixed
    with pytest.raises(SettingError, match="no system in this comparison"):
        of_family("multimodal", data, settings)
    assert told(left_out) == [f"dgvae is left out: {left_out['dgvae']}"] and "nothing was run" not in left_out["dgvae"]


def test_systems_of_a_family_can_be_left_out(data):
    names, left_out = members(["popular", "freedom"], "multimodal", ("cm3", "dgvae"), data, {})
    assert "cm3" not in names and names.count("freedom") == 1 and left_out == {"cm3": ASKED, "dgvae": ASKED} and not told(left_out)
    assert members(["dgvae"], "multimodal", (), data, {})[0][0] == "dgvae", "what is named by its name is kept, and refused later"
    assert members(["popular"], None, (), data, {}) == (["popular"], {})


@pytest.mark.parametrize(
    ("family", "without", "says"),
    [
        ("multimodal", ["freedm"], 'Did you mean "freedom"'),
        ("multimodal", ["popular"], 'no system of the family "multimodal"'),
        ("multimodal", ["item-knn"], "named and left out at once"),
        ("multimodl", [], 'Did you mean "multimodal"'),
        (None, ["freedom"], "add --family NAME"),
    ],
)
def test_bad_members_are_a_sentence(data, family, without, says):
    with pytest.raises(SettingError, match=says) as error:
        members(["item-knn"], family, without, data, {})
    assert "\n" not in str(error.value)


def test_the_best_baseline_is_looked_for_outside_the_family():
    assert outsiders(["bm3", "ease", "popular"], None) == ["ease", "popular"] and outsiders(["ease", "bm3"], "multimodal") == ["ease"]
    with pytest.raises(SettingError, match='not of the family "multimodal", and all of these are'):
        outsiders(["bm3", "freedom"], None)
    name, why = best_baseline(["ease", "popular"], {"ease": 0.25, "popular": 0.125}, "recall@20")
    assert name == "ease" and why == (
        "The baseline is ease, the best on validation of the systems of other families (Recall@20 0.2500, before popular 0.1250)."
    )
    assert best_baseline(["ease"], {"ease": 0.5}, "ndcg@10")[1].endswith("(NDCG@10 0.5000, and alone).")


def test_who_is_left_out_is_named_in_the_report_and_a_range_that_changed_since_stays_as_begun(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "write_page", lambda *a: None)
    monkeypatch.setattr("vitrail.lab.members.registry.names", lambda: ["content-knn", "dgvae"])
    given = {"split": "leave-last-out", "trials": 1, "seeds": 1, "family": "multimodal", "quiet": True, "out": tmp_path / "c"}
    result = compare(["item-knn"], data, **given, report=tmp_path / "r.md")
    assert {row["system"] for row in result["rows"]} == {"item-knn", "content-knn"}
    assert any(text.startswith("dgvae is left out") for text in result["warnings"]) and "- dgvae is left out" in (tmp_path / "r.md").read_text()
    request = json.loads((tmp_path / "c" / "request.json").read_text())
    request["space"]["item-knn"]["shrink"]["high"] = 9.0
    write_json(tmp_path / "c" / "request.json", request)
    assert compare(["item-knn"], data, **given)["rows"] == result["rows"]
    with pytest.raises(SettingError, match="another space"):
        compare(["item-knn"], data, **given, space={"item-knn.shrink": {"low": 0, "high": 8}})
