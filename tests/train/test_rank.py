"""Fit and evaluate for rankers: selection, calibration, the record, what is refused, and the verbs."""

import json

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from vitrail import recipes
from vitrail.cli import app
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.schema import DatasetInfo
from vitrail.errors import DataError, SettingError
from vitrail.evaluation import journal
from vitrail.evaluation.compare import comparison
from vitrail.evaluation.metrics import check_metric
from vitrail.funnel.recommender import load
from vitrail.recipes import Recipe
from vitrail.testing import checkerboard
from vitrail.testing_rank import impressions, settings_of
from vitrail.train.fit import evaluate_run, fit
from vitrail.train.rank import part_rows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return impressions(tmp_path_factory.mktemp("rank") / "data")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("rank") / "run"
    fit("logistic", data, out=out, settings=settings_of("logistic", epochs=3), quiet=True)
    return out


def test_a_run_is_measured_and_recorded(data, run):
    before = journal.count(data.path)
    evaluation = evaluate_run(run, quiet=False)
    assert journal.count(data.path) == before + 1 and (evaluation.rows, evaluation.users) == (32, 16)
    assert evaluation.successes == 16 and sum(rows for _, _, rows in evaluation.curve) == 32
    assert evaluation.as_json()["protocol"]["groups"] == "user" and any("Only 32 test rows" in text for text in evaluation.warnings)
    valid = evaluate_run(run, part="valid", metrics=["auc", "logloss"])
    assert list(valid.metrics) == ["auc", "logloss"] and journal.count(data.path) == before + 1
    info = load(run).info
    assert info["stage"] == "rank" and info["validation"]["rows"] == 32 and {"logloss", "logloss_raw"} <= info["validation"]["metrics"].keys()
    assert valid.metrics["auc"] == pytest.approx(info["validation"]["metrics"]["auc"])
    again = fit("logistic", data, out=run, settings=settings_of("logistic", epochs=3), resume=True, quiet=True)
    assert again.progress.finished
    with pytest.raises(SettingError, match="metric of rankers"):
        evaluate_run(run, metrics=["ndcg@10"])


def test_two_rankers_are_compared_by_their_rows(data, run):
    other = fit("din", data, settings=settings_of("din", epochs=2), quiet=True).recommender
    both = comparison([evaluate_run(run), evaluate_run(other)], metric="logloss")
    assert {row.system for row in both.rows} == {"logistic", "din"} and both.tests[0].n == 16


@pytest.mark.parametrize("calibration", ["platt", "isotonic", "none"])
def test_calibration_is_part_of_the_artifact(data, tmp_path, calibration):
    result = fit("logistic", data, out=tmp_path / "run", settings=settings_of("logistic", epochs=2, calibration=calibration), quiet=True)
    metrics = result.recommender.info["validation"]["metrics"]
    assert (abs(metrics["logloss"] - metrics["logloss_raw"]) < 1e-6) == (calibration == "none")
    assert evaluate_run(tmp_path / "run").metrics == evaluate_run(result.recommender).metrics


def test_pairs_are_the_rows_where_nothing_was_shown(tmp_path):
    data = checkerboard(tmp_path / "board", side=12)
    result = fit("din", data, split="pairs", settings=settings_of("din", epochs=2, metric="gauc"), quiet=True)
    evaluation = evaluate_run(result.recommender)
    assert evaluation.rows == 24 and evaluation.dropped_groups == 0 and "gauc" in result.progress.curve[0]
    assert "each event and items drawn for it" in evaluation.protocol.describe() and "valid 0.1" not in evaluation.protocol.describe()


def test_what_cannot_be_done_is_a_sentence(data, tmp_path):
    with pytest.raises(SettingError, match="leave --refit out"):
        fit("din", data, refit=True, quiet=True)
    with pytest.raises(SettingError, match="makes none"):
        fit("din", data, split="temporal", quiet=True)
    import polars as pl

    table = data.impressions
    one = table.with_columns(clicked=pl.when(pl.col("part") == "valid").then(1.0).otherwise("clicked"))
    from vitrail.data.dataset import write_dataset

    single = write_dataset(tmp_path / "one", data.info.model_copy(update={"counts": {}, "files": {}}), data.interactions, data.items, impressions=one)
    for metric, words in (("gauc", "no user with both"), ("auc", "no rows with both")):
        with pytest.raises(DataError, match=words):
            fit("logistic", single, settings=settings_of("logistic", metric=metric), quiet=True)
    no_valid = write_dataset(
        tmp_path / "none",
        data.info.model_copy(update={"counts": {}, "files": {}}),
        data.interactions,
        data.items,
        impressions=table.filter(pl.col("part") != "valid"),
    )
    result = fit("logistic", no_valid, settings=settings_of("logistic", epochs=1), quiet=True)
    with pytest.raises(DataError, match="no valid part"):
        evaluate_run(result.recommender, part="valid")


def test_metrics_belong_to_a_stage():
    for text, stage in (("auc", None), ("auc", "rank"), ("ndcg@10", None), ("ndcg@10", "retrieve")):
        check_metric(text, stage)
    for text, stage in (("auc", "retrieve"), ("ndcg@10", "rank"), ("acu", "rank")):
        with pytest.raises(SettingError):
            check_metric(text, stage)


def test_the_verbs(data, run, tmp_path):
    runner = CliRunner()
    done = runner.invoke(app, ["systems", "--stage", "rank", "--json"])
    assert {row["name"] for row in json.loads(done.stdout)} >= {"din", "dcnv2", "logistic"} and "sasrec" not in done.stdout
    assert runner.invoke(app, ["systems", "--stage", "rnak"]).exit_code != 0
    out = tmp_path / "run"
    flags = [f"--set={key}={value}" for key, value in settings_of("logistic", epochs=1).items()]
    done = runner.invoke(app, ["fit", "logistic", "--data", str(data.path), "--out", str(out), "--quiet", *flags])
    assert done.exit_code == 0 and "rank_shown: rows are what was shown" in done.stdout
    done = runner.invoke(app, ["evaluate", str(out), "--quiet", "--metrics", "auc,logloss"])
    assert "32 rows of 16 users" in done.stdout and "logloss" in done.stdout
    assert json.loads(runner.invoke(app, ["evaluate", str(out), "--quiet", "--json"]).stdout)["rows"] == 32
    done = runner.invoke(app, ["recommend", str(run), "--user", "u0", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)


def test_a_recipe_of_a_ranker(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    rows = [f"u{u},{(u + n) % 7},{(u + n) % 2},{1000 + n}" for u in range(8) for n in range(6)]
    for part, cut in (("train", slice(0, 3)), ("valid", slice(3, 5)), ("test", slice(5, 6))):
        chosen = [row for u in range(8) for row in rows[6 * u : 6 * u + 6][cut]]
        (source / f"{part}.csv").write_text("\n".join(["user_id,item_id,label,time", *chosen]) + "\n")
    recipe = Recipe.of(
        {
            "name": "logistic.clicks", "system": "logistic", "split": "shown", "seeds": [0], "metrics": ["auc", "logloss"],
            "data": {"name": "clicks", "rows": {"train": "train.csv", "valid": "valid.csv", "test": "test.csv", "flags": {"timestamp": "time"}}},
            "settings": {"epochs": 2, "metric": "auc"},
        }
    )  # fmt: skip
    measured = recipes.reproduce(recipe, data_root=source, work=tmp_path / "runs", say=lambda _: None)
    assert measured.queries == 8 and set(measured.metrics) == {"auc", "logloss"} and "rank_shown" in measured.protocol
    assert np.isfinite(measured.metrics["auc"].mean) and Dataset(tmp_path / "runs" / "data" / "clicks").has_impressions
    recipes.reproduce(recipe, data_root=source, work=tmp_path / "runs", say=lambda _: None)
    with pytest.raises(SettingError, match="metric of rankers"):
        Recipe.of({**recipe.model_dump(exclude={"measured"}), "metrics": ["recall@10"]}).check()


def planted_places(folder, *, items=8, shown=8, requests=1500):
    """Items of a known worth, which an old ranker shows nearly upside down; who looks at place p with chance 1 / p, takes an item with the chance of its
    worth. -> the data set, and (N,) the worth of its items in code order."""
    rng = np.random.default_rng(0)
    worth = np.linspace(0.2, 0.6, items)
    order = np.argsort(worth + rng.normal(0, 0.12, (requests, items)), axis=1)[:, :shown]  # the least worth first
    place = np.broadcast_to(np.arange(1, shown + 1), order.shape)
    clicked = (rng.random(order.shape) < worth[order] / place).astype(np.float64)
    users = np.repeat([f"u{n % 40}" for n in range(requests)], shown)
    times = np.repeat(np.arange(requests) * 60_000_000 + 10**12, shown)
    table = pl.DataFrame({"user": users, "item": [f"i{n}" for n in order.ravel()], "clicked": clicked.ravel(), "position": place.ravel().astype(np.int64),
                          "propensity": (1 / place).ravel(), "timestamp": pl.Series(times).cast(pl.Datetime("us", "UTC"))})  # fmt: skip
    log = pl.DataFrame({"user": [f"u{n}" for n in range(40)], "item": [f"i{n % items}" for n in range(40)], "timestamp": pl.Series([10**11] * 40)})
    log = log.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
    data = write_dataset(folder, DatasetInfo(name="places", order="timestamp"), log, impressions=table)
    return data, np.array([worth[int(name[1:])] for name in data.items["item"].to_list()])


def test_with_the_place_in_mind_the_learned_order_is_that_of_the_planted_worth(tmp_path):
    data, worth = planted_places(tmp_path / "d")
    plain = {"past": False, "epochs": 15, "batch": 512, "lr": 0.05, "patience": 0, "metric": "auc", "scale": 0.01}
    found = {}
    for name, more in {
        "ignore": {}, "feature": {"position": "feature"}, "weight": {"position": "weight"},
        "places": {"position": "weight", "looked_at": [round(1 / n, 2) for n in range(1, 9)]},
        "propensity": {"position": "weight", "looked_at": "propensity", "largest_weight": 8},
    }.items():  # fmt: skip
        fit("logistic", data, split="shown", settings=plain | more, out=tmp_path / name, quiet=True)
        run = load(tmp_path / name)
        scores = run.model.scores(run.known.histories(np.array([0]))).numpy()[0]
        found[name] = float(np.corrcoef(np.argsort(np.argsort(scores)), np.argsort(np.argsort(worth)))[0, 1])
    assert found["ignore"] < 0 and all(found[name] > 0.9 for name in ("feature", "weight", "places", "propensity")), found
    model = load(tmp_path / "feature").model
    event = [f.name for f in model.spec.owned("event")]
    place, field = event.index("position"), model.spec.owned("event")[event.index("position")]
    rows, _ = part_rows(model, load(tmp_path / "feature").info, data)
    assert set(rows.fields[:, place].tolist()) == {2} and field.neutral == 1 and field.codes == 10, "whatever is asked is asked as if it came first"
    # on clicks that the place decided, whoever knows the worth of items looks worse than whoever learned the places
    assert evaluate_run(tmp_path / "feature", quiet=True).metrics["auc"] < evaluate_run(tmp_path / "ignore", quiet=True).metrics["auc"]
