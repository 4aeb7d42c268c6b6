"""tune, compare, effects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vitrail.cli import complete, show
from vitrail.cli.learn import JSON, Plugin, load_plugins
from vitrail.errors import SettingError

Data = Annotated[Path | None, typer.Option(help="The data-set folder.", file_okay=False)]
SplitText = Annotated[str | None, typer.Option("--split", help="How to cut the data, e.g. temporal, ratio:test=0.2.", autocompletion=complete.splits)]
ProtocolText = Annotated[
    str | None, typer.Option("--protocol", metavar="NAME[:CHOICE=VALUE]", help="How the numbers are made where it is not as the split has it, e.g. mmrec.")
]
Trials = Annotated[int, typer.Option(help="Settings tried for each system, on validation; the first is the setting as given. 0: no tuning.")]
Budget = Annotated[float | None, typer.Option(metavar="HOURS", help="The time there is, and it is held: the same share of it for every system.")]
MetricName = Annotated[str | None, typer.Option("--metric", help="What is chosen and tested by, e.g. recall@20. [default: ndcg@10, of rankers gauc]")]
SpaceFile = Annotated[Path | None, typer.Option("--space", metavar="F.yaml", help="What is tried: setting: {low, high, log} or [a, b]; null: leave it alone.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with interrupted work; the same command does so by itself.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


def tune(
    name: Annotated[str, typer.Argument(metavar="SYSTEM", help="Which system; `vitrail systems` lists them.", autocompletion=complete.systems)],
    data: Data = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the trials are kept.")] = None,
    split: SplitText = None,
    protocol: ProtocolText = None,
    trials: Trials = 20,
    budget: Budget = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting that is fixed and not tuned; repeat for more.")] = None,
    space: SpaceFile = None,
    metric: MetricName = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trials and of every fit.")] = 0,
    device: Device = "auto",
    resume: Resume = False,
    system: Plugin = None,
    quiet: Quiet = False,
    json: JSON = False,
) -> None:
    """Find good settings of a system on the validation part."""
    from vitrail.config import parse_assignments
    from vitrail.lab.tune import tune as run

    load_plugins(system)
    if data is None or out is None:
        raise SettingError(f"tune needs {'--data D, the data-set folder' if data is None else '--out FOLDER, where the trials are kept'}.")
    fixed = parse_assignments(assignments or ())
    found = run(
        name, data, out=out, split=split, protocol=protocol, trials=trials, budget=budget, seed=seed, settings=fixed, space=space, metric=metric,
        device=device, quiet=quiet,
    )  # fmt: skip
    if json:
        show.emit(found.model_dump(mode="json"))
        return
    columns = ("trial", "state", found.metric, "epochs", *found.space)
    ranked = sorted(found.trials, key=lambda a: (a.state != "done", -(a.value or 0.0), a.number))
    rows = [
        (str(a.number + 1), a.state, "" if a.value is None else f"{a.value:.4f}", str(a.epochs or ""), *(_cell(a.settings[key]) for key in found.space))
        for a in ranked
    ]
    if rows:
        show.table(columns, rows, right=["trial", found.metric, "epochs"])
    if found.best is not None:
        best = ", ".join(f"{key}={_cell(value)}" for key, value in found.best.settings.items())
        show.line(f"Best: {best} ({found.metric} {found.best.value:.4f} on validation).")
    where = "" if split is None else f" --split {split}"
    show.line(f"Fit with it: vitrail fit {name} --data {data}{where} --config {out / 'best.yaml'} --out RUN")


def compare(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="SYSTEM...", help="Systems to tune and fit, or finished runs.", autocompletion=complete.systems)
    ] = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where everything is kept; not needed for finished runs.")] = None,
    split: SplitText = None,
    protocol: ProtocolText = None,
    seeds: Annotated[int, typer.Option(help="Seeds a system (one fit where the seed moves nothing).")] = 5,
    trials: Trials = 20,
    budget: Budget = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="[SYSTEM.]KEY=VALUE", help="A setting that is fixed, of one system or of all that have it.")
    ] = None,
    space: SpaceFile = None,
    metric: MetricName = None,
    family: Annotated[str | None, typer.Option(metavar="NAME", help="All systems of a family that the data allow, e.g. ranking, multimodal.")] = None,
    without: Annotated[list[str] | None, typer.Option(metavar="SYSTEM", help="With --family: leave this one out; repeat for more.")] = None,
    baseline: Annotated[str | None, typer.Option(metavar="SYSTEM", help="Test every system against this one only; best: the best of other families.")] = None,
    refit: Annotated[bool, typer.Option("--refit", help="After selection, fit again on train and valid.")] = False,
    tests: Annotated[bool, typer.Option("--tests/--no-tests", help="Significance tests.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    recipes: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Recipes with published numbers.", file_okay=False)] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="A copy of the page; only its tables, as Markdown, where FILE ends in .md.")] = None,
    content: Annotated[
        bool, typer.Option("--content", help="Also measure each kind of content left out, noisy, and missing for 25, 50 and 75 % of the items.")
    ] = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="With --content: also fit each system anew without each kind.")] = False,
    also_split: Annotated[
        list[str] | None,
        typer.Option("--also-split", metavar="TEXT", help="Also fit once under this split, as tuned; repeat for more.", autocompletion=complete.splits),
    ] = None,
    device: Device = "auto",
    resume: Resume = False,
    system: Plugin = None,
    quiet: Quiet = False,
    json: JSON = False,
) -> None:
    """Compare systems: tuned alike, over seeds, with tests and a page."""
    from vitrail.config import parse_assignments
    from vitrail.lab.compare import compare as run
    from vitrail.lab.runs import compare_runs, is_run

    load_plugins(system)
    names = names or []
    runs = [name for name in names if is_run(name)]
    if runs and len(runs) < len(names):
        other = next(name for name in names if name not in runs)
        raise SettingError(f'"{runs[0]}" is a run and "{other}" a system: compare systems, or finished runs.')
    if runs:
        if assignments or space or split or protocol or family or without:
            raise SettingError("Finished runs have their settings, split and protocol: leave --set, --space, --split, --protocol, --family and --without out.")
        if content or retrain or also_split:
            raise SettingError("Finished runs are compared as they are: leave --content, --retrain and --also-split out, or name systems.")
        result = compare_runs(
            names, data=data, out=out, metric=metric, baseline=baseline, tests=tests, recipes=recipes, report=report, quiet=quiet
        )
    else:
        from vitrail.lab.members import check_systems

        if family is None:
            check_systems(names)
        if data is None or out is None:
            raise SettingError(f"compare needs {'--data D, the data-set folder' if data is None else '--out FOLDER, where everything is kept'}.")
        result = run(
            names, data, out=out, split=split, protocol=protocol, seeds=seeds, trials=trials, budget=budget, metric=metric, refit=refit,
            settings=parse_assignments(assignments or ()), space=space, baseline=baseline, tests=tests, seed=seed, recipes=recipes, report=report,
            family=family, without=without or (), content=content, retrain=retrain, also_split=also_split or (), device=device, quiet=quiet,
        )  # fmt: skip
    for warning in result["warnings"]:
        show.warn(warning)
    if json:
        show.emit(result)
    else:
        _print(result)


def effects(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SYSTEM...]", help="Systems, fitted at their settings as given.", autocompletion=complete.systems)
    ] = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where everything is kept.")] = None,
    splits: Annotated[list[str] | None, typer.Option("--split", help="A way to cut the data; repeat for more.", autocompletion=complete.splits)] = None,
    masks: Annotated[list[str] | None, typer.Option("--mask", help="Whose items leave the ranking: none, train, train+valid; repeat for more.")] = None,
    refit: Annotated[str, typer.Option(metavar="both|no|yes", help="Whether systems are fitted again on train and valid.")] = "both",
    seeds: Annotated[int, typer.Option(help="Seeds a system.")] = 1,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="[SYSTEM.]KEY=VALUE", help="A setting, of one system or of all that have it.")
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="What systems are ordered by, e.g. recall@20.")] = "recall@20",
    modalities: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Instead: what each kind of content does for this run, left out, noisy, or missing for some items.")
    ] = None,
    noise: Annotated[list[float] | None, typer.Option(help="With --modalities: noise, as a share of a vector's size; repeat. 0.5, 1, 2.")] = None,
    missing: Annotated[list[float] | None, typer.Option(help="With --modalities: share of items that lack it; repeat. 0.25, 0.5, 0.75.")] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="With --modalities: fit anew on the changed content.")] = False,
    device: Device = "auto",
    system: Plugin = None,
    quiet: Quiet = False,
    json: JSON = False,
) -> None:
    """Show what the split, the mask and the refit alone do to the numbers and the order of systems; or what content does for a run."""
    from vitrail.config import parse_assignments
    from vitrail.lab.effects import effects as run
    from vitrail.lab.effects import report

    load_plugins(system)
    if modalities is not None:
        from vitrail.lab import modalities as content

        if names or out is None:
            raise SettingError("effects --modalities RUN looks at one run, and needs --out FOLDER, where everything is kept: name no systems.")
        told_of = content.modality_effects(
            modalities, out=out, data=data, noise=noise or (0.5, 1.0, 2.0), missing=missing or (0.25, 0.5, 0.75), seeds=seeds, metric=metric, retrain=retrain,
            device=device, quiet=quiet,
        )  # fmt: skip
        show.emit(told_of) if json else show.line(content.report(told_of))
        return
    if not names:
        raise SettingError("effects needs systems to fit, as in `vitrail effects popular ease --data D --out FOLDER`, or --modalities RUN.")
    if data is None or out is None:
        raise SettingError(f"effects needs {'--data D, the data-set folder' if data is None else '--out FOLDER, where everything is kept'}.")
    told = {"both": (False, True), "no": (False,), "yes": (True,)}
    if refit not in told:
        raise SettingError(f'--refit is "{refit}": give both, no or yes.')
    if not splits:
        from vitrail.data.dataset import Dataset
        from vitrail.data.splits import default_split

        splits = [default_split(Dataset(data).info)]
    result = run(
        names, data, out=out, splits=splits, masks=masks or ("train+valid", "train"), refits=told[refit], seeds=seeds, metric=metric,
        settings=parse_assignments(assignments or ()), device=device, quiet=quiet,
    )  # fmt: skip
    if json:
        show.emit(result)
    else:
        show.line(report(result))


def _print(result: Mapping[str, Any]) -> None:
    from vitrail.evaluation.metrics import RANKERS

    metric = result["metric"]
    ranks = metric in RANKERS
    show.line(f"{result['data']}, {result['part']} part, {result['users']:,} {'users' if ranks else 'queries'}, fingerprint {result['fingerprint']}")
    show.line(f"protocol {result['protocol']}")
    others = [name for name in (("auc", "gauc", "logloss", "ece") if ranks else ("ndcg@10", "recall@10", "recall@20", "coverage@10")) if name != metric]
    rows = []
    for row in result["systems"]:
        cost, sd = result["cost"]["systems"][row["system"]], row["sd"].get(metric)
        low, high = row["ci"].get(metric, (float("nan"), float("nan")))
        spread = "" if sd is None else f"{sd:.4f}"
        seeds = "any" if row["deterministic"] else str(len(row["seeds"]))
        memory = "" if cost["peak_memory"] is None else f"{cost['peak_memory'] / 2**20:,.0f}"
        means = [f"{row['mean'][name]:.4f}" if name in row["mean"] else "" for name in others]
        cpu = "" if cost["cpu_seconds"] is None else f"{cost['cpu_seconds']:.1f}"
        mean = f"{'>= ' if row['cut'] else ''}{row['mean'][metric]:.4f}"
        fit = cost["fit_seconds"] if cost["wall_seconds"] is None else cost["wall_seconds"]
        values = (mean, spread, f"{low:.4f} to {high:.4f}", *means, f"{fit:.1f}", cpu, memory, f"{row['parameters']:,}")
        rows.append((row["system"], seeds, *values))
    columns = ("system", "seeds", metric, "± seeds", "95 % interval", *others, "fit s", "CPU s", "peak MiB", "parameters")
    show.table(columns, rows, right=[name for name in columns if name not in ("system", "95 % interval")])
    for row in result["systems"]:
        for entry in result["published"].get(row["system"], ()):
            both = [f"{name} {value:.4f} (ours {row['mean'][name]:.4f})" for name, value in entry["metrics"].items() if name in row["mean"]]
            if both:
                show.line(f"{row['system']}, {entry['source']}: {', '.join(both)}; {entry['protocol']}")
    beside = [text for part in ("content", "splits") for text in result.get(part, {}).get("sentences", ())]
    for sentence in (*filter(None, [result.get("baseline")]), *result["sentences"], *beside):
        show.line(sentence)
    for sentence in result["cut"]:
        show.line(sentence)


def _cell(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
