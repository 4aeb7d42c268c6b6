"""explain, map."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vitrail.cli import show
from vitrail.cli.answer import Count, Filter, RunArgument, split_ids
from vitrail.cli.learn import JSON, Plugin, load_plugins
from vitrail.errors import SettingError


class MethodName(StrEnum):
    """How items get onto a plane."""

    auto = "auto"
    tsne = "tsne"
    pca = "pca"


def explain(
    run: RunArgument,
    user: Annotated[str | None, typer.Option(help="A user id; an unknown one shows the day-zero answer.")] = None,
    history: Annotated[list[str] | None, typer.Option(metavar="A,B,C", help="Item ids, oldest first; quote ids that hold commas.")] = None,
    k: Count = 10,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Items of the history may come back.")] = False,
    filter: Filter = None,
    system: Plugin = None,
    json: JSON = False,
) -> None:
    """Which kind of content, which items of the history and which alike items carried each recommendation; of a funnel, what each stage did."""
    from vitrail.funnel.build import open_answerer
    from vitrail.funnel.explain_run import explain_run
    from vitrail.funnel.recommender import Recommender

    if (user is None) == (history is None):
        raise SettingError("Explain one of --user U and --history A,B,C.")
    load_plugins(system)
    answerer = open_answerer(run)
    if not isinstance(answerer, Recommender):
        from vitrail.cli.funnel import explain as of_funnel

        of_funnel(run, user, history, k, include_seen, filter, system, json)
        return
    found = explain_run(answerer, user, None if history is None else split_ids(history), k, include_seen=include_seen, filter=filter)
    if json:
        show.emit(found)
        return
    who = f"user {user}" if user is not None else "a history"
    show.line(f"{who}, {found['known']:,} events known, by {found['system']}" + (f"; fallback {found['fallback']}" if found["fallback"] else ""))
    columns = ("rank", "item", "score", *(name for name in REASONS if any(_reason(row["why"], name) for row in found["items"])))
    rows = [(row["rank"], row["item"], f"{row['score']:.4g}", *(_reason(row["why"], name) for name in columns[3:])) for row in found["items"]]
    show.table(columns, rows, right=["rank", "score"])
    for name in columns[3:]:
        show.line(f"{name}: {REASONS[name]}")


REASONS = {
    "parts": "what behaviour and each kind of content add to the score",
    "without": "how much lower the score is without that kind of content, and the rank the item would have",
    "history": "items of the history that are most like it",
    "attention": "what was read of the history",
    "neighbours": "items of alike content that its score came through",
}


def _reason(why: dict[str, Any] | None, name: str) -> str:
    told = (why or {}).get(name) or []
    if name == "parts":
        return ", ".join(f"{one['part']} {one['score']:+.3g}" for one in told)
    if name == "without":
        return ", ".join(f"{one['modality']} " + ("gone" if one["score"] is None else f"{-one['score']:+.3g} (rank {one['rank']})") for one in told)
    value = {"history": "similarity", "attention": "weight", "neighbours": "score"}[name]
    return ", ".join(f"{one['item']} {one[value]:.2g}" for one in told)


def item_map(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(metavar="F.html", help="Where the page goes; it needs nothing else.")] = None,
    category: Annotated[str | None, typer.Option(help="The attribute that colours items; none: the likeliest.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Items that are drawn, the popular ones first.")] = 3000,
    method: Annotated[MethodName, typer.Option(help="tsne wants scikit-learn; pca: two principal components; auto: tsne where it can.")] = MethodName.auto,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the map.")] = 0,
    system: Plugin = None,
    json: JSON = False,
) -> None:
    """Draw the items of a run on a plane, near each other where it holds them alike, with their pictures, as one HTML page."""
    from vitrail.funnel.recommender import load
    from vitrail.serve.page.item_map import item_map as run_map
    from vitrail.serve.page.item_map import write_map

    load_plugins(system)
    if out is None and not json:
        raise SettingError("map needs --out F.html, the page to write, or --json.")
    asked: dict[str, Any] = {"category": category, "most": most, "method": method.value, "seed": seed}
    recommender = load(run)
    made = run_map(recommender, **asked) if out is None else write_map(recommender, out, **asked)
    if json:
        show.emit(made)
    else:
        show.line(f"{len(made['points']):,} items by {made['what']}, {made['how']}, are in {out}.")
