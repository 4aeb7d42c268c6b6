import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import vitrail.lab.compare as module
from vitrail.data.dataset import write_dataset
from vitrail.data.schema import DatasetInfo
from vitrail.errors import DataError, SettingError, VitrailError
from vitrail.evaluation import journal
from vitrail.lab.bench import Bench, Tried
from vitrail.lab.compare import compare
from vitrail.lab.plan import PlanRow
from vitrail.lab.runs import _apart, compare_runs, is_run
from vitrail.lab.seeds import read_seat, write_seat
from vitrail.testing import checkerboard
from vitrail.train.fit import fit

SYSTEMS = ("popular", "item-knn", "bpr-mf")
QUICK = {"bpr-mf.dim": 4, "epochs": 5, "bpr-mf.batch": 64}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return checkerboard(tmp_path_factory.mktemp("data") / "board", side=36)


@pytest.fixture
def no_page(monkeypatch):
    monkeypatch.setattr(module, "write_page", lambda *a: None)


def run(data, out, systems=SYSTEMS, **more):
    given = {"split": "leave-last-out", "trials": 3, "seeds": 2, "settings": QUICK, "quiet": True}
    return compare(systems, data, out=out, **{**given, **more})


def steady(folder):
    """result.json without what varies from run to run."""
    found = json.loads((folder / "result.json").read_text())
    found.pop("cost")
    return found


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "c"
    return run(data, folder), folder


def test_rows_and_tests_have_their_shape(whole, data):
    result, folder = whole
    assert [(r["system"], r["seed"], r["deterministic"]) for r in sorted(result["rows"], key=lambda r: (r["system"], r["seed"]))] == [
        ("bpr-mf", 0, False), ("bpr-mf", 1, False), ("item-knn", 0, True), ("popular", 0, True),
    ]  # fmt: skip
    assert all({"ndcg@10", "recall@10"} <= set(row["metrics"]) for row in result["rows"])
    assert len(result["tests"]) == 3 == len(result["sentences"]) == len(result["effects"])
    assert all(set(test) == {"metric", "a", "b", "diff", "ci", "p", "p_holm", "n"} and test["n"] == 36 for test in result["tests"])
    assert any(re.fullmatch(r"item-knn beats popular by [\d,.]+ % NDCG@10 \(p < \.001, Holm\)\.", text) for text in result["sentences"])
    assert json.loads((folder / "result.json").read_text())["tests"] == json.loads(json.dumps(result["tests"]))
    assert result["fingerprint"] and "leave_one_out" in result["protocol"] and result["users"] == 36
    keys = {"fit_seconds", "wall_seconds", "cpu_seconds", "evaluate_seconds", "peak_memory", "users_per_second", "tune_seconds"}
    assert keys == set(result["cost"]["systems"]["bpr-mf"])


def test_scores_are_averaged_over_seeds_a_user_at_a_time(whole):
    result, folder = whole
    seats = [read_seat(folder / "bpr-mf" / f"seed-{seed}") for seed in (0, 1)]
    knn = read_seat(folder / "item-knn" / "seed-0")
    mean = np.mean([s.evaluation.values["ndcg@10"] for s in seats], axis=0)
    assert len(mean) == 36 and not np.array_equal(seats[0].evaluation.values["ndcg@10"], seats[1].evaluation.values["ndcg@10"])
    test = next(t for t in result["tests"] if {t["a"], t["b"]} == {"item-knn", "bpr-mf"})
    sign = 1 if test["a"] == "item-knn" else -1
    assert test["diff"] == pytest.approx(sign * (knn.evaluation.values["ndcg@10"] - mean).mean())
    row = next(r for r in result["systems"] if r["system"] == "bpr-mf")
    each = [s.evaluation.metrics["ndcg@10"] for s in seats]
    assert row["sd"]["ndcg@10"] == pytest.approx(np.std(each, ddof=1)) and row["mean"]["ndcg@10"] == pytest.approx(np.mean(each))
    assert next(r for r in result["systems"] if r["system"] == "item-knn")["sd"] == {}


def test_every_system_has_as_many_trials_and_test_is_looked_at_once(whole, data):
    result, _ = whole
    assert {name: len(found["trials"]) for name, found in result["tuning"].items()} == dict.fromkeys(SYSTEMS, 3)
    seen = [(r["system"], r["seed"]) for r in journal.read(data.path) if r["fingerprint"] == result["fingerprint"]]
    assert sorted(seen[:4]) == [("bpr-mf", 0), ("bpr-mf", 1), ("item-knn", 0), ("popular", 0)]
    chosen = result["tuning"]["bpr-mf"]["settings"]
    assert chosen["dim"] == 4 and chosen["epochs"] == 5 and "lr" in result["tuning"]["bpr-mf"]["space"] and "dim" not in result["tuning"]["bpr-mf"]["space"]


def test_the_page_stands_alone_and_pictures_lie_beside_it(whole):
    result, folder = whole
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!data:|#)', page) and "<script" not in page
    for text in (*result["sentences"], "What it costs", "How each was tuned", "How to repeat it", "vitrail compare popular item-knn bpr-mf"):
        assert text.replace("<", "&lt;").replace("'", "&#39;") in page
    names = {file.stem for file in (folder / "plots").glob("*.svg")}
    assert {"quality", "time", "tuning", "by_popularity"} <= names == {file.stem for file in (folder / "plots").glob("*.png")}


@pytest.mark.parametrize("where", ["timing", "a trial", "a seed", "the page"])
def test_stopped_anywhere_and_run_again_the_table_is_the_same(data, whole, tmp_path, monkeypatch, no_page, where):
    calls = 0

    def stopping(original, at):
        def wrapped(*args, **more):
            nonlocal calls
            calls += 1
            if calls == at:
                raise KeyboardInterrupt
            return original(*args, **more)

        return wrapped

    with monkeypatch.context() as patch:
        if where == "timing":
            patch.setattr(module, "timed", stopping(module.timed, 2))
        elif where == "a trial":
            patch.setattr(Bench, "attempt", stopping(Bench.attempt, 5))
        elif where == "a seed":
            patch.setattr(module, "seat", stopping(module.seat, 4))
        else:
            patch.setattr(module, "write_page", stopping(module.write_page, 1))
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path / "c")
    before = journal.count(data.path)
    done = len(list((tmp_path / "c").glob("*/seed-*/evaluation.json")))
    run(data, tmp_path / "c")
    assert steady(tmp_path / "c") == steady(whole[1])
    assert journal.count(data.path) - before == 4 - done


class Time:
    """A clock that work moves on."""

    now = 0.0

    def monotonic(self):
        return self.now

    perf_counter = monotonic


@pytest.mark.parametrize("slower", [1.0, 30.0])
def test_a_budget_is_held_and_may_be_raised(data, tmp_path, no_page, monkeypatch, slower):
    clock, seat = Time(), module.seat
    costs = {"item-knn": 2.0, "bpr-mf": 1.0}  # seconds a fit, an epoch

    def timed(bench, system, config, *, trials, seeds, space, refit, memory):
        more = {"start": 0.0, "validation": 0.0, "test": 1.0, "slower": 1.0, "validate_every": 1, "refit": refit, "memory": memory}
        epochs = config.epochs if (trained := system == "bpr-mf") else 1
        return PlanRow(system=system, trained=trained, seeds=seeds, trials=trials, epochs=epochs, likely=epochs, epoch=costs[system], **more)

    def attempt(self, cls, config, seed, folder=None, watch=None, left=None):
        epochs = getattr(config, "epochs", 1)
        for epoch in range(1, epochs + 1):
            clock.now += slower * costs[cls.card.name]
            watch(epoch, 0.1)
            if epoch < epochs and left is not None and left() <= 0:
                return Tried(0.1, epoch, 0.0, True)
        return Tried(0.1, epochs, 0.0)

    def fitted(bench, system, settings, seed, folder, refit, left, budget):
        if module.settled(folder, budget):
            return seat(bench, system, settings, seed, folder, refit, left, budget)
        end = clock.now + slower * costs[system] * settings.get("epochs", 1)
        clock.now = min(end, clock.now + max(left(), 0)) if "epochs" in settings else end
        made = seat(bench, system, {**settings, "epochs": 1} if "epochs" in settings else settings, seed, folder, refit, None, budget)
        made.cost["cut"] = clock.now < end
        write_seat(folder, made)
        return made

    monkeypatch.setattr("vitrail.lab.bench.time", clock)
    monkeypatch.setattr(module, "timed", timed)
    monkeypatch.setattr(Bench, "attempt", attempt)
    monkeypatch.setattr(module, "seat", fitted)
    said = []
    more = {"trials": 40, "settings": {**QUICK, "epochs": 50}, "quiet": False, "say": said.append}
    result = run(data, tmp_path / "c", ("item-knn", "bpr-mf"), budget=600 / 3600, **more)
    counts = {name: len(found["trials"]) for name, found in result["tuning"].items()}
    assert 3 <= counts["bpr-mf"] < 40 and counts["item-knn"] >= counts["bpr-mf"] and clock.now + 5 <= 600
    assert any("The budget binds" in text for text in said) and f"bpr-mf {counts['bpr-mf']}" in result["cut"][0]
    rows = {(row["system"], row["seed"]): row["cut"] for row in result["rows"]}
    assert rows == {("item-knn", 0): False, ("bpr-mf", 0): slower > 1, ("bpr-mf", 1): slower > 1}
    assert any("lower bounds: bpr-mf (seeds 0, 1, of 2)" in text for text in result["cut"]) == (slower > 1)
    spent = clock.now
    again = run(data, tmp_path / "c", ("item-knn", "bpr-mf"), budget=600 / 3600, **more)
    assert again["rows"] == result["rows"] and {name: len(found["trials"]) for name, found in again["tuning"].items()} == counts
    assert again["cost"]["seconds"] == pytest.approx(spent + 5, abs=0.2) and clock.now == spent
    larger = run(data, tmp_path / "c", ("item-knn", "bpr-mf"), budget=1, **more)
    assert {name: len(found["trials"]) for name, found in larger["tuning"].items()} == counts and "--budget 1" in larger["command"]
    with pytest.raises(SettingError, match="not lowered"):
        run(data, tmp_path / "c", ("item-knn", "bpr-mf"), budget=0.5, **more)


def test_a_seed_that_a_deadline_stopped_goes_on_with_a_larger_budget(data, tmp_path):
    bench = Bench.open(data, "leave-last-out", "ndcg@10", False, "cpu", True)
    settings = {"dim": 4, "epochs": 3, "batch": 64}
    whole = module.seat(bench, "bpr-mf", settings, 0, tmp_path / "whole", False)
    cut = module.seat(bench, "bpr-mf", settings, 0, tmp_path / "s", False, lambda: -1.0, 60.0)
    assert cut.cost["cut"] and cut.cost["epochs"] == 1 and not whole.cost["cut"]
    assert module.settled(tmp_path / "s", 60.0) and not module.settled(tmp_path / "s", 61.0) and not module.settled(tmp_path / "s", None)
    assert module.seat(bench, "bpr-mf", settings, 0, tmp_path / "s", False, None, 60.0).cost["cut"]
    more = module.seat(bench, "bpr-mf", settings, 0, tmp_path / "s", False, None, 120.0)
    assert not more.cost["cut"] and more.cost["wall_seconds"] > cut.cost["wall_seconds"] and more.cost["cpu_seconds"] > 0
    assert not list((tmp_path / "s").glob("checkpoint-*")) and np.array_equal(more.evaluation.values["ndcg@10"], whole.evaluation.values["ndcg@10"])


def test_a_refit_has_half_of_the_time(data, tmp_path):
    bench = Bench.open(data, "leave-last-out", "ndcg@10", True, "cpu", True)
    cut = module.seat(bench, "bpr-mf", {"dim": 4, "epochs": 3, "batch": 64}, 0, tmp_path / "s", True, lambda: 0.0, 60.0)
    again = module.seat(bench, "bpr-mf", {"dim": 4, "epochs": 3, "batch": 64}, 0, tmp_path / "s", True, None, None)
    assert cut.cost["cut"] and not again.cost["cut"] and again.cost["epochs"] >= 1


def test_without_trials_or_tests(data, tmp_path, no_page):
    result = run(data, tmp_path / "c", ("popular", "bpr-mf"), trials=0, seeds=1, tests=False)
    assert not result["tests"] and not result["sentences"] and not result["tuning"]["bpr-mf"]["trials"] and len(result["rows"]) == 2
    assert not any("paired test" in text for text in result["warnings"])


def test_against_a_baseline(data, tmp_path, no_page):
    result = run(data, tmp_path / "c", ("popular", "item-knn", "ease"), trials=0, seeds=1, settings={}, baseline="popular")
    assert {(t["a"], t["b"]) for t in result["tests"]} == {("item-knn", "popular"), ("ease", "popular")}
    assert all(not (s["seed"]) for s in result["rows"])


def test_refit_and_another_metric(data, tmp_path, no_page):
    result = run(data, tmp_path / "c", ("popular", "item-knn"), trials=2, seeds=1, settings={}, refit=True, metric="recall@3")
    assert result["refit"] and result["metric"] == "recall@3" and result["tests"][0]["metric"] == "recall@3"


def test_published_numbers_stand_beside_ours(data, tmp_path, no_page):
    (tmp_path / "recipes").mkdir()
    recipe = {
        "name": "ease.board", "system": "ease", "data": {"name": "checkerboard", "ingest": {"files": ["x"]}}, "split": "leave-last-out",
        "published": [{"source": "a paper", "protocol": "theirs", "metrics": {"ndcg@10": 0.5}}],
    }  # fmt: skip
    (tmp_path / "recipes" / "ease.board.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "recipes" / "popular.other.yaml").write_text(yaml.safe_dump({**recipe, "name": "popular.other", "system": "popular", "split": "ratio"}))
    (tmp_path / "recipes" / "broken.yaml").write_text("][")
    result = run(data, tmp_path / "c", ("popular", "ease"), trials=0, seeds=1, settings={}, recipes=tmp_path / "recipes")
    assert result["published"] == {
        "ease": [{"source": "a paper", "protocol": "theirs", "metrics": {"ndcg@10": 0.5}, "recipe": "ease.board", "same_fingerprint": False}]
    }


def test_refusals_before_anything_is_run(data, tmp_path):
    cases = [
        ({"systems": ("ease",)}, SettingError, "at least 2"),
        ({"systems": ("ease", "ease")}, SettingError, "named twice"),
        ({"systems": ("ease", "populr")}, SettingError, 'Did you mean "popular"'),
        ({"metric": "ndgc@10"}, SettingError, 'Did you mean "ndcg"'),
        ({"metric": "gini@10"}, SettingError, "right answers"),
        ({"seeds": 1}, SettingError, r"One seed .*bpr-mf.*--no-tests"),
        ({"seeds": 0}, SettingError, "--seeds"),
        ({"trials": -1}, SettingError, "--trials"),
        ({"budget": 1e-6}, SettingError, "raise --budget"),
        ({"baseline": "eas"}, SettingError, "no system in this comparison"),
        ({"settings": {"sasrec.dim": 1}}, SettingError, "no system in this comparison"),
        ({"settings": {"dimm": 1}}, SettingError, 'Did you mean "dim"'),
        ({"settings": {"bpr-mf.dim": 0}}, SettingError, "dim"),
        ({"space": {"lrr": [1, 2]}}, SettingError, 'Did you mean "lr"'),
        ({"split": "none"}, DataError, "no test part"),
        ({"split": "ratio:valid=0"}, DataError, "no validation part"),
    ]
    for n, (change, kind, says) in enumerate(cases):
        with pytest.raises(kind, match=says) as error:
            run(data, tmp_path / str(n), **change)
        assert "\n" not in str(error.value)
        assert not list(tmp_path.glob(f"{n}/*/")), change


def test_data_that_lack_what_a_system_needs(data, tmp_path):
    info = DatasetInfo(name="bag", order="none")
    bag = write_dataset(tmp_path / "bag", info, data.interactions.drop("timestamp"))
    with pytest.raises(DataError, match=r'"sasrec".*--timestamp.*nothing was run'):
        run(bag, tmp_path / "c", ("popular", "sasrec"), split="ratio", settings={})
    with pytest.raises(DataError, match=r'"sasrec" and "gru4rec" need what the data lack, and nothing was run'):
        run(bag, tmp_path / "c", ("sasrec", "gru4rec"), split="ratio", settings={})
    few = checkerboard(tmp_path / "few", side=8)
    with pytest.raises(DataError, match="8 users, too few"):
        run(few, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_another_question_in_the_same_folder_is_refused(data, whole):
    with pytest.raises(SettingError, match=r"another trials \(3, now 4\)"):
        run(data, whole[1], trials=4)
    with pytest.raises(SettingError, match="another split"):
        run(data, whole[1], split="ratio")


def test_finished_runs(data, tmp_path, whole):
    for name, system, seed in (("a", "popular", 0), ("b", "item-knn", 0), ("c", "bpr-mf", 0), ("d", "bpr-mf", 1)):
        fit(system, data, split="leave-last-out", out=tmp_path / name, seed=seed, settings={"dim": 4, "epochs": 2} if system == "bpr-mf" else {}, quiet=True)
    before = journal.count(data.path)
    result = compare_runs([tmp_path / n for n in "abcd"], quiet=True)
    assert [len(r["seeds"]) for r in sorted(result["systems"], key=lambda r: r["system"])] == [2, 1, 1] and len(result["tests"]) == 3
    assert journal.count(data.path) == before + 4
    assert compare_runs([tmp_path / n for n in "abcd"], quiet=True)["rows"] == result["rows"] and journal.count(data.path) == before + 4
    seed = compare_runs([tmp_path / "a", whole[1] / "popular" / "seed-0"], quiet=True, report=tmp_path / "page.html")
    assert {row["system"] for row in seed["systems"]} >= {"popular (a)"} or len(seed["systems"]) == 2
    assert "popular" in (tmp_path / "page.html").read_text()

    fit("ease", data, split="ratio", out=tmp_path / "other", quiet=True)
    fit("ease", data, split="leave-last-out", refit=True, out=tmp_path / "refit", quiet=True)
    fit("ease", checkerboard(tmp_path / "data2", side=38), split="leave-last-out", out=tmp_path / "data3", quiet=True)
    for name, says in (("other", "different splits"), ("refit", "different protocols"), ("data3", "different data sets")):
        with pytest.raises(SettingError, match=says):
            compare_runs([tmp_path / "a", tmp_path / name], quiet=True)
    with pytest.raises(SettingError, match="seeds of one system"):
        compare_runs([tmp_path / "c", tmp_path / "d"], quiet=True)
    with pytest.raises(SettingError, match="at least 2"):
        compare_runs([tmp_path / "c"], quiet=True)
    with pytest.raises(VitrailError, match=r"no run\.yaml"):
        compare_runs([tmp_path / "a", tmp_path], quiet=True)
    assert is_run(str(tmp_path / "a")) and not is_run("ease") and not is_run("eas")


def test_runs_of_one_system_are_named_by_the_part_of_their_paths_that_tells_them_apart():
    assert _apart([Path("runs/large-batch/seed-0"), Path("runs/softmax/seed-0")]) == ["large-batch", "softmax"]
    assert _apart([Path("a/x"), Path("a/y")]) == ["x", "y"]
    assert _apart([Path("a/x"), Path("b/x"), Path("b/y")]) == ["a/x", "b/x", "b/y"]


def test_a_protocol_of_another_name_reaches_every_run(data, tmp_path, no_page):
    result = run(data, tmp_path / "c", ("popular", "item-knn"), trials=0, seeds=1, tests=False, settings={}, protocol="leave_one_out:mask=train")
    assert "leave_one_out:mask=train" in result["protocol"] and "--protocol leave_one_out:mask=train" in result["command"]
    folders = [tmp_path / "c" / name / "seed-0" for name in ("popular", "item-knn")]
    again = compare_runs(folders, tests=False, quiet=True)
    assert again["fingerprint"] == result["fingerprint"]
