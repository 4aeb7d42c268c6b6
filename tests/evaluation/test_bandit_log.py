"""Logs of impressions: read from several shapes, refused in a sentence; and the verb over them."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from vitrail.cli import app
from vitrail.data.dataset import Dataset
from vitrail.data.simulate import SimulatorSettings, simulate
from vitrail.data.simulate_bandit import BanditSettings, make_world
from vitrail.errors import DataError, SettingError
from vitrail.evaluation.bandit_log import catalogue, evaluate_log, owners, read_impressions, read_policy
from vitrail.testing import checkerboard

LOG = pl.DataFrame({"item_id": ["a", "b", "a", "c"] * 50, "click": [0, 1, 0, 0] * 50, "propensity_score": [0.5, 0.25, 0.5, 0.25] * 50, "extra": ["x"] * 200})


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.jsonl"])
def test_files(tmp_path, name):
    path = tmp_path / name
    {"parquet": LOG.write_parquet, "csv": LOG.write_csv, "jsonl": LOG.write_ndjson}[name.rpartition(".")[2]](path)
    found = read_impressions(path)
    assert found.columns == ["request_id", "user", "item", "position", "clicked", "propensity", "extra"]
    assert found["item"].head(2).to_list() == ["a", "b"] and set(found["position"]) == {1} and catalogue(found, path) == ["a", "b", "c"]
    assert owners(found) is None


def test_open_bandit_folder(tmp_path):
    (tmp_path / "men.csv").write_text(",timestamp,item_id,position,click,propensity_score,user_feature_0\n0,2019-11-24 00:01:03.979311+00:00,1,2,0,0.5,u\n")
    (tmp_path / "item_context.csv").write_text(",item_id,item_feature_0\n0,0,-0.5\n1,1,0.5\n")
    found = read_impressions(tmp_path)
    assert found["item_feature_0"].to_list() == ["0.5"] and found["timestamp"][0].year == 2019 and found["position"][0] == 2
    assert catalogue(found, tmp_path) == ["0", "1"]
    (tmp_path / "women.csv").write_text("x\n")
    with pytest.raises(DataError, match="holds 2 logs"):
        read_impressions(tmp_path)


def test_owners_are_users_then_requests():
    frame = pl.DataFrame({"user": ["u", "u", None, None, None], "request_id": ["r", "s", "r", "r", None]})
    first, second, third, fourth, fifth = owners(frame).tolist()
    assert first == second and third == fourth and len({first, third, fifth}) == 3


def test_bad_logs_are_sentences(tmp_path):
    with pytest.raises(DataError, match="no log"):
        read_impressions(tmp_path / "absent.csv")
    cases = {
        "lacks.csv": ("item,click\na,1\n", "propensity"),
        "holes.csv": ("item,click,propensity\na,,0.5\n", "1 of 1 rows"),
        "zero.csv": ("item,click,propensity,position\na,1,0.5,0\n", "positions count from 1"),
    }
    for name, (text, words) in cases.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=words):
            read_impressions(tmp_path / name)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not readable"):
        read_impressions(tmp_path / "broken.parquet")


def test_policies_of_files(tmp_path):
    assert read_policy("uniform", ["a", "b"], 3).tolist() == [0.5, 0.5]
    (tmp_path / "flat.csv").write_text("item,propensity\na,0.25\nb,0.75\n")
    assert read_policy(str(tmp_path / "flat.csv"), ["a", "b"], 3).tolist() == [0.25, 0.75]
    (tmp_path / "placed.csv").write_text("item,propensity,position\na,1,1\nb,1,2\n")
    assert read_policy(str(tmp_path / "placed.csv"), ["a", "b"], 2).tolist() == [[1, 0], [0, 1]]
    (tmp_path / "stranger.csv").write_text("item,propensity\nz,1\n")
    (tmp_path / "lacks.csv").write_text("item,chance\na,1\n")
    for name, kind, words in (("none.csv", SettingError, "no policy"), ("stranger.csv", DataError, '"z"'), ("lacks.csv", DataError, "columns item")):
        with pytest.raises(kind, match=words):
            read_policy(str(tmp_path / name), ["a", "b"], 1)


def test_a_policy_file_moves_the_estimate(tmp_path):
    LOG.write_parquet(tmp_path / "log.parquet")
    (tmp_path / "b.csv").write_text("item,propensity\nb,1\n")
    found = evaluate_log(tmp_path / "log.parquet", str(tmp_path / "b.csv"))
    assert next(e for e in found.estimates if e.estimator == "snips").value == 1.0


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("log") / "shop", settings=SimulatorSettings(users=60, items=30, events=300, pictures=False))


def test_verbs(shop, tmp_path):
    log = tmp_path / "log.parquet"
    made = CliRunner().invoke(app, ["policy", "simulate", str(shop.path), "--out", str(log), "--set", "requests=2000", "--set", "items=10", "--json"])
    assert made.exit_code == 0, made.output
    truth = json.loads(made.stdout)
    assert truth["rows"] == 6000 and 0 < truth["uniform"] < 1
    found = CliRunner().invoke(app, ["policy", "evaluate", str(log), "--json"])
    assert json.loads(found.stdout)["diagnostics"]["verdict"] == "ok"
    for command in (["policy", "evaluate", str(log)], ["policy", "simulate", str(shop.path), "--out", str(log)]):
        printed = CliRunner().invoke(app, command)
        assert printed.exit_code == 0 and "uniform" in printed.stdout


def test_the_verb_warns(tmp_path):
    LOG.with_columns(pl.lit(0.9).alias("propensity_score")).write_parquet(tmp_path / "log.parquet")
    printed = CliRunner().invoke(app, ["policy", "evaluate", str(tmp_path / "log.parquet")])
    assert printed.exit_code == 0 and "wrong propensities" in printed.output


def test_only_simulated_shops_have_a_truth(tmp_path):
    with pytest.raises(DataError, match="simulated truth"):
        make_world(Dataset(checkerboard(tmp_path / "board").path), BanditSettings())
