"""How long a comparison takes: the training and one validation of each system are timed on the real split before anything starts.

Two numbers are told: what is expected, and the worst case. The plan decides nothing but whether a budget can be kept at all; what is run
follows the clock (lab.pace).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vitrail.config import Settings
from vitrail.errors import SettingError
from vitrail.lab.bench import Bench, duration
from vitrail.lab.space import Range, Space
from vitrail.systems import registry

LEAST_TRIALS = 3
"""Trials that every system gets (the setting as given among them), also where time is short; they are then stopped by a deadline."""
SEEDS_PART = 0.5
"""Share of a budget that is kept for the seeds, where they need it."""
BEST_AT = 0.25
"""Share of the epochs at which a run is expected to find its best weights; early stopping ends it `patience` validations later."""
PRUNED = 0.5
"""Share of the trials that are expected to be pruned, of those after the first ones."""
PRUNED_AT = 1 / 3
"""Share of a whole trial that one which is pruned takes."""
PAGE = 5.0
"""Seconds that the page and its pictures take, about."""
OVERHEAD = 0.2
"""Seconds to open, to save and to write down, a fit, about."""
MARGIN = 0.95
"""Share of a budget that is planned; the rest is for the page and for noise."""


class PlanRow(Settings):
    """What one system costs, in seconds."""

    system: str
    trained: bool
    seeds: int
    """fits on test; 1 where the seed moves nothing"""
    trials: int
    epochs: int
    """at most"""
    likely: int
    """epochs that a run is expected to take"""
    validate_every: int
    start: float
    """to build it"""
    epoch: float
    """one epoch, or the whole fit where there are none"""
    validation: float
    test: float
    """one test evaluation, estimated from validation"""
    slower: float
    """how much slower the slowest of what is tried is than the setting that was timed, about"""
    refit: bool
    memory: int
    """bytes a fit needs, estimated; 0: not known"""

    def run(self, epochs: int, slower: float = 1.0) -> float:
        """A fit of so many epochs with its validations."""
        return self.start + epochs * self.epoch * slower + (math.ceil(epochs / self.validate_every) + 2) * self.validation + OVERHEAD

    def final(self, epochs: int, slower: float = 1.0) -> float:
        """A fit of a seed, and its test."""
        return self.run(epochs, slower) + (self.start + epochs * self.epoch * slower if self.refit else 0.0) + self.test

    @property
    def typical(self) -> float:
        """How much slower a setting in the middle of what is tried is than the one that was timed, about."""
        return (1 + self.slower) / 2

    @property
    def trial(self) -> float:
        """A trial, as expected: some are pruned."""
        return self.run(self.likely, self.typical) * (whole_trials(self.trials) / self.trials if self.trained and self.trials else 1.0)

    @property
    def seed(self) -> float:
        """A seed, as expected."""
        return self.final(self.likely, self.typical)

    @property
    def least(self) -> float:
        """The fewest trials and all seeds, one epoch each."""
        return min(self.trials, LEAST_TRIALS) * self.run(1) + self.seeds * self.final(1)

    @property
    def tail(self) -> float:
        """What comes after the last step of a fit of a seed."""
        return 2 * self.validation + self.test + OVERHEAD

    def expected(self) -> float:
        """Everything for this system, as expected."""
        return self.trials * self.trial + self.seeds * self.seed

    def worst(self) -> float:
        """Everything for this system, if no run stops early and none is pruned."""
        return self.trials * self.run(self.epochs, self.slower) + self.seeds * self.final(self.epochs, self.slower)


class Plan(Settings):
    """What will be done, and how long it takes."""

    rows: list[PlanRow]
    trials: int
    budget: float | None
    """seconds"""
    timing: float
    """seconds spent on timing"""
    page: float
    """seconds for the page"""
    expected: float
    """seconds of the whole, without a budget"""
    at_most: float
    """seconds, if no run stops early and none is pruned; with a budget, that at most"""
    reserved: float
    """seconds that are kept for the seeds"""
    planned: dict[str, int]
    """trials of each system that are expected to fit"""
    notes: list[str] = []
    """what the budget changes"""

    def words(self) -> list[str]:
        """The plan for people."""
        lines = []
        for row in self.rows:
            trials = f"{row.trials} trials and " if row.trials else ""
            times = f"epoch {_time(row.epoch)}, about {row.likely} of at most {row.epochs} epochs" if row.trained else f"fit {_time(row.epoch)}"
            seeds = f"{row.seeds} {'seeds' if row.seeds > 1 else 'fit (the seed moves nothing)' if not row.trained else 'seed'}"
            fits = trials + seeds if row.seeds else f"{row.trials} trials"
            memory = f", about {row.memory / 2**20:,.0f} MiB" if row.memory else ""
            took = f"about {duration(row.expected())}, at most {duration(row.worst())}"
            lines.append(f"  {row.system}: {times}, validation {_time(row.validation)}; {fits}: {took}{memory}")
        within = f", held to a budget of {duration(self.budget)}" if self.budget is not None else ""
        whole = f"In all about {duration(self.expected)}, at most {duration(self.timing + self.page + sum(row.worst() for row in self.rows))}{within}."
        return [*lines, whole, *self.assumptions(), *self.notes]

    def assumptions(self) -> list[str]:
        """How the expectation was made."""
        if not any(row.trained for row in self.rows):
            return []
        pruned = f"; of the trials after the first {startup(self.trials)}, {_half(PRUNED)} are pruned at a third of a run" if self.trials else ""
        return [
            f"Expected: a run is best at {100 * BEST_AT:.0f} % of its epochs and stops early, `patience` validations later{pruned}. "
            "At most: no run stops early, none is pruned."
        ]


def startup(trials: int) -> int:
    """Trials that no pruner looks at."""
    return min(4, max(2, trials // 4))


def whole_trials(trials: int) -> float:
    """So many whole runs `trials` trials take, as some are pruned."""
    late = max(0, trials - startup(trials))
    return trials - late * PRUNED * (1 - PRUNED_AT)


def likely_epochs(config: Any) -> int:
    """Epochs that a run with these settings is expected to take."""
    epochs, patience = getattr(config, "epochs", 1), getattr(config, "patience", 0)
    return min(epochs, math.ceil(epochs * BEST_AT) + patience * config.validate_every) if patience else epochs


def level(needs: Sequence[float], rest: float) -> float:
    """The largest L for which the sum of min(L, need) is at most `rest`; infinite where all needs fit."""
    for n, need in enumerate(sorted(needs)):
        if need * (len(needs) - n) > rest:
            return max(rest, 0.0) / (len(needs) - n)
        rest -= need
    return math.inf


def _half(share: float) -> str:
    return "half" if share == 0.5 else f"{100 * share:.0f} %"


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def timed(bench: Bench, system: str, config: Any, *, trials: int, seeds: int, space: Space, refit: bool, memory: int) -> PlanRow:
    """What `system` costs, measured on a part of a fit."""
    cls = registry.find(system)
    took = bench.timing(cls, config)
    layers = space.get("layers")
    slower = max(1.0, layers.high / config.layers) if isinstance(layers, Range) and config.layers else 1.0
    return PlanRow(
        system=system, trained=cls.trained, seeds=seeds, trials=trials, epochs=getattr(config, "epochs", 1),
        likely=likely_epochs(config) if cls.trained else 1, validate_every=getattr(config, "validate_every", 1), start=took.start, epoch=took.epoch,
        validation=took.validation, test=took.test, slower=slower, refit=refit, memory=memory,
    )  # fmt: skip


def make_plan(rows: list[PlanRow], trials: int, budget: float | None, timing: float, page: float = PAGE) -> Plan:
    """The estimate, and what a budget of so many seconds is expected to hold; `timing` and `page` are spent beside trials and seeds.

    Raises SettingError where not even the fewest trials and all seeds fit at one epoch.
    """
    beside = timing + page
    expected, worst = beside + sum(row.expected() for row in rows), beside + sum(row.worst() for row in rows)
    seeds = sum(row.seeds * row.seed for row in rows)
    planned = {row.system: row.trials for row in rows}
    at_most = worst if budget is None else min(worst, budget)
    made = Plan(
        rows=rows, trials=trials, budget=budget, timing=timing, page=page, expected=expected, at_most=at_most, reserved=seeds, planned=planned
    )
    if budget is None or expected <= MARGIN * budget:
        return made
    rest = MARGIN * budget - beside
    least = sum(row.least for row in rows)
    if least > rest:
        parts = [_count(min(trials, LEAST_TRIALS), "trial")] * (trials > 0) + ["the seeds"] * any(row.seeds for row in rows)
        wanted = " and ".join(parts) + (" of every system" if len(rows) > 1 else "")
        raise SettingError(
            f"A budget of {duration(budget)} cannot hold {wanted} (at one epoch each that takes about {duration((least + beside) / MARGIN)}): "
            "raise --budget, or ask for fewer systems or seeds."
        )
    reserved = min(seeds, max(SEEDS_PART * rest, rest - sum(row.trials * row.trial for row in rows)))
    share = level([row.trials * row.trial for row in rows], rest - reserved)
    for row in rows:
        if row.trials and row.trials * row.trial > share:
            planned[row.system] = max(min(row.trials, LEAST_TRIALS), int(share / row.trial))
    notes = []
    short = ", ".join(f"{name} about {n} of {row.trials}" for row in rows if (n := planned[name := row.system]) < row.trials)
    if short:
        notes.append(
            f"The budget binds: every system has the same share of time for its trials and at least {LEAST_TRIALS} of them; what quick systems leave goes "
            f"to slow ones. Trials expected to fit: {short}."
        )
    if reserved:
        notes.append(f"{duration(reserved)} are kept for the seeds. What the deadline stops keeps its best weights so far and is marked.")
    return made.model_copy(update={"reserved": reserved, "planned": planned, "notes": notes})


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
