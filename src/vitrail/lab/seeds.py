"""The seeds of a comparison: each fitted with the chosen settings and measured on the test part once; their scores averaged a user at a time."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from vitrail.errors import ArtifactError
from vitrail.evaluation.binary import RankEvaluation
from vitrail.evaluation.evaluator import Evaluation, clusters_of
from vitrail.evaluation.intervals import bootstrap_ci
from vitrail.files import atomic_file, read_json, write_json
from vitrail.lab.bench import Bench, PeakMemory
from vitrail.train.fit import evaluate_run, fit
from vitrail.train.loop import Left

USERS = "users"


@dataclass
class Seat:
    """One system with one seed."""

    system: str
    seed: int
    evaluation: Evaluation
    cost: dict[str, Any]
    """fit_seconds (training alone), wall_seconds and cpu_seconds (the whole fit), evaluate_seconds, users_per_second, peak_memory (bytes), parameters,
    epochs, cut (whether a deadline stopped it) and the budget (seconds) that set the deadline"""


def settled(folder: Path, budget: float | None) -> bool:
    """Whether a seed was measured and there is nothing to go on with: it came to its end, or there is no larger budget than when it was stopped."""
    file = folder / "evaluation.json"
    if not file.exists():
        return False
    cost = read_json(file)["cost"]
    return not cost.get("cut") or not (budget is None or budget > (cost.get("budget") or 0.0))


def seat(
    bench: Bench, system: str, settings: Mapping[str, Any], seed: int, folder: Path, refit: bool, left: Left | None = None, budget: float | None = None
) -> Seat:
    """Fit, in the seconds that `left` tells, and measure; or read what was measured before: the test part is looked at once.

    What a deadline stopped goes on, and is measured again, where `budget` (seconds) is larger than it was.
    """
    if settled(folder, budget):
        return read_seat(folder)
    before = _reopen(folder) if (folder / "evaluation.json").exists() else {}
    peak = PeakMemory()
    peak.start()
    began, worked = time.perf_counter(), time.process_time()
    hidden = bench.quiet or not sys.stderr.isatty()
    result = fit(
        system, bench.dataset, split=bench.settings, protocol=bench.asked, out=folder, seed=seed, resume=True, settings=settings, refit=refit,
        device=bench.device, quiet=hidden, left=left,
    )  # fmt: skip
    wall, worked = time.perf_counter() - began, time.process_time() - worked
    info = result.recommender.info
    del result
    evaluation = evaluate_run(folder, data=bench.dataset, metrics=bench.metrics)
    cost = {
        "fit_seconds": info["seconds"],
        "wall_seconds": round(wall + before.get("wall_seconds", 0.0), 3),
        "cpu_seconds": round(worked + before.get("cpu_seconds", 0.0), 3),
        "evaluate_seconds": evaluation.seconds,
        "users_per_second": evaluation.users_per_second,
        "peak_memory": peak.bytes(),
        "parameters": info["parameters"],
        "epochs": info["epochs"],
        "cut": bool(info.get("cut")),
        "budget": budget,
    }
    write_seat(folder, Seat(system, seed, evaluation, cost))
    return Seat(system, seed, evaluation, cost)


def _reopen(folder: Path) -> dict[str, Any]:
    """Make a run that a deadline stopped ready to go on from its checkpoint; what it cost so far."""
    cost: dict[str, Any] = read_json(folder / "evaluation.json")["cost"]
    for name in ("artifact", "refit"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "evaluation.json").unlink()
    return cost


def write_seat(folder: Path, made: Seat) -> None:
    """`values.safetensors` (users (Q,) codes, and the value (Q,) of each query by metric), then `evaluation.json`, which says that all is there."""
    arrays = {name: np.ascontiguousarray(values, dtype=np.float64) for name, values in made.evaluation.values.items()}
    with atomic_file(folder / "values.safetensors") as temporary:
        save_file({USERS: np.ascontiguousarray(made.evaluation.user_codes), **arrays}, temporary)
    write_json(folder / "evaluation.json", {"system": made.system, "seed": made.seed, "evaluation": made.evaluation.as_json(), "cost": made.cost})


def read_seat(folder: Path) -> Seat:
    """Raises ArtifactError where a file is damaged."""
    record = read_json(folder / "evaluation.json")
    try:
        arrays = load_file(folder / "values.safetensors")
        kind = RankEvaluation if "rows" in record["evaluation"] else Evaluation
        evaluation = kind.of(record["evaluation"], where=str(folder / "evaluation.json"))
    except (OSError, SafetensorError, KeyError, TypeError):
        raise ArtifactError(f"{folder} holds a damaged evaluation: remove evaluation.json there and run again.") from None
    evaluation._user_codes = arrays.pop(USERS)
    evaluation._values.update(arrays)
    return Seat(record["system"], record["seed"], evaluation, record["cost"])


def averaged(name: str, seats: Sequence[Seat]) -> Evaluation:
    """One evaluation of a system: the scores of each user averaged over seeds, intervals over users of those means."""
    found = [s.evaluation for s in seats]
    first = found[0]
    values = {metric: np.mean([e.values[metric] for e in found], axis=0) for metric in first.values}
    means = {metric: statistics.fmean(e.metrics[metric] for e in found) for metric in first.metrics if all(metric in e.metrics for e in found)}
    clusters = clusters_of(first.user_codes)
    ci = first.ci if len(found) == 1 else {metric: bootstrap_ci(values[metric], clusters=clusters) for metric in means if metric in values}
    slices = {
        piece: {key: statistics.fmean(e.slices[piece][key] for e in found) for key in row} for piece, row in first.slices.items()
    }  # the same queries and targets for every seed
    made = first.model_copy(
        update={
            "system": name,
            "metrics": means,
            "ci": ci,
            "slices": slices,
            "seconds": statistics.fmean(e.seconds for e in found),
            "users_per_second": statistics.fmean(e.users_per_second for e in found),
            "warnings": list(dict.fromkeys(w for e in found for w in e.warnings)),
        }
    )
    made._values = values
    made._user_codes = first.user_codes
    return made


def spread(seats: Sequence[Seat]) -> dict[str, float]:
    """metric -> standard deviation over seeds; empty for one."""
    if len(seats) < 2:
        return {}
    return {metric: statistics.stdev(s.evaluation.metrics[metric] for s in seats) for metric in seats[0].evaluation.metrics}
