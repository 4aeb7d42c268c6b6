"""Recipes: a system, a data set, settings, the published number and ours, in one YAML file that can be run again.

`reproduce` runs one: ingest once, fit each seed (selection on validation), look at the test part once a finished seed.
Every step leaves a file, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field

from vitrail.config import NonNegativeInt, Settings, read_yaml
from vitrail.data.ingest import IngestSettings
from vitrail.errors import DataError, SettingError
from vitrail.files import fingerprint, read_json, write_json, write_text

if TYPE_CHECKING:
    from vitrail.data.dataset import Dataset

Say = Callable[[str], None]
Status = Literal["measured", "outside", "stale", "draft"]
TAIL = "measured:"
"""The last key of a recipe: everything from this line on is written by the machine, everything above by people."""


class Ingest(Settings):
    """What `vitrail.data.ingest.ingest` is given; paths are relative to VITRAIL_DATA."""

    files: list[str] = []
    train: str | None = None
    valid: str | None = None
    test: str | None = None
    items: list[str] = []
    users: list[str] = []
    events: dict[str, str] = {}
    flags: IngestSettings = IngestSettings()


class Data(Settings):
    """A data set and how it is made."""

    name: str
    ingest: Ingest


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
    """95 % interval over the queries of the first seed"""


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
    def identity(self) -> str:
        """Changes with whatever moves the numbers of a seed."""
        kept = self.model_dump(mode="json", include={"system", "data", "split", "refit", "settings"}, exclude_defaults=True)
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
        from vitrail.evaluation.metrics import parse_metric
        from vitrail.systems.registry import find

        find(self.system).Config.of(self.settings, where=f"settings of recipe {self.name}")
        parse_split(self.split)
        for metric in {*self.metrics, *self.accept}:
            parse_metric(metric)


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


def prepare(data: Data, *, data_root: str | Path, work: str | Path, say: Say) -> Dataset:
    """Ingest the data set into `work/data/<name>`, or open what is there. Raises DataError where the sources are absent, or
    where that place holds data made otherwise."""
    from vitrail.data.dataset import Dataset
    from vitrail.data.ingest import ingest

    folder = Path(work) / "data" / data.name
    mark = folder.with_name(f"{data.name}.json")
    wanted = {"ingest": data.ingest.model_dump(mode="json", exclude_defaults=True)}
    if folder.exists():
        if not mark.exists() or read_json(mark) != wanted:
            raise DataError(f"{folder} was ingested with other settings than this recipe's: move it away, or choose another place to work.")
        return Dataset(folder)
    root, told = Path(data_root), data.ingest
    missing = [path for path in _sources(told) if not (root / path).exists()]
    if missing:
        raise DataError(f"There is no {root / missing[0]}: put the data there, or say with the variable VITRAIL_DATA where they are.")
    write_json(mark, wanted)
    report = ingest(
        [root / path for path in told.files],
        out=folder,
        train=_under(root, told.train),
        valid=_under(root, told.valid),
        test=_under(root, told.test),
        items=[root / path for path in told.items],
        users=[root / path for path in told.users],
        events={kind: root / path for kind, path in told.events.items()},
        settings=told.flags.but({"name": data.name}),
    )
    counts = report.dataset.info.counts
    say(f"ingested {data.name}: {counts['users']:,} users, {counts['items']:,} items, {counts['events']:,} events, {sum(report.rejected.values()):,} rejected")
    return report.dataset


def _under(root: Path, path: str | None) -> Path | None:
    return None if path is None else root / path


def _sources(told: Ingest) -> list[str]:
    single = [path for path in (told.train, told.valid, told.test) if path is not None]
    return [*told.files, *single, *told.items, *told.users, *told.events.values()]


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
        recipe.system, dataset, split=recipe.split, out=out, seed=seed, resume=True, settings=recipe.settings, refit=recipe.refit, quiet=quiet
    )
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
        metrics={name: _spread([row["metrics"][name] for row in rows], first["ci"].get(name)) for name in recipe.metrics},
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


def _spread(values: Sequence[float], ci: Sequence[float] | None = None) -> Spread:
    sd = round(statistics.stdev(values), 6) if len(values) > 1 else None
    bounds = None if ci is None else (round(ci[0], 6), round(ci[1], 6))
    return Spread(mean=round(statistics.fmean(values), 6), sd=sd, per_seed=[round(value, 6) for value in values], ci=bounds)


def processor() -> str:
    """The processor, its usable cores, and the threads of torch, in words."""
    from vitrail.doctor import examine

    report = examine()
    machine, compute = report["machine"], report["compute"]
    return f"{machine['processor'] or 'unknown processor'}, {machine['usable_cores']} cores, {compute['threads']} threads"
