"""A comparison of runs that are finished: the same tests and page, without fitting anything."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitrail.data.dataset import Dataset
from vitrail.errors import ArtifactError, DataError, SettingError, unknown
from vitrail.files import fingerprint, write_json
from vitrail.funnel.recommender import load
from vitrail.lab.bench import Bench, hold, remember
from vitrail.lab.compare import check_users
from vitrail.lab.pace import cut_seeds
from vitrail.lab.page import copy_page, read_curves, write_page
from vitrail.lab.rank_bench import open_bench
from vitrail.lab.seeds import Seat, read_seat, write_seat
from vitrail.lab.table import gather, published
from vitrail.lab.tune import Say, plain
from vitrail.systems import registry
from vitrail.train.fit import evaluate_run, recorded_split
from vitrail.train.run import Run


def is_run(name: str) -> bool:
    """Whether `name` is a run folder rather than a system: a path, or a folder with a run.yaml that no system is named after."""
    if name in registry.names():
        return False
    return "/" in name or "\\" in name or (Path(name) / "run.yaml").exists()


def compare_runs(
    runs: Sequence[str | Path],
    *,
    data: str | Path | Dataset | None = None,
    out: str | Path | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    tests: bool = True,
    recipes: str | Path | None = None,
    report: str | Path | None = None,
    quiet: bool = False,
    say: Say | None = None,
) -> dict[str, Any]:
    """Compare finished runs on the test part of their common split; returns what `vitrail.lab.compare.compare` does.

    Runs of one system that differ in the seed alone are its seeds. Each run is measured once and keeps its numbers beside its artifact.
    `out` is where result.json, report.html and the pictures go (none: nothing is written there). Raises SettingError where data, splits or
    protocols differ, ArtifactError for a folder that is no finished run.
    """
    say = say or (lambda text: None if quiet else print(text, file=sys.stderr))  # noqa: T201
    folders = [Path(run) for run in runs]
    twice = [str(folder) for n, folder in enumerate(folders) if folder.resolve() in {f.resolve() for f in folders[:n]}]
    if twice:
        raise SettingError(f"The run {twice[0]} is named twice: a comparison has each run once.")
    if len(folders) < 2:
        raise SettingError(f"A comparison needs at least 2 runs, and {len(folders)} is named: add one.")
    told = [Run.read(folder) for folder in folders]
    infos = [_manifest(folder) for folder in folders]
    for folder, info in zip(folders[1:], infos[1:], strict=True):
        _same(folders[0], infos[0], folder, info)
    dataset = data if isinstance(data, Dataset) else Dataset(data or infos[0]["data"]["path"])
    asked = None if infos[0]["stage"] == "rank" else told[0].protocol
    bench = open_bench([told[0].system], dataset, recorded_split(infos[0]["split"]), metric, told[0].refit, "cpu", quiet, asked)
    if bench.fingerprint != infos[0]["fingerprint"]:
        raise DataError(f"{dataset.path} has changed since these systems were fitted (its fingerprint differs): fit again, or name the old data with --data.")
    check_users(bench, tests)
    groups = _groups(folders, told)
    if len(groups) < 2:
        raise SettingError(f"These runs are seeds of one system ({next(iter(groups))}): a comparison needs two systems or settings.")
    if baseline is not None and baseline not in groups:
        raise unknown("system in this comparison", baseline, groups)
    place = None if out is None else Path(out)
    request = {"runs": sorted(str(f.resolve()) for f in folders), "fingerprint": bench.fingerprint, "metric": bench.metric}
    if place is not None:
        with hold(place):
            remember(place / "request.json", plain(request), "comparison")
    began = time.monotonic()
    seats = {name: [_seat(bench, run, told[folders.index(run)], say) for run in own] for name, own in groups.items()}
    other = [f"--metric {bench.metric}"] if bench.metric != bench.default_metric else []
    command = " ".join(["vitrail compare", *map(str, runs), *other, *([f"--baseline {baseline}"] if baseline else []), *([] if tests else ["--no-tests"])])
    others = published(recipes, [told[folders.index(own[0])].system for own in groups.values()], bench, told[0].refit)
    result, evaluations, compared = gather(
        bench, seats, {}, None, cut_seeds(seats), baseline=baseline, tests=tests,
        published={name: others[told[folders.index(own[0])].system] for name, own in groups.items()}, command=command, spent=time.monotonic() - began,
    )  # fmt: skip
    curves = {name: read_curves(own[0]) for name, own in groups.items()}
    if place is not None:
        write_json(place / "result.json", result)
        write_page(place, dataset, result, evaluations, compared, curves)
        say(f"the page is at {place / 'report.html'}")
    if report is not None:
        _report(Path(report), place, dataset, result, evaluations, compared, curves)
    return result


def _report(target: Path, folder: Path | None, dataset: Dataset, result: dict[str, Any], *made: Any) -> None:
    if folder is not None or target.suffix == ".md":
        copy_page(folder or target.parent, result, target)
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_page(Path(temporary), dataset, result, *made)
        copy_page(Path(temporary), result, target)


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / "artifact" / "manifest.json").exists():
        raise ArtifactError(f"{folder} is not finished (it has no artifact): go on with `vitrail fit ... --out {folder} --resume`.")
    return load(folder).info


def _same(first: Path, ours: dict[str, Any], other: Path, theirs: dict[str, Any]) -> None:
    """Raises SettingError naming what differs: the data, the split, or the protocol."""
    if ours["fingerprint"] == theirs["fingerprint"]:
        return
    if ours["data"]["fingerprint"] != theirs["data"]["fingerprint"]:
        what = f"data sets ({ours['data']['name']} {ours['data']['fingerprint']} and {theirs['data']['name']} {theirs['data']['fingerprint']})"
    elif ours["split"] != theirs["split"]:
        what = f"splits ({ours['split'].get('name')} and {theirs['split'].get('name')}; fingerprints {ours['fingerprint']} and {theirs['fingerprint']})"
    else:
        what = f"protocols (refit or not; fingerprints {ours['fingerprint']} and {theirs['fingerprint']})"
    raise SettingError(f"{first} and {other} were fitted on different {what}: their numbers do not belong in one table; fit both alike.")


def _groups(folders: Sequence[Path], told: Sequence[Run]) -> dict[str, list[Path]]:
    """Name -> runs that differ in the seed alone; named by the system, and by the folder too where a system has several settings."""
    by_settings: dict[str, list[tuple[Path, Run]]] = {}
    for folder, run in zip(folders, told, strict=True):
        key = fingerprint([run.system, run.config])
        if any(other.seed == run.seed for _, other in by_settings.get(key, ())):
            key += str(folder)
        by_settings.setdefault(key, []).append((folder, run))
    named: dict[str, list[Path]] = {}
    for system in dict.fromkeys(run.system for run in told):
        alike = [own for own in by_settings.values() if own[0][1].system == system]
        apart = _apart([own[0][0] for own in alike])
        named |= {system if len(alike) == 1 else f"{system} ({word})": [run for run, _ in own] for word, own in zip(apart, alike, strict=True)}
    return named


def _apart(folders: Sequence[Path]) -> list[str]:
    """The last part of the paths that is another one in each; the whole paths where there is none."""
    for place in range(1, min(len(folder.parts) for folder in folders) + 1):
        words = [folder.parts[-place] for folder in folders]
        if len(set(words)) == len(words):
            return words
    return [str(folder) for folder in folders]


def _seat(bench: Bench, folder: Path, run: Run, say: Say) -> Seat:
    """The run measured on test, or what was measured of it before."""
    if (folder / "evaluation.json").exists():
        before = read_seat(folder)
        if before.evaluation.fingerprint == bench.fingerprint and bench.metric in before.evaluation.values:
            say(f"  {folder}: measured before")
            return before
    evaluation = evaluate_run(folder, data=bench.dataset, metrics=bench.metrics)
    info = _manifest(folder)
    cost = {
        "fit_seconds": info["seconds"], "evaluate_seconds": evaluation.seconds, "users_per_second": evaluation.users_per_second,
        "peak_memory": None, "parameters": info["parameters"], "epochs": info["epochs"],
        "cut": bool(info.get("cut")),
    }  # fmt: skip
    made = Seat(run.system, run.seed, evaluation, cost)
    write_seat(folder, made)
    say(f"  {folder}: test {bench.metric} {evaluation.metrics[bench.metric]:.4f}")
    return made
