"""What a comparison measures beside its table, in the same folder and budget: what content does (lab.worth) and what the split does (lab.resplit)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitrail.errors import SettingError
from vitrail.lab import resplit as splits
from vitrail.lab import worth as content
from vitrail.lab.bench import Bench, Clock, duration
from vitrail.lab.plan import MARGIN, PAGE, Plan, PlanRow, level
from vitrail.lab.rank_bench import RankBench
from vitrail.lab.seeds import Seat
from vitrail.systems import registry
from vitrail.train.loop import Left

PART = 0.3
"""Share of a budget that is kept for what is measured beside the table, where it needs it; it has what trials and seeds leave too."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Beside:
    """What is asked for beside the table."""

    bench: Bench
    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """systems whose content is changed -> names of the vectors they read"""
    retrain: bool = False
    """these systems are fitted anew without each kind, too"""
    splits: Sequence[Bench] = ()
    refit: bool = False

    @classmethod
    def asked(cls, bench: Bench, configs: Mapping[str, Any], content: bool, retrain: bool, also_split: Sequence[str], refit: bool) -> Beside:
        """Raises VitrailError, before anything is run: no system reads content, a split that cannot be used."""
        if retrain and not content:
            raise SettingError("--retrain fits systems anew without each kind of content, which is a part of --content: add that, or leave it out.")
        kinds = {name: tuple(names) for name, config in configs.items() if (names := registry.find(name).wants(config).vectors)} if content else {}
        if content and isinstance(bench, RankBench):
            raise SettingError("--content changes what systems that retrieve have read of items, and these are rankers: leave it out.")
        if content and not kinds:
            raise SettingError("--content needs a system that reads content vectors, and none of these does: add one, e.g. content-knn, or leave it out.")
        return cls(bench, kinds, retrain, splits.open_splits(bench, list(configs), also_split, refit), refit)

    def needs(self, rows: Sequence[PlanRow], folder: Path) -> tuple[float, float]:
        """Seconds expected for content and for further splits, of what is not there yet about."""
        by_name = {row.system: row for row in rows}
        seeds = {name: range(by_name[name].seeds) for name in self.kinds}
        jobs = content.jobs_of(self.kinds, seeds, self.retrain)
        one = sum(content.seconds_of(job, by_name[job.system]) for job in jobs)
        fits = [job for job in splits.jobs_of(self.bench, self.splits, rows, folder) if not (job.run / "evaluation.json").exists()]
        there = sum(len(list((folder / name / "content").glob("*.json"))) for name in self.kinds)
        return one * max(0.0, 1 - there / len(jobs)) if jobs else 0.0, sum(job.row.seed for job in fits)

    def kept(self, needs: tuple[float, float], budget: float | None) -> float:
        """Seconds of a budget that trials and seeds leave to it; all it needs where there is none."""
        return sum(needs) if budget is None else min(sum(needs), PART * budget)

    def words(self, rows: Sequence[PlanRow], needs: tuple[float, float], budget: float | None, where: str) -> list[str]:
        """The estimate for people, of what is still to be done; `where` it stands begins each sentence."""
        told = []
        if self.kinds and needs[0]:
            seeds = {row.system: range(row.seeds) for row in rows}
            count = len(content.jobs_of(self.kinds, seeds, self.retrain))
            anew = ", some of them of fits without a kind" if self.retrain else ""
            told.append(f"{where}: what content does, {count:,} measurements of {len(self.kinds)} systems{anew}, about {duration(needs[0])}.")
        if self.splits and needs[1]:
            named = " and ".join(own.settings.text for own in self.splits)
            told.append(f"{where}: what the split does, {len(rows)} systems fitted once under {named}, about {duration(needs[1])}.")
        if told and budget is not None and sum(needs) > PART * budget:
            told.append(f"Of the budget {duration(PART * budget)} are kept for this, and what trials and seeds leave; what does not fit will be named.")
        return told

    def measure(
        self, folder: Path, plan: Plan, chosen: Mapping[str, Mapping[str, Any]], seats: Mapping[str, Sequence[Seat]], seed: int, clock: Clock, say: Say
    ) -> tuple[dict[str, Any], int]:
        """Measure what is not there yet, in what is left of the budget: `content` and `splits` for the result, and how much was done now."""
        found: dict[str, Any] = {}
        done, needs = 0, self.needs(plan.rows, folder)
        limit = math.inf if plan.budget is None else MARGIN * plan.budget - PAGE
        if self.kinds:
            end = limit
            if limit < math.inf:
                rest = limit - clock.spent
                share = level(needs, rest)
                end = clock.spent + (rest - needs[1] if share == math.inf else share)
            rows = {row.system: row for row in plan.rows}
            found["content"], made = content.worth(
                self.bench, folder, self.kinds, seats, rows, self.retrain, _left(clock, end), say, clock.save
            )  # fmt: skip
            done += made
        if self.splits:
            jobs = splits.jobs_of(self.bench, self.splits, plan.rows, folder)
            found["splits"], made = splits.resplit(
                self.bench, self.splits, jobs, chosen, seats, seed, self.refit, _left(clock, limit), plan.budget, say, clock.save
            )
            done += made
        return found, done


def _left(clock: Clock, end: float) -> Left | None:
    return None if end == math.inf else lambda: end - clock.tick()
