"""Building a funnel: what is there is kept, what differs is refused, what is damaged is named; and the verbs over it."""

import json
import types

import numpy as np
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from vitrail.cli import app
from vitrail.data.dataset import Dataset
from vitrail.errors import ArtifactError, DataError, SettingError, VitrailError
from vitrail.funnel.build import load_funnel, open_answerer, run_funnel
from vitrail.funnel.file import FunnelFile
from vitrail.funnel.measure import evaluate_funnel
from vitrail.testing import checkerboard
from vitrail.train.fit import fit


@pytest.fixture(scope="module")
def built(shop, tmp_path_factory):
    """A funnel that ranks by another system, lays out, pins nothing and explores."""
    keys = {
        "funnel": "shop",
        "data": str(shop.path),
        "split": "temporal:rolling=true",
        "retrieve": [
            {"system": "item-knn", "k": 20},
            {"system": "popular", "k": 10, "weight": 0.5},
            {"system": "fresh", "date": "released", "k": 5, "weight": 0.1},
        ],
        "rank": {"system": "ease", "settings": {"l2": 50}, "mix": 0.5},
        "arrange": {"system": "dpp", "rules": {"caps": {"category": 3}}},
        "explore": {"policy": "epsilon-greedy"},
    }
    folder = tmp_path_factory.mktemp("built")
    (folder / "funnel.yaml").write_text(yaml.safe_dump(keys))
    return run_funnel(folder / "funnel.yaml", folder / "out"), folder, keys


def test_it_is_kept_and_gone_on_with(built):
    funnel, folder, keys = built
    stamp = (folder / "out" / "retrieve" / "item-knn" / "artifact" / "manifest.json").stat().st_mtime_ns
    again = run_funnel(folder / "funnel.yaml", folder / "out")
    assert (folder / "out" / "retrieve" / "item-knn" / "artifact" / "manifest.json").stat().st_mtime_ns == stamp
    user = funnel.user_ids.ids[0]
    pages = [one.run(one.ask([user], None), 5, explores=False).page.tolist() for one in (funnel, again)]
    assert pages[0] == pages[1] and again.ranking.mix == 0.5
    (folder / "other.yaml").write_text(yaml.safe_dump({**keys, "arrange": {"system": "mmr"}}))
    assert run_funnel(folder / "other.yaml", folder / "out").layout.slate.card.name == "mmr"  # pages change without a fit
    (folder / "other.yaml").write_text(yaml.safe_dump({**keys, "seed": 3}))
    with pytest.raises(DataError, match='another "seed"'):
        run_funnel(folder / "other.yaml", folder / "out")
    run_funnel(folder / "funnel.yaml", folder / "out")


def test_it_answers_wherever_a_run_does(built, tmp_path):
    funnel, folder, _ = built
    assert isinstance(open_answerer(folder / "out"), type(funnel)) and open_answerer(folder / "out" / "retrieve" / "popular").name == "popular"
    user = funnel.user_ids.ids[0]
    for command in (["recommend", "--user", user], ["recommend", "--users", "all", "--out", str(tmp_path / "all.parquet"), "-k", "3", "--quiet"]):
        printed = CliRunner().invoke(app, [command[0], str(folder / "out"), *command[1:], "--json"])
        assert printed.exit_code == 0, printed.output
    assert pl.read_parquet(tmp_path / "all.parquet").height == 3 * len(funnel.user_ids)
    near = CliRunner().invoke(app, ["similar", str(folder / "out"), "--item", funnel.item_ids.ids[0], "--json"])
    assert len(json.loads(near.stdout)["items"]) == 10


def test_it_opens_without_the_data(built, shop):
    _, folder, _ = built
    shop.path.rename(shop.path.with_name("away"))
    try:
        assert len(load_funnel(folder / "out").answer(None, [], 4)["items"]) == 4
    finally:
        shop.path.with_name("away").rename(shop.path)


def test_its_info_is_that_of_a_system(built):
    info = built[0].info
    assert info["stage"] == "funnel" and info["system"] == "shop" and info["columns"] and info["data"]["fingerprint"] and info["funnel"]["funnel"] == "shop"


def test_every_stage_is_measured(built, shop):
    evaluation = evaluate_funnel(load_funnel(built[1] / "out", seed=0), requests=5)
    assert set(evaluation.asked) == {"rolling", "static"} and evaluation.chosen == {"mix": 0.5}
    rolling = evaluation.asked["rolling"]
    stages = {stage.stage: stage for stage in rolling.stages}
    assert list(stages) == ["retrieve item-knn", "retrieve popular", "retrieve fresh", "fuse", "rank", "arrange", "explore"]
    fused = stages["fuse"]
    assert fused.ceiling >= max(stages[f"retrieve {name}"].ceiling or 0 for name in ("item-knn", "popular"))
    assert stages["rank"].ceiling == fused.ceiling and stages["arrange"].candidates <= 10
    assert fused.ci["ndcg@10"][0] <= fused.metrics["ndcg@10"] <= fused.ci["ndcg@10"][1]
    steps = {(step.what, step.metric): step for step in rolling.steps}
    gain = stages["rank"].metrics["ndcg@10"] - fused.metrics["ndcg@10"]
    assert steps["rank over fuse", "ndcg@10"].diff == pytest.approx(gain)
    assert ("arrange over rank", "intra_list_diversity@10") in steps and {"category_entropy@10", "alpha_ndcg@10", "coverage@10"} <= set(fused.metrics)
    assert {"retrieve", "rank", "arrange", "explore", "total"} == set(evaluation.milliseconds)
    assert evaluation.day_zero["fallback"] == "popular" and "popular" in evaluation.day_zero["sources"]
    from vitrail.evaluation.journal import read

    assert any(record.get("system") == "shop" for record in read(shop.path))


def test_each_way_of_asking_is_measured_with_its_own_mix(built):
    funnel = load_funnel(built[1] / "out", seed=0)
    as_built = evaluate_funnel(funnel, requests=1).asked
    funnel.info["chosen"] = {"mix": 0.5, "mixes": {"static": 1.0}}  # retrieval alone
    asked = evaluate_funnel(funnel, requests=1).asked
    assert funnel.ranking.mix == 0.5 and asked["rolling"].stages[4].metrics == as_built["rolling"].stages[4].metrics
    assert asked["static"].stages[4].metrics == asked["static"].stages[3].metrics != as_built["static"].stages[4].metrics


def test_one_source_alone_measures_as_the_system_does(shop, tmp_path):
    """The funnel's numbers are the evaluator's, under the same protocol."""
    from vitrail.train.fit import evaluate_run

    keys = {"funnel": "one", "data": str(shop.path), "split": "temporal", "retrieve": [{"system": "item-knn", "k": 60}]}
    funnel = run_funnel(FunnelFile.of(keys), tmp_path / "out")
    asked = evaluate_funnel(funnel, requests=1).asked["static"]
    alone = evaluate_run(tmp_path / "out" / "retrieve" / "item-knn")
    fused = next(stage for stage in asked.stages if stage.stage == "fuse")
    assert asked.queries == alone.users and asked.fingerprint == alone.fingerprint
    for name in ("ndcg@10", "recall@10", "coverage@10"):
        assert fused.metrics[name] == pytest.approx(alone.metrics[name])
    assert asked.steps[0].diff == 0.0


def test_finished_runs_and_other_splits(shop, tmp_path):
    for name in ("item-knn", "popular"):
        fit(name, shop, split="leave-last-out", out=tmp_path / name, quiet=True)
    fit("popular", shop, split="temporal", out=tmp_path / "elsewhere", quiet=True)
    file = FunnelFile.of({"funnel": "runs", "retrieve": [{"run": str(tmp_path / "item-knn")}, {"run": str(tmp_path / "popular")}]})
    funnel = run_funnel(file, tmp_path / "out")
    assert [source.name for source in funnel.sources] == ["item-knn", "popular"]
    assert list(evaluate_funnel(funnel, queries=50, requests=2).asked) == ["leave-last-out"]
    mixed = FunnelFile.of({"funnel": "runs", "retrieve": [{"run": str(tmp_path / "item-knn")}, {"run": str(tmp_path / "elsewhere")}]})
    with pytest.raises(DataError, match="different data, splits or protocols"):
        run_funnel(mixed, tmp_path / "mixed")


def test_refusals_are_sentences(built, shop, tmp_path):
    _, folder, keys = built
    with pytest.raises(ArtifactError, match="no funnel at"):
        load_funnel(tmp_path)
    with pytest.raises(SettingError, match="names no data"):
        run_funnel(FunnelFile.of({"funnel": "x", "retrieve": [{"system": "ease"}]}), tmp_path / "a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="is no funnel"):
        run_funnel(FunnelFile.of(keys), tmp_path / "full")
    with pytest.raises(ArtifactError, match="not finished"):
        load_funnel(tmp_path / "a")
    with pytest.raises(VitrailError, match="vectors"):
        run_funnel(FunnelFile.of({**keys, "rank": None, "arrange": {"vectors": "text"}}), tmp_path / "vectors")
    record = folder / "out" / "funnel.json"
    whole = record.read_text()
    record.write_text(json.dumps({**json.loads(whole), "format": 99}))
    with pytest.raises(ArtifactError, match="newer Vitrail"):
        load_funnel(folder / "out")
    record.write_text(whole)
    vectors = folder / "out" / "similarity.npy"
    kept = vectors.read_bytes()
    for damage in (b"\x93NUMPY", None):
        if damage is None:
            np.save(vectors, np.zeros((3, 2), dtype=np.float32))
        else:
            vectors.write_bytes(damage)
        with pytest.raises(ArtifactError, match="run the funnel again"):
            load_funnel(folder / "out")
    vectors.write_bytes(kept)


def test_a_slate_may_tell_items_alike_by_content(shop, keys, tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(len(shop.items), 5)).astype(np.float32)
    monkeypatch.setattr(Dataset, "vectors", lambda self, name: types.SimpleNamespace(values=values), raising=False)
    funnel = run_funnel(FunnelFile.of({**keys, "arrange": {"system": "mmr", "vectors": "text"}}), tmp_path / "out")
    np.testing.assert_allclose(np.linalg.norm(funnel.layout.vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(funnel.layout.vectors * np.linalg.norm(values, axis=1, keepdims=True), values, rtol=1e-4)


def test_the_data_of_a_recipe_a_default_split_and_a_voice(tmp_path, monkeypatch, capsys):
    """Data by name are ingested from VITRAIL_DATA; without a split the default of the data is taken; without times there is no moment of a query."""
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path))
    lines = [" ".join([f"u{u}", *(f"i{(u + 5 * step) % 12}" for step in range(7))]) for u in range(40)]
    (tmp_path / "walks.txt").write_text("\n".join(lines) + "\n")
    data = {"name": "walks", "ingest": {"files": ["walks.txt"], "flags": {"ordered": True}}}
    file = FunnelFile.of({"funnel": "walks", "data": data, "retrieve": [{"system": "item-knn", "k": 3}, {"system": "last-item", "k": 3}]})
    funnel = run_funnel(file, tmp_path / "out", quiet=False)
    assert "ingested walks" in (said := capsys.readouterr().err) and "fitting last-item" in said
    counted = []
    evaluation = evaluate_funnel(funnel, data=Dataset(tmp_path / "out" / "data" / "walks"), requests=1, progress=counted.append)
    assert list(evaluation.asked) == ["leave-last-out"] and sum(counted) == evaluation.asked["leave-last-out"].queries and evaluation.warnings
    assert "category_entropy@10" not in evaluation.asked["leave-last-out"].stages[0].metrics  # there are no categories
    assert funnel.known_events("u1") == set()
    run_funnel(file, tmp_path / "out", data=tmp_path / "out" / "data" / "walks")
    run_funnel(file, tmp_path / "out", data=Dataset(tmp_path / "out" / "data" / "walks"))


def test_changed_data_and_splits_without_a_test(built, shop, tmp_path):
    other = checkerboard(tmp_path / "board")
    with pytest.raises(DataError, match="has changed since"):
        evaluate_funnel(built[0], data=other)
    keys = {"funnel": "all", "data": str(other.path), "split": "none", "retrieve": [{"system": "item-knn"}, {"system": "popular"}]}
    with pytest.raises(DataError, match="no test part"):
        evaluate_funnel(run_funnel(FunnelFile.of(keys), tmp_path / "all"))
    fit("popular", other, split="temporal", out=tmp_path / "elsewhere", quiet=True)
    with pytest.raises(DataError, match="different items or users"):
        run_funnel(
            FunnelFile.of({"funnel": "x", "retrieve": [{"run": str(built[1] / "out" / "retrieve" / "item-knn")}, {"run": str(tmp_path / "elsewhere")}]}),
            tmp_path / "strangers",
        )


def test_an_index_is_opened_with_its_source(built, shop, tmp_path):
    run = str(built[1] / "out" / "retrieve" / "item-knn")
    with pytest.raises(VitrailError, match="index"):
        run_funnel(FunnelFile.of({"funnel": "x", "retrieve": [{"run": run, "index": str(tmp_path)}]}), tmp_path / "indexed")


def test_a_ranker_that_counts_is_told_of_the_time_between(built, shop, monkeypatch):
    funnel = load_funnel(built[1] / "out", seed=0)
    told = []
    monkeypatch.setattr(funnel.ranking, "observe", lambda known, table=None: told.append(known))
    evaluate_funnel(funnel, data=str(shop.path), queries=20, requests=1)
    assert len(told) == 1 and len(told[0]) == len(shop.log())


def test_verbs(shop, keys, tmp_path):
    keys["arrange"] = {"system": "mmr"}
    (tmp_path / "funnel.yaml").write_text(yaml.safe_dump(keys))
    run = CliRunner().invoke(app, ["funnel", "run", str(tmp_path / "funnel.yaml"), "--out", str(tmp_path / "out"), "--quiet", "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["asked"]["rolling"]["stages"] and found["milliseconds"]["total"]["p99"] > 0 and (tmp_path / "out" / "evaluation.json").exists()
    asked = CliRunner().invoke(app, ["funnel", "evaluate", str(tmp_path / "out"), "--requests", "3", "--queries", "40"])
    assert asked.exit_code == 0 and "whole funnel over the best source" in asked.stdout and "p99" in asked.stdout
    user = shop.user_ids.ids[0]
    told = CliRunner().invoke(app, ["funnel", "explain", str(tmp_path / "out"), "--user", user, "--json"])
    assert json.loads(told.stdout)["stages"][-1]["stage"] == "arrange mmr"
    shown = CliRunner().invoke(app, ["funnel", "explain", str(tmp_path / "out"), "--history", "unknown"])
    assert shown.exit_code == 0 and "fallback popular" in shown.stdout
    built = CliRunner().invoke(app, ["funnel", "run", str(tmp_path / "funnel.yaml"), "--out", str(tmp_path / "out"), "--no-evaluate"])
    assert built.exit_code == 0 and "Funnel('shop'" in built.stdout
    plain = CliRunner().invoke(app, ["funnel", "run", str(tmp_path / "funnel.yaml"), "--out", str(tmp_path / "out"), "--no-evaluate", "--json"])
    assert json.loads(plain.stdout)["sources"] == ["item-knn", "popular"]
    wrong = CliRunner().invoke(app, ["funnel", "explain", str(tmp_path / "out")])
    assert wrong.exit_code == 2
