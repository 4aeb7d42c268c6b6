from types import SimpleNamespace

import pytest

from vitrail.lab.plan import PlanRow
from vitrail.lab.resplit import Job, jobs_of, order_of, record, rows_under

ROWS = [
    {"system": name, "condition": n, "mean": value, "cut": False}
    for n, column in enumerate(({"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}, {"a": 0.3, "b": 0.4, "c": 0.1}, {"d": 0.5}))
    for name, value in column.items()
]


ROW = PlanRow(
    system="a", trained=True, seeds=2, trials=0, epochs=8, likely=4, validate_every=1, start=1.0, epoch=10.0, validation=2.0, test=3.0, slower=1.0,
    refit=False, memory=0,
)  # fmt: skip


def bench(text, events=100, queries=10):
    return SimpleNamespace(
        metric="recall@20", settings=SimpleNamespace(text=text), protocol=SimpleNamespace(describe=lambda: "p"), events=events,
        split=SimpleNamespace(test=range(queries)),
    )  # fmt: skip


def test_kendalls_tau_by_hand():
    found = order_of(0, 1, ROWS)
    assert found["tau"] == pytest.approx(1 / 3) and (found["turned"], found["pairs"], found["systems"]) == (1, 3, 3), "of a b c one pair in three is turned"
    assert order_of(0, 2, ROWS) is None, "one system tells no order"
    equal = [{**row, "mean": 0.1} for row in ROWS]
    assert order_of(0, 1, equal)["tau"] is None


def test_ranks_and_sentences():
    rows = [{**row, "cut": (row["system"], row["condition"]) == ("c", 1)} for row in ROWS if row["condition"] < 2]
    result = record([bench("random"), bench("temporal", queries=7)], rows, [Job("d", 0, None, None)], 5, [(Job("e", 0, None, None), "It is too small.")])
    assert [row["rank"] for row in result["rows"]] == [1, 2, 3, 4, 2, 1, 3]
    assert [(c["split"], c["queries"], c["fits"]) for c in result["conditions"]] == [("random", 10, 5), ("temporal", 7, 1)]
    assert result["sentences"] == [
        "random and temporal: Kendall's tau .33 between the orders of 3 systems, 1 of 3 pairs turned round; a leads the first, b the second by Recall@20.",
        "Under temporal the deadline stopped c, so that these numbers are lower bounds.",
        "Under temporal e could not be fitted: It is too small.",
        "Under temporal there was no time to fit d; the same command with a larger --budget goes on.",
    ]
    assert result["late"] == [{"system": "d", "split": "temporal"}]


def test_costs_follow_the_events_and_the_queries(tmp_path):
    (row,) = rows_under(bench("x"), bench("y", events=50, queries=30), [ROW])
    assert row.epoch == 5.0 and row.test == 9.0 and row.seeds == 1
    jobs = jobs_of(bench("x"), [bench("y"), bench("z")], [ROW], tmp_path)
    assert [job.split for job in jobs] == [0, 1] and jobs[0].run != jobs[1].run and jobs[0].run.parent == tmp_path / "a"
