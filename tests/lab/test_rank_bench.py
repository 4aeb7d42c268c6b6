"""Rankers side by side: tuned by GAUC on validation rows, tested over users by the AUC within each."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import vitrail.lab.compare as module
from vitrail.cli import app
from vitrail.errors import SettingError
from vitrail.evaluation.binary import RankEvaluation, paired_gauc
from vitrail.funnel.recommender import load
from vitrail.lab.compare import compare
from vitrail.lab.members import of_family
from vitrail.lab.rank_bench import RankBench, open_bench
from vitrail.lab.runs import compare_runs
from vitrail.lab.seeds import read_seat
from vitrail.lab.tune import tune
from vitrail.testing import checkerboard
from vitrail.testing_rank import impressions
from vitrail.train.rank import part_rows

QUICK = {"epochs": 2, "dim": 4, "batch": 64, "length": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return impressions(tmp_path_factory.mktemp("data") / "rows", side=32)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "c"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitrail.evaluation.report.svg", lambda drawn: "")
        patch.setattr("vitrail.lab.page.save", lambda *a: None)
        return compare(("logistic", "din"), data, out=folder, trials=2, seeds=2, settings=QUICK, quiet=True), folder


def test_rankers_have_rows_and_tests_of_the_usual_shape(whole):
    result, folder = whole
    assert result["metric"] == "gauc" and len(result["rows"]) == 4 and {"auc", "gauc", "logloss", "ece"} <= set(result["rows"][0]["metrics"])
    (test,) = result["tests"]
    assert set(test) == {"metric", "a", "b", "diff", "ci", "p", "p_holm", "n"} and test["n"] == 32 and "GAUC" in result["sentences"][0]
    assert {name: len(found["trials"]) for name, found in result["tuning"].items()} == {"logistic": 2, "din": 2}
    assert "rows are what was shown" in result["protocol"] and "--metric" not in result["command"]
    page = (folder / "report.html").read_text()
    assert "Log loss" in page and result["sentences"][0].replace("<", "&lt;") in page


def test_the_test_is_that_of_gauc_within_users_averaged_over_seeds(whole, data):
    result, folder = whole
    logits, rows = {}, None
    for name in ("logistic", "din"):
        seats = [read_seat(folder / name / f"seed-{seed}").evaluation for seed in (0, 1)]
        assert all(isinstance(e, RankEvaluation) and e.rows == 64 for e in seats)
        logits[name] = []
        for seed in (0, 1):
            recommender = load(folder / name / f"seed-{seed}")
            rows, _ = part_rows(recommender.model, recommender.info, data)
            logits[name].append(recommender.model.predict(rows).numpy())
    test = result["tests"][0]
    plain = paired_gauc(rows.labels > 0.5, logits[test["a"]], logits[test["b"]], rows.users, draws=1000)
    assert test["diff"] == pytest.approx(plain["diff"]) and test["ci"] == pytest.approx(list(plain["ci"])) and test["p"] == pytest.approx(plain["p"])


def test_the_same_call_does_nothing_twice_and_runs_are_compared_alone(whole, data, monkeypatch):
    result, folder = whole
    monkeypatch.setattr(module, "write_page", lambda *a: None)
    monkeypatch.setattr("vitrail.lab.seeds.fit", None)
    monkeypatch.setattr(RankBench, "attempt", None)
    again = compare(("logistic", "din"), data, out=folder, trials=2, seeds=2, settings=QUICK, quiet=True)
    assert again["rows"] == result["rows"] and again["tests"] == result["tests"]
    alone = compare_runs([folder / name / f"seed-{seed}" for name in ("logistic", "din") for seed in (0, 1)], quiet=True)
    assert alone["tests"] == result["tests"] and alone["metric"] == "gauc"


def test_a_trial_is_a_fit_and_its_value_that_of_the_validation_rows(data, tmp_path):
    bench = open_bench(["logistic"], data, None, None, False, "cpu", True)
    config = bench.config("logistic", QUICK)
    took = bench.timing(module.registry.find("logistic"), config)
    assert isinstance(bench, RankBench) and min(took.start, took.epoch, took.validation, took.test) > 0 and len(bench.test_users()) == 32
    seen = []
    tried = bench.attempt(module.registry.find("logistic"), config, 0, None, lambda epoch, value: seen.append(value))
    assert tried.value == max(seen) and len(seen) == 2 and len(bench.made) == 1
    bench.prepared(module.registry.find("logistic"), bench.config("logistic", {**QUICK, "length": 3}))
    assert len(bench.made) == 1
    cut = bench.attempt(module.registry.find("logistic"), config, 0, None, None, lambda: -1.0)
    assert cut.cut and cut.value is not None
    found = tune("logistic", data, out=tmp_path / "t", trials=3, settings=QUICK, metric="auc", quiet=True)
    assert found.metric == "auc" and len(found.trials) == 3 and "lr" in found.space and found.best.value >= found.trials[0].value


def test_refusals(data, tmp_path):
    board = checkerboard(tmp_path / "board", side=8)
    for more, says in (
        ({"systems": ("logistic", "item-knn")}, "those of one stage"),
        ({"refit": True}, "leave --refit out"),
        ({"protocol": "mmrec"}, "leave --protocol out"),
        ({"metric": "logloss"}, "by gauc or auc"),
        ({"metric": "auc"}, "--metric gauc, or --no-tests"),
        ({"split": "temporal"}, "makes none"),
        ({"content": True}, "these are rankers"),
    ):
        with pytest.raises(SettingError, match=says):
            compare(**{"systems": ("logistic", "din"), "data": data, "out": tmp_path / "c", "quiet": True, **more})
    with pytest.raises(SettingError, match="Did you mean"):
        compare((), board, out=tmp_path / "c", family="rankin", quiet=True)
    assert not (tmp_path / "c").exists()


def test_a_family_is_all_its_systems_that_the_data_allow(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "write_page", lambda *a: None)
    bare = checkerboard(tmp_path / "bare", side=8)
    shutil.rmtree(bare.path / "vectors")
    names, left_out = of_family("multimodal", bare, {})
    assert "content-knn" not in names and "vectors" in left_out["content-knn"]
    assert {"logistic", "dcnv2", "din"} <= set(of_family("ranking", data, {})[0])
    words = ("compare", "--family", "ranking", "--data", data.path, "--out", tmp_path / "c", "--trials", 0, "--seeds", 1, "--no-tests")
    done = CliRunner().invoke(app, [str(word) for word in (*words, *(f"--set={key}={value}" for key, value in QUICK.items()), "--json")])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert {row["system"] for row in found["rows"]} >= {"logistic", "dcnv2", "din"} and np.isfinite([row["metrics"]["gauc"] for row in found["rows"]]).all()
    assert "64 test rows" in done.stderr
    shown = CliRunner().invoke(app, ["compare", str(tmp_path / "c" / "din" / "seed-0"), str(tmp_path / "c" / "dcnv2" / "seed-0"), "--no-tests"])
    assert shown.exit_code == 0 and "32 users" in shown.stdout and "logloss" in shown.stdout
