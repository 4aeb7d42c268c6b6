"""The budget while it is spent: before every trial and every seed the time that is left is shared out anew.

The rule. The same number of trials for every system; where the clock binds, the same share of time for every system and at least LEAST_TRIALS
trials. A system that needs less than its share leaves the rest to the others. A part is kept for the seeds, and what tuning leaves is theirs
too. What a deadline stops keeps its best weights so far and is marked: its number is a lower bound.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from vitrail.lab.bench import Clock, duration
from vitrail.lab.plan import LEAST_TRIALS, MARGIN, SEEDS_PART, Plan, level
from vitrail.lab.seeds import Seat
from vitrail.lab.tuner import Attempt, Tuner
from vitrail.train.loop import Left

SLACK = 1.2
"""So many times the expected seconds of a trained seed are kept for it: seeds stop at different epochs."""


class Pace:
    """Which trial is next, and how many seconds a trial or a seed has."""

    def __init__(self, plan: Plan, tuners: Mapping[str, Tuner], clock: Clock) -> None:
        self.plan, self.tuners, self.clock = plan, tuners, clock
        self.rows = {row.system: row for row in plan.rows}
        self.limit = math.inf if plan.budget is None else MARGIN * plan.budget - plan.page
        """seconds for the timing, the trials and the seeds"""
        self.took: dict[str, list[float]] = {}
        """seconds of the seeds that came to their end, a system each"""

    def next(self) -> tuple[Tuner, Left | None] | None:
        """The trial to make now and the seconds it has; none where all are made, or time is up."""
        unfinished = [tuner for tuner in self.tuners.values() if not tuner.finished]
        if not unfinished:
            return None
        if self.limit == math.inf:
            return min(unfinished, key=lambda t: len(t.attempts)), None
        rest = self.limit - self.clock.spent - self.reserved()
        spent = {name: _spent(tuner.attempts) for name, tuner in self.tuners.items()}
        right = self._rights(spent, rest)
        short = [tuner for tuner in unfinished if len(tuner.attempts) < _least(tuner)]
        if short:
            tuner = min(short, key=lambda t: len(t.attempts))
            row = self.rows[tuner.system]
            seconds = (right[tuner.system] - spent[tuner.system]) / (_least(tuner) - len(tuner.attempts))
            return tuner, self._until(max(seconds - 2 * row.validation, row.start + row.epoch))
        fits = [t for t in unfinished if self.trial(t) <= right[t.system] - spent[t.system]]
        if fits:
            tuner = min(fits, key=lambda t: spent[t.system])
            return tuner, self._until(right[tuner.system] - spent[tuner.system])
        fits = [t for t in unfinished if self.trial(t) <= rest]  # nobody has a share for a whole trial, but there is time for one
        if not fits:
            return None
        tuner = min(fits, key=lambda t: spent[t.system])
        return tuner, self._until(rest)

    def seat(self, systems: Sequence[str]) -> Left | None:
        """The seconds that the next seed has for its training. `systems`: of all seeds still to be fitted, the next one first."""
        if self.limit == math.inf:
            return None
        rest, needs = self.limit - self.clock.spent, [self.seed(name) for name in systems]
        share = level(needs, rest)
        row = self.rows[systems[0]]
        seconds = rest - sum(needs[1:]) if share == math.inf else share
        return self._until(max(seconds - row.tail, row.epoch))

    def trial(self, tuner: Tuner) -> float:
        """Seconds that another trial is expected to take: as planned, then as measured."""
        planned = self.rows[tuner.system].trial
        took = [max(a.seconds, planned) if a.state == "cut" else a.seconds for a in tuner.attempts if a.seconds]
        return statistics.fmean(took) if took else planned

    def seed(self, system: str) -> float:
        """Seconds that a seed is expected to take, fit and test: as planned, as the best trial took, then as the seeds before took."""
        row, best = self.rows[system], self.tuners[system].best()
        if system in self.took:
            return statistics.fmean(self.took[system])
        expected = row.seed
        if best is not None:
            tried = best.seconds * (2 if row.refit else 1) + row.test
            expected = max(tried, expected) if best.state == "cut" else tried
        return expected * (SLACK if row.trained else 1.0)

    def reserved(self) -> float:
        """Seconds that tuning leaves to the seeds: what they need, but at most their part."""
        needs = sum(row.seeds * self.seed(row.system) for row in self.plan.rows)
        least = sum(row.seeds * row.final(1) for row in self.plan.rows)
        return min(needs, max(SEEDS_PART * (self.limit - self.plan.timing), least))

    def _rights(self, spent: Mapping[str, float], rest: float) -> dict[str, float]:
        """The seconds of tuning that each system may have in all, those it has spent among them; `rest` is what is left for all.

        Systems that went over the common share have what they spent, and the others share the rest.
        """
        need = {name: spent[name] + self._trials_left(tuner) * self.trial(tuner) for name, tuner in self.tuners.items()}
        free, time = set(need), sum(spent.values()) + rest
        share = level([need[name] for name in free], time)
        while over := {name for name in free if spent[name] > share}:
            free -= over
            time -= sum(spent[name] for name in over)
            share = level([need[name] for name in free], time)
        if share == math.inf:  # all that is expected fits, and what is left over beside it may go to any
            over_all = time - sum(need[name] for name in free)
            return {name: need[name] + over_all if name in free else spent[name] for name in need}
        return {name: share if name in free else spent[name] for name in need}

    @staticmethod
    def _trials_left(tuner: Tuner) -> int:
        return 0 if tuner.finished else tuner.trials - len(tuner.attempts)

    def _until(self, seconds: float) -> Left:
        end = self.clock.spent + seconds
        return lambda: end - self.clock.tick()


def _least(tuner: Tuner) -> int:
    return min(LEAST_TRIALS, tuner.trials)


def _spent(attempts: Sequence[Attempt]) -> float:
    return sum(a.seconds for a in attempts)


def held(plan: Plan, tuners: Mapping[str, Tuner], seats: Mapping[str, Sequence[Seat]]) -> list[str]:
    """What the budget cut, in sentences; nothing where it cut nothing."""
    if plan.budget is None:
        return []
    lines = []
    fewer = [f"{name} {len(tuner.attempts)}" for name, tuner in tuners.items() if not tuner.finished]
    if fewer:
        rule = " (the same share of time for every system)" if len(tuners) > 1 else ""
        lines.append(f"Held to a budget of {duration(plan.budget)}: of {plan.trials} trials there was time for {', '.join(fewer)}{rule}.")
    stopped = [f"{count} of {name}" for name, tuner in tuners.items() if (count := sum(a.state == "cut" for a in tuner.attempts))]
    if stopped:
        lines.append(f"Trials that the deadline stopped, each with its best weights so far: {', '.join(stopped)}.")
    return [*lines, *(f"{text} The same command with a larger --budget goes on with them." for text in cut_seeds(seats))]


def cut_seeds(seats: Mapping[str, Sequence[Seat]]) -> list[str]:
    """Which runs a deadline stopped, in a sentence; nothing where it stopped none."""
    runs = []
    for name, own in seats.items():
        cut = [s for s in own if s.cost.get("cut")]
        if cut:
            runs.append(f"{name} ({'seed' if len(cut) == 1 else 'seeds'} {', '.join(str(s.seed) for s in cut)}, of {len(own)})")
    why = "Stopped by the deadline before they were finished, so that their numbers are lower bounds"
    return [f"{why}: {', '.join(runs)}."] if runs else []
