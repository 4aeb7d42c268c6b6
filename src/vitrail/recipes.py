"""Recipes: a system, a data set, settings, the published number and ours, in one YAML file that can be run again.

`reproduce` runs one: ingest once, fit each seed (selection on validation), look at the test part once a finished seed.
Every step leaves a file, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field

from vitrail.config import NonNegativeInt, Settings, read_yaml
from vitrail.errors import SettingError
from vitrail.files import fingerprint, read_json, write_json, write_text
from vitrail.recipes_data import Data, Say, prepare

if TYPE_CHECKING:
    from vitrail.data.dataset import Dataset

Status = Literal["measured", "outside", "stale", "draft"]
TAIL = "measured:"
"""The last key of a recipe: everything from this line on is written by the machine, everything above by people."""


class Published(Settings):
    """A number somebody else reported."""

    source: str
    protocol: str
    metrics: dict[str, float]
    note: str = ""


class Band(Settings):
    """Where our mean must lie for these settings, and who says so."""

    low: float
    high: float | None = None
    source: str

    def holds(self, value: float) -> bool:
        """Whether `value` lies inside, to the four digits that are reported."""
        return self.low <= round(value, 4) <= (self.high if self.high is not None else float("inf"))

    def __str__(self) -> str:
        return f"{self.low:.4f} to {self.high:.4f}" if self.high is not None else f">= {self.low:.4f}"


class Selection(Settings):
    """How the settings were chosen: always on the validation part."""

    metric: str
    part: Literal["valid"] = "valid"
    grid: dict[str, list[Any]] = {}
    tried: list[dict[str, Any]] = []
    """a row a setting: its values and its validation metrics"""
    note: str = ""


class NotChecked(Settings):
    """A check of the method that was not made, and what it needs."""

    check: str
    needs: str


class Spread(Settings):
    """A metric over seeds."""

    mean: float
    sd: float | None = None
    """sample standard deviation over seeds; none for one seed"""
    per_seed: list[float]
    ci: tuple[float, float] | None = None
    """95 % interval over the queries: each bound is the mean of those of the seeds"""


class Measured(Settings):
    """What came out, of which recipe, and on what."""

    recipe: str
    """identity of the recipe that was run"""
    protocol: str
    fingerprint: str
    """of data, split and protocol"""
    queries: NonNegativeInt
    metrics: dict[str, Spread]
    validation: dict[str, Spread] = {}
    seeds: list[int]
    epochs: list[int]
    """the chosen epoch of each seed"""
    seconds: list[float]
    """fit of each seed, validation included"""
    test_evaluations: NonNegativeInt
    """how often any system had looked at the test part of this copy of the data, ours included"""
    command: str
    date: str
    cpu: str
    versions: dict[str, str]


class Recipe(Settings):
    """One system on one data set."""

    name: str
    """the file's name without .yaml: SYSTEM.DATA or SYSTEM.DATA.VARIANT"""
    about: str = ""
    system: str
    data: Data
    split: str
    protocol: str | None = None
    """where it is not that of the split, e.g. mmrec"""
    refit: bool = False
    settings: dict[str, Any] = {}
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = [0]
    metrics: Annotated[list[str], Field(min_length=1)] = ["recall@10", "ndcg@10"]
    selection: Selection | None = None
    published: list[Published] = []
    accept: dict[str, Band] = {}
    fit_seconds: Annotated[float, Field(gt=0)] | None = None
    """the fit of each seed must take less"""
    heavy: str = ""
    """why it is left out unless it is asked for by name or with --all: what a seed costs"""
    differences: list[str] = []
    """from the published setting, known to us"""
    not_checked: list[NotChecked] = []
    measured: Measured | None = None

    @property
    def cut(self) -> str:
        """For people: split, protocol where it is not the split's own, refit."""
        return self.split + (f", {self.protocol}" if self.protocol else "") + (" (refit)" if self.refit else "")

    @property
    def identity(self) -> str:
        """Changes with whatever moves the numbers of a seed."""
        kept = self.model_dump(mode="json", include={"system", "data", "split", "protocol", "refit", "settings"}, exclude_defaults=True)
        return fingerprint(kept)

    def verdict(self, metric: str) -> Literal["ok", "outside", ""]:
        """Whether our mean of `metric` lies in its band; empty where there is no band or no number."""
        if self.measured is None or metric not in self.accept or metric not in self.measured.metrics:
            return ""
        return "ok" if self.accept[metric].holds(self.measured.metrics[metric].mean) else "outside"

    @property
    def status(self) -> Status:
        """draft: not measured; stale: settings changed since; outside: a band or the time is missed; measured: all is well."""
        if self.measured is None:
            return "draft"
        if self.measured.recipe != self.identity or self.measured.seeds != list(self.seeds):
            return "stale"
        slow = self.fit_seconds is not None and max(self.measured.seconds) >= self.fit_seconds
        return "outside" if slow or any(self.verdict(metric) != "ok" for metric in self.accept) else "measured"

    def check(self) -> None:
        """Raises SettingError where the system, a setting, the split or a metric is unknown or out of bounds."""
        from vitrail.data.splits import parse_split
        from vitrail.evaluation.metrics import check_metric
        from vitrail.evaluation.protocol import parse_protocol
        from vitrail.systems.registry import find

        cls = find(self.system)
        cls.Config.of(self.settings, where=f"settings of recipe {self.name}")
        split = parse_split(self.split)
        if self.protocol is not None:
            parse_protocol(self.protocol, split.name)
        for metric in {*self.metrics, *self.accept}:
            check_metric(metric, cls.card.stage)


def read(path: str | Path) -> Recipe:
    """The recipe in a YAML file. Raises SettingError: the file is absent or malformed, a key is unknown, or the name is not the file's."""
    recipe = Recipe.of(read_yaml(path), where=str(path))
    if recipe.name != Path(path).stem:
        raise SettingError(f'{path} names its recipe "{recipe.name}": name the file {recipe.name}.yaml, or the recipe {Path(path).stem}.')
    return recipe


def is_funnel(path: str | Path) -> bool:
    """Whether a YAML file is a funnel file (funnel.file), which stand among the recipes: one that begins with the key `funnel`."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return next((line.startswith("funnel:") for line in lines if line.strip() and not line.startswith("#")), False)


def read_all(folder: str | Path) -> list[Recipe]:
    """The recipes in a folder, by name, funnel files passed over. Raises SettingError."""
    return [read(path) for path in sorted(Path(folder).glob("*.yaml")) if not is_funnel(path)]


def store(path: str | Path, measured: Measured) -> None:
    """Write the measured block into a recipe file, atomically: what people wrote above it stays as it is, comments included.

    Raises SettingError where keys follow the measured block.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith(TAIL)), len(lines))
    below = [line for line in lines[start + 1 :] if line.strip() and not line.startswith((" ", "#"))]
    if below:
        raise SettingError(f'{path}: "{below[0].partition(":")[0]}" stands below "measured"; move it above, so that "measured" is the last key.')
    head = "\n".join(lines[:start]).rstrip("\n")
    block = yaml.safe_dump({"measured": measured.model_dump(mode="json", exclude_none=True)}, sort_keys=False, default_flow_style=None, width=160)
    write_text(path, f"{head}\n{block}")


def reproduce(recipe: Recipe, *, data_root: str | Path, work: str | Path, say: Say, quiet: bool = True) -> Measured:
    """Run a recipe in `work/<recipe>` and return what was measured.

    A seed that is finished (it has a `seed-N.json`) is not run or looked at again; a seed that was killed goes on from its last
    checkpoint. `result.json` is rewritten after each seed. Raises VitrailError: one sentence.
    """
    recipe.check()
    home = Path(work) / recipe.name
    dataset = prepare(recipe.data, data_root=data_root, work=work, say=say)
    made_of = {"recipe": recipe.identity, "data": dataset.fingerprint}
    mark = home / "recipe.json"
    if mark.exists() and read_json(mark) != made_of:
        raise SettingError(f"{home} holds runs of other settings or data of this recipe: move it away to measure anew.")
    write_json(mark, made_of)
    rows: list[dict[str, Any]] = []
    for seed in recipe.seeds:
        rows.append(_seed(recipe, seed, dataset, home, say, quiet))
        measured = _gather(recipe, rows, dataset)
        write_json(home / "result.json", measured.model_dump(mode="json"))
    return measured


def _seed(recipe: Recipe, seed: int, dataset: Dataset, home: Path, say: Say, quiet: bool) -> dict[str, Any]:
    """Fit one seed and look at its test part once."""
    from vitrail.train.fit import evaluate_run, fit

    file, out = home / f"seed-{seed}.json", home / f"seed-{seed}"
    if file.exists():
        row: dict[str, Any] = read_json(file)
        say(f"{recipe.name} seed {seed}: finished before, {_line(row['metrics'])}")
        return row
    say(f"{recipe.name} seed {seed}: fitting")
    result = fit(
        recipe.system, dataset, split=recipe.split, protocol=recipe.protocol, out=out, seed=seed, resume=True, settings=recipe.settings, refit=recipe.refit,
        quiet=quiet,
    )  # fmt: skip
    info = result.recommender.info
    evaluation = evaluate_run(out, data=dataset, metrics=recipe.metrics)
    valid = (info.get("validation") or {}).get("metrics", {})
    row = {
        "seed": seed,
        "metrics": evaluation.metrics,
        "ci": {name: list(bounds) for name, bounds in evaluation.ci.items()},
        "validation": {name: valid[name] for name in recipe.metrics if name in valid},
        "queries": evaluation.users,
        "protocol": evaluation.protocol.describe(),
        "fingerprint": evaluation.fingerprint,
        "epochs": info["epochs"],
        "seconds": info["seconds"],
    }
    write_json(file, row)
    say(f"{recipe.name} seed {seed}: {_line(evaluation.metrics)} after {info['epochs']} epochs, {info['seconds']:.1f} s")
    return row


def _line(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _gather(recipe: Recipe, rows: Sequence[Mapping[str, Any]], dataset: Dataset) -> Measured:
    from vitrail.evaluation import journal
    from vitrail.funnel.artifact import versions

    first = rows[0]
    return Measured(
        recipe=recipe.identity,
        protocol=first["protocol"],
        fingerprint=first["fingerprint"],
        queries=first["queries"],
        metrics={name: _spread([row["metrics"][name] for row in rows], [row["ci"][name] for row in rows if name in row["ci"]]) for name in recipe.metrics},
        validation={name: _spread([row["validation"][name] for row in rows]) for name in first["validation"]},
        seeds=[row["seed"] for row in rows],
        epochs=[row["epochs"] for row in rows],
        seconds=[round(row["seconds"], 2) for row in rows],
        test_evaluations=journal.count(dataset.path),
        command=f"python benchmarks/reproduce.py {recipe.name}",
        date=datetime.now(UTC).date().isoformat(),
        cpu=processor(),
        versions=versions(),
    )


def _spread(values: Sequence[float], intervals: Sequence[Sequence[float]] = ()) -> Spread:
    sd = round(statistics.stdev(values), 6) if len(values) > 1 else None
    low, high = ([interval[end] for interval in intervals] for end in (0, 1))
    bounds = (round(statistics.fmean(low), 6), round(statistics.fmean(high), 6)) if intervals else None
    return Spread(mean=round(statistics.fmean(values), 6), sd=sd, per_seed=[round(value, 6) for value in values], ci=bounds)


def processor() -> str:
    """The processor, its usable cores, and the threads of torch, in words."""
    from vitrail.doctor import examine

    report = examine()
    machine, compute = report["machine"], report["compute"]
    return f"{machine['processor'] or 'unknown processor'}, {machine['usable_cores']} cores, {compute['threads']} threads"
