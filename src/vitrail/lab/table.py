"""The result of a comparison as one record: rows, tests, effects, sentences, slices, what was chosen, what it cost, what others published."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vitrail
from vitrail.errors import SettingError, VitrailError
from vitrail.evaluation.compare import Comparison, comparison
from vitrail.evaluation.evaluator import Evaluation, clusters_of
from vitrail.lab.bench import Bench
from vitrail.lab.plan import Plan
from vitrail.lab.seeds import Seat, averaged, spread
from vitrail.lab.sentences import effect, sentences
from vitrail.lab.tuner import Tuned
from vitrail.systems import registry


def gather(
    bench: Bench, seats: Mapping[str, Sequence[Seat]], tuned: Mapping[str, Tuned], plan: Plan | None, cut: Sequence[str], *,
    baseline: str | None, tests: bool, published: Mapping[str, list[dict[str, Any]]], command: str, spent: float, notes: Sequence[str] = (),
) -> tuple[dict[str, Any], list[Evaluation], Comparison]:  # fmt: skip
    """The record, the averaged evaluation of each system, and the comparison between them. What varies from run to run stands under `cost`; `cut`
    says what a budget cut, `notes` what else is to be known."""
    evaluations = [averaged(name, own) for name, own in seats.items()]
    metric = bench.metric
    compared = outcome(evaluations, metric, baseline, tests)
    warnings = [*notes, *compared.warnings]
    for name, found in tuned.items():
        failed = [a.note for a in found.trials if a.state == "failed"]
        if failed:
            warnings.append(f"{len(failed)} of {len(found.trials)} trials of {name} could not be fitted: {failed[0]}")
    compared = compared.model_copy(update={"warnings": warnings})
    result = {
        **summary(compared, evaluations, seats),
        "fingerprint": bench.fingerprint,
        "split": bench.split.settings,
        "seeds": sorted({s.seed for own in seats.values() for s in own}),
        "refit": bench.protocol.refit,
        "tuning": {name: found.model_dump(mode="json", exclude={"trials": {"__all__": {"seconds"}}, "best": {"seconds"}}) for name, found in tuned.items()},
        "published": {name: entries for name, entries in published.items() if entries},
        "cut": list(cut),
        "command": command,
        "cost": {
            "seconds": round(spent, 1),
            "expected": None if plan is None else round(plan.expected, 1),
            "at_most": None if plan is None else round(plan.at_most, 1),
            "systems": {name: cost_of(own, tuned.get(name)) for name, own in seats.items()},
        },
    }
    return result, evaluations, compared


def outcome(evaluations: Sequence[Evaluation], metric: str, baseline: str | None, tests: bool) -> Comparison:
    """Rows best first, with tests where they are wanted."""
    if tests:
        return comparison(evaluations, metric, baseline)
    bare = []
    for evaluation in evaluations:
        copy = evaluation.model_copy()
        copy._values = {}
        bare.append(copy)
    compared = comparison(bare, metric)
    return compared.model_copy(update={"warnings": [w for w in compared.warnings if not w.startswith("No paired test")]})


def summary(compared: Comparison, evaluations: Sequence[Evaluation], seats: Mapping[str, Sequence[Seat]]) -> dict[str, Any]:
    """What a comparison says, best system first."""
    by_name = {e.system: e for e in evaluations}
    clusters = clusters_of(evaluations[0].user_codes)
    order = [row.system for row in compared.rows]
    effects = [effect(test, by_name[test.a], by_name[test.b], clusters) for test in compared.tests]
    return {
        "data": compared.data,
        "part": compared.part,
        "protocol": compared.protocol,
        "users": compared.users,
        "metric": compared.metric,
        "rows": [
            {"system": name, "seed": s.seed, "metrics": s.evaluation.metrics, "deterministic": deterministic(name, seats[name]),
             "cut": bool(s.cost.get("cut"))}
            for name in order for s in seats[name]
        ],
        "tests": [test.model_dump(mode="json") for test in compared.tests],
        "effects": [found.model_dump(mode="json") for found in effects],
        "sentences": sentences(compared),
        "systems": [
            {
                "system": name,
                "seeds": [s.seed for s in seats[name]],
                "deterministic": deterministic(name, seats[name]),
                "mean": by_name[name].metrics,
                "sd": spread(seats[name]),
                "ci": {metric: list(bounds) for metric, bounds in by_name[name].ci.items()},
                "slices": by_name[name].slices,
                "epochs": [s.cost["epochs"] for s in seats[name]],
                "cut": [s.seed for s in seats[name] if s.cost.get("cut")],
                "parameters": seats[name][0].cost["parameters"],
                "cold_items": answers_cold(seats[name]),
            }
            for name in order
        ],
        "warnings": compared.warnings,
    }  # fmt: skip


def deterministic(name: str, seats: Sequence[Seat]) -> bool:
    """Whether one row stands for every seed."""
    try:
        return registry.find(seats[0].system).deterministic
    except SettingError:  # a plug-in that is not loaded
        return False


def answers_cold(seats: Sequence[Seat]) -> bool:
    """Whether it answers with items that have no training event."""
    try:
        return registry.card(seats[0].system).can.cold_items
    except SettingError:  # a plug-in that is not loaded
        return False


def cost_of(seats: Sequence[Seat], tuned: Tuned | None) -> dict[str, Any]:
    """Seconds and bytes: means over seeds, the largest memory."""
    whole = {key: [s.cost[key] for s in seats if s.cost.get(key) is not None] for key in ("wall_seconds", "cpu_seconds")}
    peaks = [s.cost["peak_memory"] for s in seats if s.cost.get("peak_memory") is not None]
    return {
        "fit_seconds": round(statistics.fmean(s.cost["fit_seconds"] for s in seats), 3),
        **{key: round(statistics.fmean(values), 3) if values else None for key, values in whole.items()},
        "evaluate_seconds": round(statistics.fmean(s.cost["evaluate_seconds"] for s in seats), 3),
        "users_per_second": round(statistics.fmean(s.cost["users_per_second"] for s in seats), 1),
        "peak_memory": max(peaks, default=None),
        "tune_seconds": None if tuned is None else round(sum(a.seconds for a in tuned.trials), 1),
    }


def recipes_folder() -> Path | None:
    """`recipes` here, or beside a source checkout of the package; none where neither is."""
    for folder in (Path("recipes"), Path(vitrail.__file__).resolve().parents[2] / "recipes"):
        if folder.is_dir():
            return folder
    return None


def published(folder: str | Path | None, names: Sequence[str], bench: Bench, refit: bool) -> dict[str, list[dict[str, Any]]]:
    """system -> what others reported on these data and this split, from recipes. A recipe that cannot be read is passed over.

    A recipe counts when its measured fingerprint is ours, or its data set has our name and its split and refit are ours.
    """
    from vitrail import recipes
    from vitrail.data.splits import parse_split

    where = Path(folder) if folder is not None else recipes_folder()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for file in sorted(where.glob("*.yaml")) if where is not None else ():
        try:
            recipe = recipes.read(file)
            same = recipe.measured is not None and recipe.measured.fingerprint == bench.fingerprint
            alike = recipe.data.name == bench.dataset.info.name and parse_split(recipe.split) == bench.settings
            if recipe.system not in found or not (same or (alike and recipe.protocol == bench.asked and recipe.refit == refit)):
                continue
        except VitrailError:
            continue
        for entry in recipe.published:
            row = {**entry.model_dump(mode="json", exclude_defaults=True), "recipe": recipe.name, "same_fingerprint": same}
            if all({**row, "recipe": ""} != {**other, "recipe": ""} for other in found[recipe.system]):
                found[recipe.system].append(row)
    return found
