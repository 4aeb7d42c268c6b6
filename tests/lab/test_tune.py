import json
from types import SimpleNamespace

import pytest
import yaml

from vitrail.errors import DataError, ResourceError, SettingError, VitrailError
from vitrail.lab.bench import Bench, Tried, hold
from vitrail.lab.tune import tune
from vitrail.lab.tuner import JOURNAL
from vitrail.testing import checkerboard

QUICK = {"dim": 4, "epochs": 6, "batch": 64}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return checkerboard(tmp_path_factory.mktemp("data") / "board", side=32)


def run(data, out, system="bpr-mf", trials=6, **more):
    settings = QUICK if system == "bpr-mf" else {}
    return tune(system, data, out=out, trials=trials, split="leave-last-out", **{"settings": settings, "quiet": True, **more})


def outcome(found):
    return [{key: value for key, value in a.items() if key != "seconds"} for a in found.model_dump()["trials"]]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return run(data, folder / "t"), folder / "t"


def test_the_setting_as_given_is_the_first_trial(whole):
    found, folder = whole
    assert len(found.trials) == 6 and found.trials[0].settings == {"lr": 0.001, "l2": 1e-4}
    assert found.best.value == max(a.value for a in found.trials if a.state == "done") >= found.trials[0].value
    assert all(1e-4 <= a.settings["lr"] <= 3e-2 for a in found.trials) and len({str(a.settings) for a in found.trials}) == 6
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert {key: best[key] for key in QUICK if key != "batch"} == {"dim": 4, "epochs": 6} and best["lr"] == found.best.settings["lr"]
    assert json.loads((folder / "trials.json").read_text())["best"]["number"] == found.best.number


def test_the_same_call_gives_the_same_and_does_nothing_twice(data, whole, tmp_path, monkeypatch):
    found, folder = whole
    assert outcome(run(data, tmp_path / "again")) == outcome(found)
    monkeypatch.setattr(Bench, "attempt", lambda *a: pytest.fail("fitted again"))
    assert outcome(run(data, folder)) == outcome(found)


@pytest.mark.parametrize("when", ["in the first trial", "between writes"])
def test_killed_and_run_again_it_ends_like_one_that_was_not(data, whole, tmp_path, monkeypatch, when):
    original, calls = Bench.attempt, 0

    def stopping(self, cls, config, seed, folder=None, watch=None, left=None):
        nonlocal calls
        calls += 1

        def told(epoch, value):
            watch(epoch, value)
            if calls == (1 if when == "in the first trial" else 4) and epoch == 3:
                raise KeyboardInterrupt

        return original(self, cls, config, seed, folder, told, left)

    monkeypatch.setattr(Bench, "attempt", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "t")
    monkeypatch.undo()
    if when == "between writes":
        journal = tmp_path / "t" / JOURNAL
        journal.write_bytes(journal.read_bytes() + b'{"op_code": 6, "worker')
        (tmp_path / "t" / f"{JOURNAL}.lock").symlink_to("nowhere")
    assert outcome(run(data, tmp_path / "t")) == outcome(whole[0])


def test_bad_runs_are_pruned_and_cost_less(data, tmp_path):
    space = {"lr": {"low": 1e-7, "high": 1e-1, "log": True}}
    found = run(data, tmp_path / "t", trials=10, settings={**QUICK, "epochs": 12}, space=space)
    pruned = [a for a in found.trials if a.state == "pruned"]
    assert pruned and all(a.epochs < 12 for a in pruned) and found.best.state == "done"


def test_what_cannot_be_fitted_is_a_failed_trial(data, tmp_path, monkeypatch):
    original = Bench.attempt

    def failing(self, cls, config, *rest):
        if config.l2 != 250:
            raise VitrailError("not positive definite")
        return original(self, cls, config, *rest)

    monkeypatch.setattr(Bench, "attempt", failing)
    found = run(data, tmp_path / "t", "ease", trials=4)
    assert [a.state for a in found.trials] == ["done", "failed", "failed", "failed"] and found.best.number == 0

    monkeypatch.setattr(Bench, "attempt", lambda *a: (_ for _ in ()).throw(VitrailError("never")))
    with pytest.raises(VitrailError, match="never"):
        run(data, tmp_path / "u", "ease", trials=3)


def test_a_small_space_is_tried_once_each(data, tmp_path):
    found = run(data, tmp_path / "t", "item-knn", trials=30, settings={"k": 5, "shrink": 0})
    tried = {a.settings["weighting"] for a in found.trials if not a.note}
    assert tried == {"cosine", "tfidf", "bm25"} and len(found.trials) < 30
    assert all(a.value == next(b.value for b in found.trials if b.settings == a.settings) for a in found.trials)


def test_a_system_without_free_settings_needs_no_trial(data, tmp_path):
    said = []
    found = tune("ease", data, out=tmp_path / "t", split="leave-last-out", settings={"l2": 3}, say=said.append)
    assert not found.trials and found.settings == {"l2": 3.0} and "no setting to tune" in said[0]


def test_a_budget_ends_the_trials_and_may_be_raised(data, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, perf_counter=lambda: clock.now)

    def attempt(self, cls, config, seed, folder, watch, left):
        for epoch in range(1, 11):
            clock.now += 1.0
            watch(epoch, 0.1)
            if epoch < 10 and left is not None and left() <= 0:
                return Tried(0.1, epoch, epoch, True)
        return Tried(0.1, 10, 10.0)

    monkeypatch.setattr("vitrail.lab.bench.time", clock)
    monkeypatch.setattr(Bench, "attempt", attempt)
    found = run(data, tmp_path / "t", trials=50, budget=50 / 3600)
    assert [a.state for a in found.trials] == ["done"] * 4 and clock.now == 40
    more = run(data, tmp_path / "t", trials=50, budget=80 / 3600)
    assert more.trials[:4] == found.trials and len(more.trials) == 7 and clock.now == 70
    with pytest.raises(SettingError, match="not lowered"):
        run(data, tmp_path / "t", trials=50, budget=60 / 3600)

    clock.now = 0.0
    short, said = run(data, tmp_path / "u", trials=50, budget=12 / 3600, quiet=False, say=(said := []).append), said
    assert [a.state for a in short.trials] == ["cut"] * 3 and short.best.number == 0 and clock.now <= 12
    assert any("of 50 trials there was time for bpr-mf 3." in text for text in said) and any("stopped, each with its best" in text for text in said)
    with pytest.raises(SettingError, match="cannot hold 3 trials"):
        run(data, tmp_path / "v", trials=50, budget=1e-5)


def test_refusals(data, whole, tmp_path):
    with pytest.raises(SettingError, match="another trials"):
        run(data, whole[1], trials=7)
    with pytest.raises(SettingError, match="Did you mean"):
        run(data, tmp_path / "t", metric="ndgc@10")
    with pytest.raises(SettingError, match="right answers"):
        run(data, tmp_path / "t", metric="coverage@10")
    with pytest.raises(SettingError, match="--budget"):
        run(data, tmp_path / "t", budget=0)
    with pytest.raises(SettingError, match="nothing to tune"):
        run(data, tmp_path / "t", trials=0)
    with pytest.raises(DataError, match="no validation part"):
        tune("ease", data, out=tmp_path / "t", split="ratio:valid=0")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    with pytest.raises(DataError, match=r"thesis\.txt"):
        run(data, tmp_path / "taken")
    with hold(tmp_path / "held"), pytest.raises(ResourceError, match="Another process"):
        run(data, tmp_path / "held")
    assert not (tmp_path / "t").exists()


def test_without_optuna_it_says_what_to_install(data, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ResourceError, match="pip install"):
        run(data, tmp_path / "t")
    assert not (tmp_path / "t").exists()
