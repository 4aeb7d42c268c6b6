import pytest

from vitrail.errors import SettingError
from vitrail.lab.bench import epoch_seconds
from vitrail.lab.plan import LEAST_TRIALS, PAGE, PlanRow, level, likely_epochs, make_plan, whole_trials
from vitrail.systems import registry


def row(system="a", trained=True, epochs=100, epoch=1.0, **more):
    given = {"seeds": 3 if trained else 1, "trials": 10, "validate_every": 1, "start": 0.0, "validation": 0.0, "test": 0.0, "slower": 1.0, "refit": False}
    given["likely"] = 40 if trained else 1
    return PlanRow(system=system, trained=trained, epochs=epochs if trained else 1, epoch=epoch, memory=0, **{**given, **more})


def test_what_is_expected_and_the_worst_case():
    plan = make_plan([row(), row("b", trained=False)], 10, None, 2.0)
    trials = 2 + 8 * (1 / 2 + 1 / 2 / 3)
    assert whole_trials(10) == pytest.approx(trials) and whole_trials(2) == 2
    assert plan.expected == pytest.approx(2 + PAGE + (trials + 3) * 40.2 + 11 * 1.2)
    assert plan.at_most == pytest.approx(2 + PAGE + 13 * 100.2 + 11 * 1.2)
    assert plan.planned == {"a": 10, "b": 10} and not plan.notes
    words = " ".join(plan.words())
    assert "about 40 of at most 100 epochs" in words and "In all about 7 min, at most 22 min." in words and "stops early" in words


def test_a_run_is_expected_to_stop_early():
    config = registry.find("bpr-mf").Config
    assert likely_epochs(config.of({"epochs": 200, "patience": 10})) == 60
    assert likely_epochs(config.of({"epochs": 200, "patience": 5, "validate_every": 4})) == 70
    assert likely_epochs(config.of({"epochs": 200, "patience": 0})) == 200 and likely_epochs(config.of({"epochs": 5})) == 5


def test_one_slow_system_does_not_spoil_the_quick_ones():
    rows = [row("slow", epoch=60.0), row("quick"), row("closed", trained=False)]
    plan = make_plan(rows, 10, 3 * 3600.0, 0.0)
    assert plan.planned == {"slow": LEAST_TRIALS, "quick": 10, "closed": 10} and plan.at_most == 3 * 3600
    assert plan.reserved == pytest.approx((0.95 * 3 * 3600 - PAGE) / 2) and "slow about 3 of 10" in plan.notes[0] and "kept for the seeds" in plan.notes[1]
    assert any("held to a budget of 3 h" in text for text in plan.words())


def test_time_is_shared_like_water():
    assert level([1, 2, 3], 10) == float("inf") and level([], 1) == float("inf")
    assert level([1, 5, 9], 7) == pytest.approx(3) and level([10, 10], 4) == 2 and level([10, 10], -4) == 0


def test_a_budget_that_holds_nothing_is_refused():
    with pytest.raises(SettingError, match=r"cannot hold 3 trials and the seeds \(at one epoch each that takes about 13 s\): raise --budget"):
        make_plan([row()], 10, 6.0, 0.0)
    with pytest.raises(SettingError, match="cannot hold the seeds of every system"):
        make_plan([row(trials=0), row("b", trials=0)], 0, 6.0, 0.0)


def test_what_a_run_costs():
    slow = row(start=1.0, validation=0.5, validate_every=10, slower=2.0, test=4.0, refit=True)
    assert slow.run(20, 2.0) == pytest.approx(1 + 20 * 2 + 4 * 0.5 + 0.2) and slow.final(20, 2.0) == pytest.approx(slow.run(20, 2.0) + 41 + 4)
    assert slow.seed == slow.final(40, 1.5) and slow.tail == pytest.approx(5.2) and slow.least == 3 * slow.run(1) + 3 * slow.final(1)


def test_a_long_epoch_is_timed_by_its_first_steps(monkeypatch):
    class Model:
        def batcher(self, *given):
            return self

        def steps(self):
            return 100

    class Done:
        class progress:
            seconds, step, cut = 30.0, 20, True

    monkeypatch.setattr("vitrail.lab.bench.train", lambda *a, **more: Done)
    assert epoch_seconds(Model(), None, registry.find("bpr-mf").Config(), None) == 150
