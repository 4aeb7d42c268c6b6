from collections import Counter
from types import SimpleNamespace

import pytest

from vitrail.lab import worth
from vitrail.lab.plan import OVERHEAD, PlanRow
from vitrail.lab.worth import ANEW, Job, draws_of, jobs_of, record, seconds_of, sentences

ROW = PlanRow(
    system="a", trained=True, seeds=2, trials=0, epochs=8, likely=4, validate_every=1, start=1.0, epoch=10.0, validation=2.0, test=3.0, slower=1.0,
    refit=False, memory=0,
)  # fmt: skip


def seats(**values):
    return {
        name: [SimpleNamespace(seed=seed, evaluation=SimpleNamespace(metrics={"recall@20": value})) for seed, value in enumerate(own)]
        for name, own in values.items()
    }


def test_every_seed_has_draws_of_its_own_and_the_most_telling_come_first():
    assert [draws_of(seeds) for seeds in (1, 2, 3, 5)] == [3, 2, 1, 1]
    jobs = jobs_of({"a": ("text", "image"), "b": ("text",)}, {"a": (0, 1), "b": (7,)}, retrain=True)
    assert [(job.system, job.what) for job in jobs[:4]] == [("a", "without"), ("a", "without"), ("b", "without"), ("a", "missing")]
    draws = {job.draw for job in jobs if (job.system, job.what, job.kind, job.level) == ("a", "missing", "text", 0.5)}
    assert draws == {0, 1, 2, 3} and len(set(jobs)) == len(jobs)
    count = Counter((job.system, job.what) for job in jobs)
    assert count["a", "without"] == 4 and count["a", "missing"] == count["a", "noise"] == 2 * 2 * 3 * 2 and count["b", "missing"] == 9
    assert [job for job in jobs if job.what == ANEW] == jobs[-3:] and {job.seed for job in jobs[-3:]} == {0, 7}


def test_a_fit_without_a_kind_takes_a_fit_longer():
    plain, anew = Job("a", 0, "noise", "text", 1.0, 0), Job("a", 0, ANEW, "text", 1.0, 0)
    assert seconds_of(plain, ROW) == pytest.approx(4.0 + OVERHEAD) and seconds_of(anew, ROW) - seconds_of(plain, ROW) == pytest.approx(ROW.run(4))


def test_what_is_left_is_told_of_the_same_seeds():
    bench = SimpleNamespace(metric="recall@20")
    found = {
        Job("a", 0, "without", "text", 1.0, 0): {"value": 0.1, "moved": True}, Job("a", 1, "without", "text", 1.0, 0): {"value": 0.2, "moved": True},
        Job("a", 0, "missing", "text", 0.5, 0): {"value": 0.15, "moved": True}, Job("a", 1, ANEW, "text", 1.0, 0): {"value": 0.3, "moved": True, "cut": True},
        Job("b", 0, "without", "text", 1.0, 0): {"value": 0.5, "moved": False},
    }  # fmt: skip
    late = [Job("a", 1, "missing", "text", 0.5, 1)] * 2
    result = record(bench, {"a": ("text",), "b": ("text",)}, seats(a=(0.2, 0.4), b=(0.5,)), found, late, True, {"b": "The scores are NaN."})
    rows = {(row["system"], row["what"]): row for row in result["rows"]}
    gone = rows["a", "without"]
    assert gone["mean"] == pytest.approx(0.15) and gone["share"] == pytest.approx(0.5) and gone["n"] == 2 and gone["sd"] == pytest.approx(0.0707, abs=1e-4)
    assert rows["a", "missing"]["share"] == pytest.approx(0.75) and rows["a", "missing"]["sd"] is None, "of seed 0 alone, which has .2 with all content"
    assert rows["a", ANEW]["share"] == pytest.approx(0.75) and rows["a", ANEW]["cut"] and result["still"] == ["b"] and result["late"] == {"a": 2}
    assert result["sentences"] == [
        "Without text after the fit, a keeps 50 % of its Recall@20 (0.1500 of 0.3000).",
        "Without text from the start (fitted anew), a keeps 75 % of its Recall@20 (0.3000 of 0.4000).",
        "Nothing that is done to content after the fit moves b: it was read in training only.",
        "Some of b could not be measured over changed content: The scores are NaN.",
        "There was no time for these measurements over changed content: a (2); the same command with a larger --budget goes on.",
    ]
    assert "--retrain tells" in sentences({**result, "retrain": False, "late": {}, "failed": {}})[-1]
    assert worth._names(["a", "b", "c"]) == "a, b and c"
