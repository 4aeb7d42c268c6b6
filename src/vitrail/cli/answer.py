"""recommend, similar, serve."""

from __future__ import annotations

import csv
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitrail.cli import show
from vitrail.cli.learn import JSON, Plugin, load_plugins
from vitrail.errors import DataError, SettingError

if TYPE_CHECKING:
    from vitrail.funnel.recommender import Recommender

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, a saved model, or a funnel.")]
Count = Annotated[int, typer.Option("--k", "-k", help="How many items.")]
Filter = Annotated[
    str | None, typer.Option("--filter", metavar="EXPR", help="Only items for which this holds, e.g. 'price < 20 and category == \"lipstick\"'.")
]


def _open(run: Path, system: list[Path] | None) -> Recommender:
    from vitrail.funnel.build import open_answerer

    load_plugins(system)
    return open_answerer(run)  # type: ignore[return-value]  # a funnel answers as a recommender does


def recommend(
    run: RunArgument,
    user: Annotated[str | None, typer.Option(help="A user id; an unknown one gets the popular items.")] = None,
    history: Annotated[list[str] | None, typer.Option(metavar="A,B,C", help="Item ids, oldest first; quote ids that hold commas.")] = None,
    users: Annotated[str | None, typer.Option(metavar="all|FILE", help="Everybody, or a file of user ids; needs --out.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="RECS.parquet", help="Where the answers to --users go.")] = None,
    k: Count = 10,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Items of the history may come back.")] = False,
    filter: Filter = None,
    diversity: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="How different the items are, 0 to 1; of one answer.")] = None,
    explore: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="How much is left to chance, 0 to 1, where a funnel explores.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted --users job.")] = False,
    index: Annotated[Path | None, typer.Option(metavar="INDEX", help="Search through an index made by `vitrail index build`.")] = None,
    system: Plugin = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    json: JSON = False,
) -> None:
    """Recommend for a user, a history, or everybody."""
    if sum(asked is not None for asked in (user, history, users)) != 1:
        raise SettingError("Ask for one of --user U, --history A,B,C or --users all|FILE.")
    if (users is None) != (out is None):
        raise SettingError("--users and --out RECS.parquet go together.")
    if users is not None and (diversity is not None or explore is not None):
        raise SettingError("--diversity and --explore shape one answer: ask for one user or history, or put them into the funnel's file.")
    if resume and users is None:
        raise SettingError("--resume goes on with a --users job.")
    from vitrail.serve.answerer import Asker, Question

    recommender = _open(run, system)
    if index is not None:
        from vitrail.index.store import open_index

        recommender = recommender.with_index(open_index(index))
    if users is not None and out is not None:
        asked: Any = "all" if users == "all" else read_users(Path(users))
        rows = recommender.answer_everyone(asked, out, k, include_seen=include_seen, filter=filter, resume=resume, progress=not quiet)
        count = len(recommender.user_ids) if asked == "all" else len(asked)
        if json:
            show.emit({"users": count, "rows": rows, "out": str(out), "k": k})
        else:
            show.line(f"{rows:,} recommendations for {count:,} users are in {out}.")
        return
    ids = None if history is None else split_ids(history)
    answer = Asker(recommender).ask(Question(user, ids, k, include_seen, filter, diversity=diversity, explore=explore))
    if json:
        show.emit({"user": answer["user"], "request_id": str(uuid.uuid4()), "fallback": answer["fallback"], "items": answer["items"]})
        return
    who = f"user {user}" if user is not None else f"a history of {len(ids or ()):,} items"
    show.line(f"For {who}, by {recommender.name}:")
    if answer["fallback"]:
        reason = "the user is unknown or has no events" if user is not None else "the history holds no known item"
        show.line(f"(popular items, because {reason})")
    _print_items(recommender, answer["items"])


def similar(
    run: RunArgument,
    item: Annotated[str, typer.Option(help="An item id of the catalogue.")],
    k: Count = 10,
    filter: Filter = None,
    system: Plugin = None,
    json: JSON = False,
) -> None:
    """Items similar to an item."""
    from vitrail.serve.shapes import similar_items

    recommender = _open(run, system)
    items = similar_items(recommender, item, k, filter)
    if json:
        show.emit({"item": item, "request_id": str(uuid.uuid4()), "items": items})
        return
    show.line(f"Similar to {item}, by {recommender.name}:")
    _print_items(recommender, items)


def serve(
    run: RunArgument,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    token: Annotated[str | None, typer.Option(envvar="VITRAIL_TOKEN", help="What requests must carry; the variable keeps it out of the process list.")] = None,
    store: Annotated[
        str | None, typer.Option(envvar="VITRAIL_STORE", metavar="URL", help="Where events and answers are kept: a file, postgresql://, redis://, or none.")
    ] = None,
    tokens: Annotated[Path | None, typer.Option(metavar="FILE", help="Tokens with roles (read, events, admin), as YAML; or VITRAIL_TOKENS.")] = None,
    models: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Runs that /models may load; by default those beside RUN.")] = None,
    runs: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Runs and comparisons that the studio shows; by default those beside RUN.")] = None,
    rate: Annotated[float, typer.Option(help="Requests a second of one token or address; 0: any.")] = 0.0,
    budget_ms: Annotated[float | None, typer.Option(help="Milliseconds after which the popular items are answered.")] = None,
    flush_ms: Annotated[float, typer.Option(help="Milliseconds an answer may wait to be logged.")] = 200.0,
    history_events: Annotated[list[str] | None, typer.Option("--history-event", metavar="KIND", help="Kind of event that is history; repeat. All.")] = None,
    log: Annotated[str, typer.Option(help="What is logged as JSON lines: errors, requests or none.")] = "errors",
    max_k: Annotated[int, typer.Option(help="The most items of an answer.")] = 100,
    max_body: Annotated[int, typer.Option(help="The most bytes of a request body; 16 times as many for batches.")] = 64 * 1024,
    max_history: Annotated[int, typer.Option(help="The most events of a history.")] = 1000,
    workers: Annotated[int, typer.Option(help="Processes; each loads the model.")] = 1,
    index: Annotated[Path | None, typer.Option(metavar="INDEX", help="Answer through an index made by `vitrail index build RUN`.")] = None,
    system: Plugin = None,
) -> None:
    """Answer over HTTP, and take in events, until told to stop."""
    from vitrail.serve.server import serve as run_server

    plugins = [str(file) for file in system or ()]
    run_server(
        run, host, port, token, workers, index=index, store=store, tokens=tokens, models=models, runs=runs, rate=rate, flush_ms=flush_ms, budget_ms=budget_ms,
        history_events=history_events or (), log=log, max_k=max_k, max_body=max_body, max_history=max_history, plugins=plugins,  # type: ignore[arg-type]
    )  # fmt: skip


def split_ids(texts: list[str]) -> list[str]:
    """`["a,b", '"c,d"']` -> `["a", "b", "c,d"]`; an empty text is an empty history."""
    rows = csv.reader(texts, skipinitialspace=True)
    try:
        return [name for row in rows for name in row if name]
    except csv.Error:
        raise SettingError("--history cannot be read: separate ids by commas, and quote one that holds a comma.") from None


def read_users(file: Path) -> list[str]:
    """User ids of a file: one a line, or the column `user` of a Parquet file. Raises DataError."""
    if not file.is_file():
        raise DataError(f"There is no file {file}: --users takes `all` or a file with one user id a line.")
    if file.suffix == ".parquet":
        import polars as pl

        try:
            table = pl.read_parquet(file)
        except pl.exceptions.PolarsError:
            raise DataError(f"{file} is not readable Parquet.") from None
        if "user" not in table.columns:
            raise DataError(f'{file} has no column "user": its columns are {", ".join(table.columns)}.')
        ids = table["user"].drop_nulls().cast(pl.String).to_list()
    else:
        try:
            ids = [text for text in file.read_text(encoding="utf-8-sig").splitlines() if text]
        except UnicodeDecodeError:
            raise DataError(f"{file} is not UTF-8 text: --users takes a file with one user id a line.") from None
    if not ids:
        raise DataError(f"{file} holds no user id.")
    return ids


def _print_items(recommender: Recommender, items: list[dict[str, Any]]) -> None:
    columns = shown_columns(recommender)
    rows = []
    for row in items:
        attributes = recommender.items.row(recommender.item_ids.code(row["item"]), named=True)
        rows.append((row["rank"], row["item"], f"{row['score']:.4g}", *(_short(attributes[name]) for name in columns)))
    show.table(("rank", "item", "score", *columns), rows, right=["rank", "score", *(name for name in columns if recommender.items.schema[name].is_numeric())])


def shown_columns(recommender: Recommender) -> list[str]:
    """The columns of the catalogue that tell people what an item is: its name, its categories, its price; three at most."""
    from vitrail.funnel.catalogue import columns_for_people

    found = columns_for_people(recommender.items.schema, recommender.info.get("columns") or {})
    return list(dict.fromkeys(name for name in (found.title, found.category, found.price) if name is not None))


def _short(value: Any) -> str:
    text = show.cell(value)
    return text if len(text) <= 60 else text[:57] + "..."
