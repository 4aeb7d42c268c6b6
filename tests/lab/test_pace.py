import math
from types import SimpleNamespace

import pytest

from vitrail.lab.pace import Pace, cut_seeds, held
from vitrail.lab.plan import PlanRow, make_plan
from vitrail.lab.tuner import Attempt


class Clock:
    """Moved by hand."""

    spent = 0.0

    def tick(self):
        return self.spent


class Trials:
    """The trials of a system, each as long as it is told, or as long as there is time."""

    def __init__(self, system, trials, clock):
        self.system, self.trials, self.clock, self.attempts = system, trials, clock, []

    @property
    def finished(self):
        return len(self.attempts) >= self.trials

    def best(self):
        return next(iter(self.attempts), None)

    def make(self, seconds, left):
        end = math.inf if left is None else left()
        self.clock.spent += min(seconds, end)
        state = "cut" if seconds > end else "done"
        self.attempts.append(Attempt(number=len(self.attempts), state=state, value=0.1, settings={}, seconds=min(seconds, end)))


def row(system, epoch, **more):
    given = {"validate_every": 1, "start": 0.0, "validation": 0.0, "test": 0.0, "slower": 1.0, "refit": False, "memory": 0, "trials": 12, "seeds": 3}
    return PlanRow(**{"system": system, "trained": True, "epochs": 40, "likely": 10, "epoch": epoch, **given, **more})


def bench(budget, *rows):
    clock = Clock()
    plan = make_plan(list(rows), 12, budget, 0.0)
    tuners = {r.system: Trials(r.system, r.trials, clock) for r in rows}
    return Pace(plan, tuners, clock), clock, tuners


def spend(pace, costs):
    """All trials, then all seeds, of so many seconds -> seconds the seeds had."""
    while (job := pace.next()) is not None:
        job[0].make(costs[job[0].system], job[1])
    todo, had = [r.system for r in pace.plan.rows for _ in range(r.seeds)], []
    while todo:
        left = pace.seat(todo)
        seconds = min(costs[todo[0]], math.inf if left is None else left())
        pace.clock.spent += seconds
        had.append((todo[0], seconds))
        if seconds == costs[todo[0]]:
            pace.took.setdefault(todo[0], []).append(seconds)
        todo = todo[1:]
    return had


def counts(tuners):
    return {name: len(found.attempts) for name, found in tuners.items()}


def test_without_a_budget_rounds_of_one_trial_a_system():
    pace, _, tuners = bench(None, row("a", 1.0), row("b", 5.0))
    order = []
    while (job := pace.next()) is not None:
        order.append(job[0].system)
        job[0].make(1.0, job[1])
    assert order == ["a", "b"] * 12 and counts(tuners) == {"a": 12, "b": 12} and pace.seat(["a"]) is None and held(pace.plan, tuners, {}) == []


def test_what_quick_systems_leave_goes_to_slow_ones():
    pace, clock, tuners = bench(3000.0, row("quick", 1.0), row("slow", 20.0))
    had = spend(pace, {"quick": 10.0, "slow": 200.0})
    seeds = 3 * 200 * 1.2 + 3 * 10 * 1.2
    assert counts(tuners) == {"quick": 12, "slow": int((0.95 * 3000 - 5 - seeds - 120) // 200)}
    assert [seconds for _, seconds in had] == [10] * 3 + [200] * 3 and clock.spent <= 0.95 * 3000
    assert held(pace.plan, tuners, {}) == ["Held to a budget of 50 min: of 12 trials there was time for slow 9 (the same share of time for every system)."]


def test_systems_as_slow_as_each_other_have_the_same_time():
    pace, clock, tuners = bench(3600.0, row("a", 20.0), row("b", 40.0))
    spend(pace, {"a": 200.0, "b": 400.0})
    spent = {name: sum(a.seconds for a in found.attempts) for name, found in tuners.items()}
    assert min(counts(tuners).values()) >= 3 and abs(spent["a"] - spent["b"]) <= 400 and clock.spent <= 0.95 * 3600


@pytest.mark.parametrize("slower", [1, 3, 30])
def test_a_budget_is_held_on_a_machine_that_turns_out_slower(slower):
    pace, clock, tuners = bench(3600.0, row("a", 20.0), row("b", 2.0), row("c", 1.0, refit=True))
    had = spend(pace, {"a": 200.0 * slower, "b": 20.0 * slower, "c": 10.0 * slower})
    assert clock.spent <= 0.95 * 3600 and min(counts(tuners).values()) >= 3
    least = {name: min(seconds for system, seconds in had if system == name) for name in "abc"}
    assert all(seconds > 25 for name, seconds in least.items() if name == "a") and len(had) == 9
    if slower == 30:
        assert any(a.state == "cut" for a in tuners["a"].attempts) and "Trials that the deadline stopped" in " ".join(held(pace.plan, tuners, {}))


def test_trials_end_sooner_than_expected_and_more_of_them_are_made():
    pace, _, tuners = bench(3600.0, row("a", 20.0), row("b", 40.0))
    assert pace.plan.planned["a"] < 12 and pace.plan.planned["b"] < 12
    spend(pace, {"a": 20.0, "b": 40.0})
    assert counts(tuners) == {"a": 12, "b": 12}


def test_halves_of_a_trial_that_nobody_can_use_make_a_whole_one():
    pace, clock, tuners = bench(1553.0, row("a", 20.0), row("b", 20.0))
    had = spend(pace, {"a": 100.0, "b": 100.0})
    assert sorted(counts(tuners).values()) == [3, 4] and all(seconds == 100 for _, seconds in had) and clock.spent == 1300


def test_closed_forms_and_seeds_alone():
    pace, clock, _ = bench(600.0, row("a", 50.0, trials=0), row("c", 1.0, trials=0, trained=False, likely=1, epochs=1, seeds=1))
    had = spend(pace, {"a": 500.0, "c": 1.0})
    assert [name for name, _ in had] == ["a"] * 3 + ["c"] and clock.spent <= 570
    assert max(seconds for name, seconds in had if name == "a") - min(seconds for name, seconds in had if name == "a") < 5


def test_runs_that_were_stopped_are_named():
    def seat(seed, cut):
        return SimpleNamespace(seed=seed, cost={"cut": cut})

    assert cut_seeds({"a": [seat(0, False)]}) == []
    text = cut_seeds({"a": [seat(0, True), seat(1, False), seat(2, True)], "b": [seat(4, True)]})[0]
    assert "lower bounds" in text and "a (seeds 0, 2, of 3), b (seed 4, of 1)" in text
