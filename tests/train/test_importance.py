"""What fields are worth: what is lost when their values change places, and that nothing stays changed."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vitrail.cli import app
from vitrail.data.dataset import Dataset
from vitrail.data.vectors import write_vectors
from vitrail.errors import SettingError
from vitrail.testing import checkerboard, quick
from vitrail.testing_rank import impressions, settings_of, tiny, tiny_rows
from vitrail.train.fit import evaluate_run, fit
from vitrail.train.importance import importance


def test_a_field_that_nothing_reads_is_worth_nothing_and_the_others_are():
    """A linear model that reads the slot alone: with the slot in other places it is chance."""
    model, rows = tiny("logistic"), tiny_rows(300)
    for p in model.parameters():
        torch.nn.init.zeros_(p)
    with torch.no_grad():
        model.features.of_events.weight[3] = 5.0
    rows.labels[:] = rows.fields[:, 0] == 3
    found = importance(model, rows, repeats=3)
    assert found.keys() == {"slot", "item", "category", "tags", "city", "history"}
    assert found["slot"]["auc"] > 0.3 and found["slot"]["gauc"] > 0.3
    assert all(row == {"auc": 0.0, "gauc": 0.0} for name, row in found.items() if name != "slot")
    assert importance(model, rows, most=50).keys() == found.keys()


@pytest.mark.parametrize("name", ["deepfm", "din", "lightgbm"])
def test_attributes_content_and_histories_count_and_the_ranker_stays_as_it_was(name):
    vectors = {"text": torch.eye(8)}
    settings = {"least": 1, "leaves": 4, "rounds": 5} if name == "lightgbm" else {}
    model, rows = tiny(name, vectors=vectors, masks={"text": torch.ones(8, dtype=torch.bool)}, **settings), tiny_rows(200)
    rng = np.random.default_rng(1)
    rows.labels[:] = (rows.items % 2 == 0) ^ (rng.random(200) < 0.1)
    if name == "lightgbm":
        pytest.importorskip("lightgbm")
        model.learn(rows)
    else:
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.5)
    before, buffers, source = model.predict(rows), {key: value.clone() for key, value in model.named_buffers()}, model.source
    found = importance(model, rows)
    assert found.keys() == {"slot", "item", "category", "tags", "city", "text", "history"}
    assert torch.equal(model.predict(rows), before) and model.source is source
    assert all(torch.equal(value.nan_to_num(), buffers[key].nan_to_num()) for key, value in model.named_buffers())
    if name == "lightgbm":
        assert found["category"]["auc"] + found["tags"]["auc"] > 0.1 and found["item"]["auc"] == 0
    else:
        assert sum(row["auc"] != 0 for row in found.values()) >= 6


def test_the_verb_says_what_fields_are_worth(tmp_path):
    data = impressions(tmp_path / "data")
    write_vectors(data.path, "text", np.eye(16, dtype=np.float32), data.items["item"].to_list(), encoder="hand", overwrite=True)
    fit("fm", Dataset(data.path), out=tmp_path / "run", settings=settings_of("fm", vectors=["text"], epochs=3), quiet=True)
    evaluation = evaluate_run(tmp_path / "run", part="valid", importance=True)
    assert {"affinity:colour", "colour", "text", "history"} <= evaluation.importance.keys()
    assert sum(part[3] for part in evaluation.lift) == 32 and evaluation.lift[-1][2] == 1.0
    assert {"users:known", "history:1-5"} <= evaluation.slices.keys() and "users:new" not in evaluation.slices
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--importance", "--report", str(page), "--quiet"])
    assert done.exit_code == 0, done.output
    assert "gauc lost" in done.output and "Lift and calibration" in page.read_text() and "What fields are worth" in page.read_text()


def test_what_has_no_fields_is_refused(tmp_path):
    board = checkerboard(tmp_path / "board", side=10)
    popular = fit("popular", board, split="none", settings=quick("popular"), quiet=True).recommender
    with pytest.raises(SettingError, match="no fields to weigh"):
        evaluate_run(popular, data=board, importance=True)
