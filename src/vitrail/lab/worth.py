"""What content does for the systems of a comparison: each kind left out, missing for some items, or noisy, over the seeds that were fitted.

Every seed has draws of its own. The weights stay as they were fitted; with `retrain` each system is also fitted anew without each kind.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.errors import ArtifactError, DataError, ResourceError, VitrailError
from vitrail.evaluation.plots import label
from vitrail.files import fingerprint, read_json, write_json
from vitrail.funnel.recommender import Recommender, load
from vitrail.lab.bench import Bench
from vitrail.lab.modalities import measured
from vitrail.lab.plan import OVERHEAD, PlanRow
from vitrail.lab.seeds import Seat
from vitrail.train.loop import Left

MISSING = (0.25, 0.5, 0.75)
"""Shares of the items of a kind that lose it."""
NOISE = (0.5, 1.0, 2.0)
"""Standard deviations of the noise, as shares of a vector's root mean square."""
DRAWS = 3
"""Draws of which items lose their content, and of the noise, over all seeds at least."""
ANEW = "anew"
"""Without the kind from the start: a fit of its own."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One measurement of a seed over changed content."""

    system: str
    seed: int
    what: str
    """without, missing, noise, or ANEW"""
    kind: str
    level: float
    draw: int


def draws_of(seeds: int) -> int:
    """Draws of each of so many seeds."""
    return math.ceil(DRAWS / seeds)


def jobs_of(kinds: Mapping[str, Sequence[str]], seeds: Mapping[str, Sequence[int]], retrain: bool) -> list[Job]:
    """What is to be measured; seed after seed and the most telling first, so that where time ends every system has about the same. `kinds`: system -> names of
    its vectors; `seeds`: system -> its seeds."""
    made = []
    for turn in range(max((len(own) for own in seeds.values()), default=0)):
        for what, levels in (("without", (1.0,)), ("missing", MISSING), ("noise", NOISE)):
            for system, names in kinds.items():
                for seed in seeds[system][turn : turn + 1]:
                    draws = 1 if what == "without" else draws_of(len(seeds[system]))
                    first = turn * draws  # no two seeds have the same draw
                    made += [Job(system, seed, what, kind, level, draw) for kind in names for level in levels for draw in range(first, first + draws)]
    return made + [Job(system, seeds[system][0], ANEW, kind, 1.0, 0) for system, names in kinds.items() if retrain for kind in names]


def seconds_of(job: Job, row: PlanRow) -> float:
    """Seconds that a measurement is expected to take, as planned."""
    return row.start + row.test + OVERHEAD + (row.run(row.likely, row.typical) if job.what == ANEW else 0.0)


def worth(
    bench: Bench, folder: Path, kinds: Mapping[str, Sequence[str]], seats: Mapping[str, Sequence[Seat]], rows: Mapping[str, PlanRow], retrain: bool,
    left: Left | None, say: Say, save: Callable[[], None],
) -> tuple[dict[str, Any], int]:  # fmt: skip
    """Measure what is not measured yet, in the seconds that `left` tells; the record, and how many were measured now. `save` is called now and then."""
    jobs = jobs_of(kinds, {name: [s.seed for s in seats[name]] for name in kinds}, retrain)
    found: dict[Job, dict[str, Any]] = {}
    took: dict[tuple[str, bool], list[float]] = {}
    late: list[Job] = []
    failed: dict[str, str] = {}
    opened: tuple[Path, Recommender] | None = None
    made = 0
    for job in jobs:
        run = folder / job.system / f"seed-{job.seed}"
        key = [read_json(run / "artifact" / "manifest.json")["files"], job.what, job.kind, job.level, job.draw, bench.metric]
        file = folder / job.system / "content" / f"{fingerprint(key)}.json"
        if not file.exists():
            which = (job.system, job.what == ANEW)
            need = statistics.fmean(took[which]) if which in took else seconds_of(job, rows[job.system])
            trained = rows[job.system].trained and job.what == ANEW
            if left is not None and left() < (seconds_of(job, rows[job.system].model_copy(update={"likely": 1})) if trained else need):
                late.append(job)
                continue
            began = time.perf_counter()
            if opened is None or opened[0] != run:
                opened = (run, load(run))
            what = "without" if job.what == ANEW else job.what
            change, deadline = (what, job.kind, job.level, job.draw), left if trained else None
            try:
                write_json(file, measured(opened[1], change, bench.dataset, bench.metric, job.what == ANEW, bench.device, deadline))
            except (ResourceError, DataError, ArtifactError):
                raise
            except VitrailError as error:  # such as scores that are no numbers, of a system that cannot do without
                failed.setdefault(job.system, str(error))
                continue
            took.setdefault(which, []).append(time.perf_counter() - began)
            made += 1
            save()
            if job.what != "missing" and job.what != "noise":
                value = read_json(file)["value"]
                say(f"  {job.system}, seed {job.seed}, {'fitted anew ' if job.what == ANEW else ''}without {job.kind}: test {bench.metric} {value:.4f}")
        found[job] = read_json(file)
    return record(bench, kinds, seats, found, late, retrain, failed), made


def record(
    bench: Bench, kinds: Mapping[str, Sequence[str]], seats: Mapping[str, Sequence[Seat]], found: Mapping[Job, Mapping[str, Any]], late: Sequence[Job],
    retrain: bool, failed: Mapping[str, str],
) -> dict[str, Any]:  # fmt: skip
    """`rows` of {system, what, kind, level, mean, sd, share, n, cut}: means over seeds and draws, `share` of what the same seeds reach with all content;
    `still`: systems that nothing moved; `late`: what there was no time for, system -> measurements; `failed`: system -> why the first of its measurements that
    could not be made was not; `sentences`."""
    metric = bench.metric
    wholes = {name: {s.seed: s.evaluation.metrics[metric] for s in seats[name]} for name in kinds}
    groups: dict[tuple[str, str, str, float], list[Job]] = {}
    for job in found:
        groups.setdefault((job.system, job.what, job.kind, job.level), []).append(job)
    order = {what: n for n, what in enumerate(("without", ANEW, "missing", "noise"))}
    rows = []
    for system, what, kind, level in sorted(groups, key=lambda g: (list(kinds).index(g[0]), kinds[g[0]].index(g[2]), order[g[1]], g[3])):
        own = groups[system, what, kind, level]
        values = [found[job]["value"] for job in own]
        whole = sum(wholes[system][job.seed] for job in own)
        rows.append({
            "system": system, "what": what, "kind": kind, "level": level, "mean": statistics.fmean(values),
            "sd": statistics.stdev(values) if len(values) > 1 else None, "share": sum(values) / whole if whole else None, "n": len(values),
            "cut": any(found[job].get("cut") for job in own),
        })  # fmt: skip
    after = {name: [found[job]["moved"] for job in found if job.system == name and job.what != ANEW] for name in kinds}
    still = [name for name, moves in after.items() if moves and not any(moves)]
    result = {
        "metric": metric, "kinds": {name: list(names) for name, names in kinds.items()}, "missing": list(MISSING), "noise": list(NOISE), "retrain": retrain,
        "whole": {name: statistics.fmean(own.values()) for name, own in wholes.items()}, "rows": rows, "still": still,
        "failed": dict(failed), "late": {name: sum(job.system == name for job in late) for name in dict.fromkeys(job.system for job in late)},
    }  # fmt: skip
    return {**result, "sentences": sentences(result)}


def sentences(result: Mapping[str, Any]) -> list[str]:
    """What losing each kind costs, in words."""
    told, metric, still = [], label(result["metric"]), result["still"]
    for what, how in (("without", "after the fit"), (ANEW, "from the start (fitted anew)")):
        for kind in dict.fromkeys(kind for own in result["kinds"].values() for kind in own):
            own = [row for row in result["rows"] if (row["what"], row["kind"]) == (what, kind) and row["share"] is not None]
            own = [row for row in own if what == ANEW or row["system"] not in still]
            if not own:
                continue
            worst, best = min(own, key=lambda row: row["share"]), max(own, key=lambda row: row["share"])
            keeps = f"{worst['system']} keeps {100 * worst['share']:.0f} % of its {metric} ({worst['mean']:.4f} of {worst['mean'] / (worst['share'] or 1):.4f})"
            told.append(f"Without {kind} {how}, {keeps}" + (f", {best['system']} {100 * best['share']:.0f} %." if best is not worst else "."))
    if still:
        more = "" if result["retrain"] else "; what it is worth there, --retrain tells"
        told.append(f"Nothing that is done to content after the fit moves {_names(still)}: it was read in training only{more}.")
    told += [f"Some of {name} could not be measured over changed content: {why}" for name, why in result["failed"].items()]
    if result["late"]:
        named = ", ".join(f"{name} ({count})" for name, count in result["late"].items())
        told.append(f"There was no time for these measurements over changed content: {named}; the same command with a larger --budget goes on.")
    return told


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
