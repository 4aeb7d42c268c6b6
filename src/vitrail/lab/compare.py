"""Systems side by side: an equal number of trials on validation, seeds, one look at the test part each, tests over users, sentences, a page.

Every step leaves its files in one folder, so the same call on the same folder goes on where an earlier one stopped.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitrail.data.dataset import Dataset
from vitrail.data.splits import SplitSettings
from vitrail.errors import DataError, SettingError, unknown
from vitrail.evaluation.metrics import DEFAULT_METRICS, RANKERS
from vitrail.files import read_json, write_json
from vitrail.lab.bench import LEAST_USERS, Bench, Clock, check_needs, duration, hold, remember, remember_budget
from vitrail.lab.beside import Beside
from vitrail.lab.members import best_baseline, check_keys, check_systems, fixed_settings, members, outsiders, told
from vitrail.lab.pace import Pace, held
from vitrail.lab.page import copy_page, read_curves, write_page
from vitrail.lab.plan import PAGE, Plan, make_plan, timed
from vitrail.lab.rank_bench import open_bench
from vitrail.lab.seeds import Seat, seat, settled
from vitrail.lab.space import Space, as_begun, as_json, begun_with, for_system, read_space, space_of
from vitrail.lab.table import gather, published
from vitrail.lab.tune import Say, check_numbers, check_valid, line, plain
from vitrail.lab.tuner import Tuner, need_optuna
from vitrail.systems import registry

BEST = "best"
"""The baseline that is chosen on validation."""


def compare(
    systems: Sequence[str],
    data: str | Path | Dataset,
    *,
    out: str | Path,
    split: str | SplitSettings | None = None,
    protocol: str | None = None,
    seeds: int = 5,
    trials: int = 20,
    budget: float | None = None,
    metric: str | None = None,
    family: str | None = None,
    without: Sequence[str] = (),
    refit: bool = False,
    settings: Mapping[str, Any] | None = None,
    space: Mapping[str, Any] | str | Path | None = None,
    baseline: str | None = None,
    tests: bool = True,
    seed: int = 0,
    recipes: str | Path | None = None,
    report: str | Path | None = None,
    content: bool = False,
    retrain: bool = False,
    also_split: Sequence[str] = (),
    device: str = "auto",
    quiet: bool = False,
    say: Say | None = None,
) -> dict[str, Any]:
    """Compare `systems` on one split and return what `out/result.json` holds: `rows` (system, seed, metrics), `tests`, `sentences` and the rest.

    Each system gets `trials` trials on validation, then `seeds` seeds (from `seed` on), each measured on test once. `budget` in hours;
    `settings` and `space`: `{"sasrec.dim": 64}`, `{"sasrec": {"dim": 64}}` or `{"dim": 64}` for every system that has it; what is set is not
    tuned. `baseline`: test every system against that one only (best: the best on validation of those that are not of the family compared, that
    of `family` or of the first system); `tests` false: no tests; `recipes`: a folder of recipes with published
    numbers; `metric` none: ndcg@10, of rankers gauc; `family`: beside `systems`, all systems of a family that the data allow, but for
    those in `without`.

    Beside the table, in the same folder and budget: `content` measures the fitted seeds with each kind of content left out, noisy, or missing for a
    share of the items, and with `retrain` fits systems anew without each kind; `also_split` fits the systems, as they were tuned, once under each
    further split. None of the three changes what the rest of the folder holds. Raises VitrailError: one sentence, before anything is run.
    """
    say = say or (lambda text: None if quiet else print(text, file=sys.stderr))  # noqa: T201
    dataset = data if isinstance(data, Dataset) else Dataset(data)
    found, left_out = members(systems, family, without, dataset, settings or {})
    for text in told(left_out):
        say(f"  {text}")
    names = check_systems(found)
    check_numbers(trials, budget)
    _check_seeds(names, seeds, tests)
    if baseline not in (None, BEST, *names):
        raise unknown("system in this comparison", str(baseline), names)
    others = outsiders(names, family) if baseline == BEST else []
    bench = open_bench(names, dataset, split, metric, refit, device, quiet, protocol)
    folder, known = Path(out), [*names, *left_out]
    fixed = fixed_settings(names, settings or {}, known)
    configs = {name: bench.config(name, fixed[name]) for name in names}
    check_needs(configs, bench.dataset)
    check_users(bench, tests)
    asked = read_space(space) if isinstance(space, str | Path) else dict(space or {})
    spaces, memory = _spaces(bench, names, fixed, asked if trials else None, known, begun_with(folder))
    if any(spaces.values()) or others:
        check_valid(bench)
    if others and not trials and bench.metric not in (*DEFAULT_METRICS, *RANKERS):
        raise SettingError(f"Without trials {bench.metric} is not measured on validation, where --baseline best is chosen: name the baseline itself.")
    if any(spaces.values()):
        need_optuna()
    beside = Beside.asked(bench, configs, content, retrain, also_split, refit)
    request: dict[str, Any] = {
        "systems": names, "data": bench.dataset.fingerprint, "split": bench.split.settings, "protocol": bench.protocol.model_dump(mode="json"),
        "seeds": list(range(seed, seed + seeds)), "trials": trials, "metric": bench.metric, "settings": fixed,
        "space": {name: as_json(found) for name, found in spaces.items()},
        **bench.vectors(configs),
    }  # fmt: skip
    with hold(folder):
        remember(folder / "request.json", plain(request), "comparison")
        remember_budget(folder / "budget.json", budget, "comparison")
        clock = Clock(folder / "clock.json")
        plan = _plan(bench, folder, names, fixed, spaces, memory, seeds, trials, budget, refit, clock, say, beside)
        tuners = {
            name: Tuner(name, bench, folder / name / "tune", fixed=fixed[name], space=spaces[name], trials=trials, seed=seed) for name in names
        }
        pace = Pace(plan, tuners, clock)
        made = _tune(pace, folder, say)
        seats, fitted = _seats(bench, pace, request["seeds"], folder, refit, say)
        more, measured = beside.measure(folder, plan, {name: tuner.chosen() for name, tuner in tuners.items()}, seats, seed, clock, say)
        before = folder / "result.json"
        spent = read_json(before)["cost"]["seconds"] if before.exists() and not made + fitted + measured else clock.spent + PAGE
        command = command_of(names, bench, {**request, "budget": budget}, refit, baseline, tests, asked, seed, beside)
        best, why = best_baseline(others, {name: _on_validation(folder, tuners[name], bench.metric) for name in others}, bench.metric) if others else (None, "")
        result, evaluations, compared = gather(
            bench, seats, {name: tuner.result() for name, tuner in tuners.items()}, plan, held(plan, tuners, seats),
            baseline=best or baseline, tests=tests, published=published(recipes, names, bench, refit), command=command, spent=spent, notes=told(left_out),
        )  # fmt: skip
        result |= {**more, **({"baseline": why} if best else {})}
        write_json(folder / "result.json", result)
        curves = {name: read_curves(folder / name / f"seed-{seed}") for name in names}
        write_page(folder, bench.dataset, result, evaluations, compared, curves)
        if report is not None:
            copy_page(folder, result, Path(report))
        for text in result["cut"]:
            say(text)
        estimate = f" (the estimate was {duration(plan.expected)}, at most {duration(plan.at_most)})"
        say(f"{duration(spent)} in all{estimate}; the page is at {folder / 'report.html'}")
    return result


def _check_seeds(names: list[str], seeds: int, tests: bool) -> None:
    if seeds < 1:
        raise SettingError(f"--seeds is {seeds}: give 1 or more.")
    drawn = [name for name in names if not registry.find(name).deterministic]
    if seeds == 1 and tests and drawn:
        raise SettingError(
            f"One seed carries no significance test of a system that depends on it ({', '.join(drawn)}): "
            "ask for --seeds 2 or more, or leave the tests out with --no-tests."
        )


def check_users(bench: Bench, tests: bool) -> None:
    """Raises DataError where there is no test part, or too few users for a test."""
    part = bench.split.test
    if part is None:
        raise DataError(f'The split "{bench.settings.text}" has no test part to compare on: use another split.')
    if tests and bench.metric == "auc":
        raise SettingError("AUC over all rows is no mean over users, so no paired test goes with it: use --metric gauc, or --no-tests.")
    users = len(bench.test_users())
    if tests and users < LEAST_USERS:
        raise DataError(f"The test part asks {users} users, too few for a significance test (at least {LEAST_USERS}): use more data, or --no-tests.")


def _spaces(
    bench: Bench, names: list[str], fixed: Mapping[str, dict[str, Any]], asked: Mapping[str, Any] | None, known: Sequence[str],
    begun: Mapping[str, Any],
) -> tuple[dict[str, Space], dict[str, int]]:  # fmt: skip
    """What is tuned (nothing where `asked` is none) and the bytes needed, a system each. Raises VitrailError."""
    spaces: dict[str, Space] = {}
    memory: dict[str, int] = {}
    for name in names:
        config, cls = bench.config(name, fixed[name]), registry.find(name)
        memory[name] = bench.check_memory(name, config)
        own = None if asked is None else for_system(asked, name, cls.Config.model_fields, known)
        found = {} if own is None else space_of(cls, config, bench.dataset.info, len(bench.dataset.items), fixed=fixed[name], asked=own)
        spaces[name] = found if own is None or name not in begun else as_begun(found, begun[name], own)
    check_keys(asked or {}, known)
    return spaces, memory


def _plan(
    bench: Bench, folder: Path, names: list[str], fixed: Mapping[str, dict[str, Any]], spaces: Mapping[str, Space], memory: Mapping[str, int],
    seeds: int, trials: int, budget: float | None, refit: bool, clock: Clock, say: Say, beside: Beside,
) -> Plan:  # fmt: skip
    """The plan, printed before anything starts. The times are measured once and kept; with a larger budget they are shared out anew."""
    file, seconds = folder / "plan.json", None if budget is None else 3600 * budget
    if file.exists():
        plan = Plan.of(read_json(file), where=str(file))
        told = f"about {duration(plan.expected)}, at most {duration(plan.at_most)}"
        say(f"going on with the comparison in {folder}, after {duration(clock.before)}; it was planned to take {told}")
        needs = beside.needs(plan.rows, folder)
        page = PAGE + beside.kept(needs, seconds)
        if seconds != plan.budget:
            return _told(make_plan(plan.rows, trials, seconds, plan.timing, page), beside.words(plan.rows, needs, seconds, "In it"), file, say)
        for text in beside.words(plan.rows, needs, seconds, "Still to do"):
            say(text)
        return plan.model_copy(update={"page": page})
    say(f"{bench.dataset.info.name}: {bench.protocol.describe()}; {len(bench.split.test or ()):,} test {bench.unit}. Timing each system:")
    rows = []
    for name in names:
        n = 1 if registry.find(name).deterministic else seeds
        config = bench.config(name, fixed[name])
        rows.append(
            timed(
                bench, name, config, trials=trials if spaces[name] else 0, seeds=n, space=spaces[name],
                refit=refit or bench.protocol.refit, memory=memory[name],
            )
        )  # fmt: skip
    needs = beside.needs(rows, folder)
    plan = make_plan(rows, trials, seconds, clock.spent, PAGE + beside.kept(needs, seconds))
    clock.save()
    return _told(plan, beside.words(rows, needs, seconds, "In it"), file, say)


def _on_validation(folder: Path, tuner: Tuner, metric: str) -> float:
    """What a system reaches on validation: the mean of its seeds, or its best trial where seeds were not measured by that metric."""
    found = [read_json(file).get("validation", {}).get("metrics", {}) for file in sorted(folder.glob(f"{tuner.system}/seed-*/artifact/manifest.json"))]
    if all(metric in one for one in found):
        return statistics.fmean(one[metric] for one in found)
    best = tuner.best()
    return float("-inf") if best is None or best.value is None else best.value


def _told(plan: Plan, beside: list[str], file: Path, say: Say) -> Plan:
    for text in (*plan.words(), *beside):
        say(text)
    write_json(file, plan.model_dump(mode="json"))
    return plan


def _tune(pace: Pace, folder: Path, say: Say) -> int:
    """Trials as the pace gives them out; how many were made. Once a seed is under way its settings are chosen, and no trial follows."""
    made = 0
    while not any(folder.glob("*/seed-*")) and (job := pace.next()) is not None:
        tuner, left = job
        attempt = tuner.step(left)
        pace.clock.save()
        made += 1
        say(f"  {tuner.system}, {line(attempt, tuner.trials, tuner.bench.metric)}")
    return made


def _seats(bench: Bench, pace: Pace, seeds: Sequence[int], folder: Path, refit: bool, say: Say) -> tuple[dict[str, list[Seat]], int]:
    """Every system with every seed (once where the seed moves nothing), in the order of the plan; how many were fitted now."""
    budget = pace.plan.budget
    jobs = [(row.system, seed, folder / row.system / f"seed-{seed}") for row in pace.plan.rows for seed in seeds[: row.seeds]]
    todo = [job for job in jobs if not settled(job[2], budget)]
    found: dict[str, list[Seat]] = {}
    for job in jobs:
        system, seed, place = job
        config = bench.config(system, pace.tuners[system].chosen()).model_dump(mode="json", exclude_unset=True)
        left = pace.seat([name for name, _, _ in todo[todo.index(job) :]]) if job in todo else None
        made = seat(bench, system, config, seed, place, refit, left, budget)
        found.setdefault(system, []).append(made)
        if not made.cost["cut"]:
            pace.took.setdefault(system, []).append(made.cost["wall_seconds"] + made.cost["evaluate_seconds"])
        pace.clock.save()
        value, cut = made.evaluation.metrics[bench.metric], ", stopped by the deadline" if made.cost["cut"] else ""
        say(f"  {system}, seed {seed}: test {bench.metric} {value:.4f}, fitted in {duration(made.cost['fit_seconds'])}{cut}")
    return found, len(todo)


def command_of(
    names: list[str], bench: Bench, request: Mapping[str, Any], refit: bool, baseline: str | None, tests: bool, asked: Mapping[str, Any], seed: int,
    beside: Beside,
) -> str:  # fmt: skip
    """The command that repeats this."""
    parts = ["vitrail compare", *names, f"--data {bench.dataset.path}", f"--split {bench.settings.text}", f"--seeds {len(request['seeds'])}"]
    parts += [f"--trials {request['trials']}"]
    parts += [f"--budget {request['budget']:g}"] if request["budget"] is not None else []
    parts += [f"--metric {bench.metric}"] if bench.metric != bench.default_metric else []
    parts += [f"--protocol {bench.asked}"] if bench.asked else []
    parts += ["--refit"] if refit else []
    fixed = [(f"{name}.{key}", value) for name, own in request["settings"].items() for key, value in own.items()]
    parts += [f"--set {key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in fixed]
    parts += [f"--baseline {baseline}"] if baseline else []
    parts += [] if tests else ["--no-tests"]
    parts += [f"--seed {seed}"] if seed else []
    parts += ["--space SPACE.yaml"] if asked else []
    parts += ["--content"] * bool(beside.kinds) + ["--retrain"] * beside.retrain + [f"--also-split {own.settings.text}" for own in beside.splits]
    return " ".join([*parts, "--out FOLDER"])
