"""funnel: run, evaluate, explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitrail.cli import show
from vitrail.cli.answer import split_ids
from vitrail.cli.learn import JSON, Plugin, load_plugins
from vitrail.errors import SettingError

if TYPE_CHECKING:
    from vitrail.funnel.measure import FunnelEvaluation

app = typer.Typer(no_args_is_help=True, help="Build, measure and explain a whole funnel from one file.", rich_markup_mode=None)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `vitrail funnel run`.")]
Data = Annotated[Path | None, typer.Option(help="The data-set folder, if it is not where the file says.", file_okay=False)]
Queries = Annotated[int, typer.Option(min=1, help="Queries at most, drawn at random.")]
Places = Annotated[int, typer.Option("--k", "-k", min=1, help="Places of a page.")]


@app.command("run")
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A funnel file.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the funnel goes; what is there already is kept, so the same command goes on.")],
    data: Data = None,
    k: Places = 10,
    queries: Queries = 20_000,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    measure: Annotated[bool, typer.Option("--evaluate/--no-evaluate", help="Measure it on the test part when it is built.")] = True,
    system: Plugin = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    json: JSON = False,
) -> None:
    """Build a funnel: fit what is missing, train the ranker, measure every stage."""
    from vitrail.funnel.build import run_funnel
    from vitrail.funnel.measure import evaluate_funnel

    load_plugins(system)
    built = run_funnel(file, out, data=data, device=device, quiet=quiet)
    if not measure:
        if json:
            show.emit({"funnel": built.name, "out": str(out), "sources": [source.name for source in built.sources]})
        else:
            show.line(f"{built!r} is in {out}.")
        return
    evaluation = evaluate_funnel(built, data=data, k=k, queries=queries)
    _store(out, evaluation)
    _print(evaluation, json)
    if not json:
        show.line(f"Ask it: vitrail funnel explain {out} --user U")


def _store(out: Path, evaluation: FunnelEvaluation) -> None:
    from vitrail.files import write_json

    write_json(out / "evaluation.json", evaluation.as_json())


@app.command("evaluate")
def evaluate(
    folder: Folder,
    data: Data = None,
    k: Places = 10,
    queries: Queries = 20_000,
    requests: Annotated[int, typer.Option(min=1, help="Single requests that are timed.")] = 200,
    system: Plugin = None,
    json: JSON = False,
) -> None:
    """Measure a funnel stage by stage: what each adds, loses and costs."""
    from vitrail.funnel.measure import evaluate_funnel

    load_plugins(system)
    evaluation = evaluate_funnel(folder, data=data, k=k, queries=queries, requests=requests)
    _store(folder, evaluation)
    _print(evaluation, json)


def _print(evaluation: FunnelEvaluation, json: bool) -> None:
    for warning in evaluation.warnings:
        show.warn(warning)
    if json:
        show.emit(evaluation.as_json())
        return
    show.line(f"{evaluation.funnel} on {evaluation.data}, {evaluation.part} part")
    k = evaluation.k
    for name, asked in evaluation.asked.items():
        show.line(f"{name}: {asked.queries:,} queries; {asked.protocol}")
        columns = [f"{metric}@{k}" for metric in ("ndcg", "recall", "intra_list_diversity", "category_entropy", "alpha_ndcg", "coverage")]
        columns = [column for column in columns if any(column in stage.metrics for stage in asked.stages)]
        rows = [
            (
                one.stage,
                f"{one.candidates:.0f}",
                "" if one.ceiling is None else f"{one.ceiling:.4f}",
                *("" if column not in one.metrics else f"{one.metrics[column]:.4f}" for column in columns),
            )
            for one in asked.stages
        ]
        show.table(("stage", "items", "ceiling", *columns), rows, right=["items", "ceiling", *columns])
        steps = [(step.what, step.metric, f"{step.diff:+.4f}", f"{step.ci[0]:+.4f} to {step.ci[1]:+.4f}", f"{step.p:.4f}") for step in asked.steps]
        show.table(("step", "metric", "difference", "95 % interval", "p"), steps, right=["difference", "95 % interval", "p"])
    times = [(stage, f"{told['p50']:.2f}", f"{told['p99']:.2f}") for stage, told in evaluation.milliseconds.items()]
    show.table(("stage", "p50 ms", "p99 ms"), times, right=["p50 ms", "p99 ms"], title="One request at a time, on this machine:")
    if evaluation.late:
        show.warn(f"The ranker was late in {evaluation.late:.0%} of these requests, which got the retrieval order: raise budget_ms, or rank fewer.")


@app.command("explain")
def explain(
    folder: Folder,
    user: Annotated[str | None, typer.Option(help="A user id; an unknown one shows the day-zero answer.")] = None,
    history: Annotated[list[str] | None, typer.Option(metavar="A,B,C", help="Item ids, oldest first; quote ids that hold commas.")] = None,
    k: Places = 10,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Items of the history may come back.")] = False,
    filter: Annotated[str | None, typer.Option("--filter", metavar="EXPR", help="Only items for which this holds.")] = None,
    system: Plugin = None,
    json: JSON = False,
) -> None:
    """What each stage added, dropped and moved for one request."""
    from vitrail.funnel.build import load_funnel
    from vitrail.funnel.explain import explain as told

    if (user is None) == (history is None):
        raise SettingError("Explain one of --user U and --history A,B,C.")
    load_plugins(system)
    found = told(load_funnel(folder), user, None if history is None else split_ids(history), k, include_seen=include_seen, filter=filter)
    if json:
        show.emit(found)
        return
    who = f"user {user}" if user is not None else "a history"
    show.line(f"{who}, {found['known']:,} events known" + (f"; fallback {found['fallback']}" if found["fallback"] else ""))
    counts = ("count", "added", "dropped", "moved")
    rows = [(one["stage"], *(_count(one, key) for key in counts), one["items"][:k]) for one in found["stages"]]
    show.table(("stage", "items", "added", "dropped", "moved", "first"), rows, right=["items", "added", "dropped", "moved"])
    show.line("Milliseconds: " + ", ".join(f"{stage} {value:.2f}" for stage, value in found["milliseconds"].items()))


def _count(stage: dict[str, Any], key: str) -> str:
    value = stage.get(key, "")
    return str(len(value)) if isinstance(value, list) else str(value)
