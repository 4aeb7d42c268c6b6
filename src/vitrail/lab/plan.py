"""How long a comparison takes: one epoch and one validation of each system are timed on the real split before anything starts."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch

from vitrail.config import Settings
from vitrail.errors import SettingError
from vitrail.lab.bench import Bench, duration
from vitrail.lab.space import Range, Space
from vitrail.systems import registry
from vitrail.train.loop import train

SURE_TRIALS = 2
"""A budget that cannot hold so many trials of every system at all epochs cuts the epochs."""
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

    def run(self, epochs: int | None = None) -> float:
        """A fit to its last epoch with all validations."""
        n = epochs or self.epochs
        return self.start + n * self.epoch * self.slower + (math.ceil(n / self.validate_every) + 2) * self.validation + OVERHEAD

    def final(self, epochs: int | None = None) -> float:
        """A fit of a seed, and its test."""
        n = epochs or self.epochs
        return self.run(n) + (self.start + n * self.epoch * self.slower if self.refit else 0.0) + self.test

    def total(self, trials: int, epochs: int | None = None) -> float:
        """Everything for this system."""
        return min(trials, self.trials) * self.run(epochs) + self.seeds * self.final(epochs)


class Plan(Settings):
    """What will be done, and how long it takes at most."""

    rows: list[PlanRow]
    trials: int
    budget: float | None
    """seconds"""
    timing: float
    """seconds spent on timing, and on the page"""
    at_most: float
    """seconds, if no run stops early and every trial is made"""
    epochs: dict[str, int]
    """epochs at most of each trained system, after the cut"""
    sure: int
    """trials of each system that fit in the budget even if no run stops early, at the speed that was measured"""
    notes: list[str] = []
    """what was cut"""

    def words(self) -> list[str]:
        """The plan for people."""
        lines = []
        for row in self.rows:
            trials = f"{row.trials} trials and " if row.trials else ""
            times = f"epoch {_time(row.epoch)}, at most {self.epochs[row.system]} epochs" if row.trained else f"fit {_time(row.epoch)}"
            fits = f"{row.seeds} {'seeds' if row.seeds > 1 else 'fit (the seed moves nothing)' if not row.trained else 'seed'}"
            memory = f", about {row.memory / 2**20:,.0f} MiB" if row.memory else ""
            total = row.total(self.trials, self.epochs[row.system] if row.trained else None)
            lines.append(f"  {row.system}: {times}, validation {_time(row.validation)}; {trials}{fits}: at most {duration(total)}{memory}")
        early = "; runs that stop early take less" if any(row.trained for row in self.rows) else ""
        within = f", held to a budget of {duration(self.budget)}" if self.budget is not None else ""
        return [*lines, f"In all at most {duration(self.at_most)}{within}{early}.", *self.notes]


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def timed(bench: Bench, system: str, config: Any, *, trials: int, seeds: int, space: Space, refit: bool, memory: int) -> PlanRow:
    """Fit one epoch (or the whole closed form) and validate once."""
    cls = registry.find(system)
    fitter = bench.fitter(0)
    clock = time.perf_counter
    began = clock()
    model, _ = fitter.build(cls, config, bench.sizes(cls, config), bench.split.train)
    start = clock() - began
    if cls.trained:
        progress = train(model, bench.split.train, config.but({"epochs": 1}), seed=0, validate=None, device=torch.device(bench.device)).progress
        epoch = progress.seconds
    else:
        began = clock()
        model.learn(bench.split.train)
        epoch = clock() - began
    part, validation = bench.split.valid, 0.0
    if part is not None:
        began = clock()
        fitter.measure(model, part, [bench.metric])
        validation = clock() - began
    asked = len(bench.split.test or ())
    layers = space.get("layers")
    slower = max(1.0, layers.high / config.layers) if isinstance(layers, Range) and config.layers else 1.0
    return PlanRow(
        system=system, trained=cls.trained, seeds=seeds, trials=trials,
        epochs=getattr(config, "epochs", 1), validate_every=getattr(config, "validate_every", 1), start=start, epoch=epoch, validation=validation,
        test=0.1 + 3 * validation * asked / max(len(part or ()), 1), slower=slower, refit=refit, memory=memory,
    )  # fmt: skip


def make_plan(rows: list[PlanRow], trials: int, budget: float | None, timing: float) -> Plan:
    """Fit what was asked into `budget` seconds: epochs are cut by one share for every trained system, trials in rounds while time lasts.

    Raises SettingError where not even one trial and all seeds fit at one epoch.
    """
    epochs = {row.system: row.epochs for row in rows}
    timing += PAGE
    whole = timing + sum(row.total(trials) for row in rows)
    if budget is None or whole <= MARGIN * budget:
        return Plan(rows=rows, trials=trials, budget=budget, timing=timing, at_most=whole, epochs=epochs, sure=trials)
    rest = MARGIN * budget - timing
    least = min(trials, SURE_TRIALS)
    notes = []
    if _total(rows, least, epochs) > rest:
        share = _share(rows, least, rest)
        if share is None:
            need = timing + _total(rows, least, {row.system: 1 for row in rows})
            raise SettingError(
                f"A budget of {duration(budget)} cannot hold {_count(least, 'trial')} and the seeds of every system (at one epoch each that takes about "
                f"{duration(need)}): raise --budget, or ask for fewer systems or seeds."
            )
        epochs = {row.system: max(1, int(row.epochs * share)) if row.trained else 1 for row in rows}
        cut = ", ".join(f"{row.system} {row.epochs} to {epochs[row.system]}" for row in rows if row.trained and epochs[row.system] < row.epochs)
        notes.append(f"Cut to hold the budget: epochs at most, the same share of every trained system: {cut}.")
    sure = least
    while sure < trials and _total(rows, sure + 1, epochs) <= rest:
        sure += 1
    if sure < trials:
        notes.append(
            f"Of {trials} trials a system, {sure} fit the budget at the speed just measured even if no run stops early; they are made in rounds, "
            "one of each system, as long as time lasts: every system gets the same number."
        )
    at_most = min(budget, timing + _total(rows, trials, epochs))
    return Plan(rows=rows, trials=trials, budget=budget, timing=timing, at_most=at_most, epochs=epochs, sure=sure, notes=notes)


def _total(rows: list[PlanRow], trials: int, epochs: Mapping[str, int]) -> float:
    return sum(row.total(trials, epochs[row.system] if row.trained else None) for row in rows)


def _share(rows: list[PlanRow], trials: int, rest: float) -> float | None:
    """The largest share of the epochs that fits in `rest` seconds; none where not even one epoch does."""
    low, high = 0.0, 1.0
    if _total(rows, trials, {row.system: 1 for row in rows}) > rest:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        fits = _total(rows, trials, {row.system: max(1, int(row.epochs * middle)) for row in rows}) <= rest
        low, high = (middle, high) if fits else (low, middle)
    return low


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
