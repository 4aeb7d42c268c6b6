import pytest

from vitrail.errors import SettingError
from vitrail.lab.plan import PAGE, PlanRow, make_plan


def row(system="a", trained=True, epochs=100, epoch=1.0, **more):
    given = {"seeds": 3 if trained else 1, "trials": 10, "validate_every": 1, "start": 0.0, "validation": 0.0, "test": 0.0, "slower": 1.0, "refit": False}
    return PlanRow(system=system, trained=trained, epochs=epochs if trained else 1, epoch=epoch, memory=0, **{**given, **more})


def test_without_a_budget_nothing_is_cut():
    plan = make_plan([row(), row("b", trained=False)], 10, None, 2.0)
    assert plan.epochs == {"a": 100, "b": 1} and plan.sure == 10 and not plan.notes
    assert plan.at_most == pytest.approx(2 + PAGE + 13 * 100.2 + 11 * 1.2)


def test_trials_are_cut_before_epochs():
    plan = make_plan([row()], 10, 1000.0, 0.0)
    assert plan.epochs == {"a": 100} and 2 <= plan.sure < 10 and "in rounds" in plan.notes[0] and plan.at_most <= 1000


def test_epochs_are_cut_by_one_share():
    plan = make_plan([row(), row("b", epochs=50, epoch=2.0), row("c", trained=False)], 10, 300.0, 0.0)
    assert plan.epochs["a"] < 100 and plan.epochs["a"] == pytest.approx(2 * plan.epochs["b"], abs=2) and plan.epochs["c"] == 1
    assert "the same share" in plan.notes[0] and "a 100 to" in plan.notes[0]
    assert sum(r.total(plan.sure, plan.epochs[r.system] if r.trained else None) for r in plan.rows) + PAGE <= 300
    assert any("300" in text or "5 min" in text for text in plan.words())


def test_a_budget_that_holds_nothing_is_refused():
    with pytest.raises(SettingError, match="raise --budget"):
        make_plan([row()], 10, 6.0, 0.0)


def test_what_a_run_costs():
    slow = row(start=1.0, validation=0.5, validate_every=10, slower=2.0, test=4.0, refit=True)
    assert slow.run(20) == pytest.approx(1 + 20 * 2 + 4 * 0.5 + 0.2) and slow.final(20) == pytest.approx(slow.run(20) + 41 + 4)
