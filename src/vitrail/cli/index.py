"""index build, index search, index stats."""

from __future__ import annotations

import time
import uuid
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vitrail.cli import show
from vitrail.cli.answer import Count, Filter, RunArgument
from vitrail.cli.learn import JSON, Plugin, load_plugins

app = typer.Typer(name="index", no_args_is_help=True, help="Indexes over the item vectors of a fitted system: build, search, look at.")

IndexArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="An index folder.")]


class KindName(StrEnum):
    """The kinds of index.build."""

    auto = "auto"
    exact = "exact"
    ivf = "ivf"
    hnsw = "hnsw"
    ivf_sq8 = "ivf-sq8"
    ivf_rabitq = "ivf-rabitq"


class NumberName(StrEnum):
    """How vectors are kept."""

    float32 = "float32"
    float16 = "float16"


@app.command()
def build(
    run: RunArgument,
    recall: Annotated[float, typer.Option(help="Share of the true k best that a search must find.")] = 0.95,
    kind: Annotated[KindName, typer.Option(help="The engine; auto: by size, and by what is fastest on these vectors.")] = KindName.auto,
    k: Annotated[int, typer.Option("--k", "-k", help="Answers it is tuned for.")] = 10,
    dtype: Annotated[NumberName, typer.Option(help="Numbers of the vectors kept; float16 takes half the place.")] = NumberName.float32,
    out: Annotated[Path | None, typer.Option(metavar="INDEX", help="Where it goes; none: RUN/index.")] = None,
    dim: Annotated[int | None, typer.Option(help="Index the first so many numbers of nested vectors: a shortlist, ranked by all of them.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an index that is there.")] = False,
    system: Plugin = None,
    json: JSON = False,
) -> None:
    """Build an index to a recall over the item vectors of a run, tuned on the vectors of its users; the recall is measured and told."""
    from vitrail.files import refuse_taken
    from vitrail.funnel.recommender import load
    from vitrail.funnel.through_index import index_of

    load_plugins(system)
    target = out or run / "index"
    refuse_taken(target, overwrite=overwrite)
    started = time.perf_counter()
    said: list[str] = []
    tell = said.append if json else show.note
    index = index_of(load(run, dim=dim), kind=kind.value, recall=recall, k=k, dtype=dtype.value, say=tell)
    index.save(target, overwrite=overwrite)
    facts = {**index.stats(), "out": str(target), "bytes": _size(target), "seconds": round(time.perf_counter() - started, 2)}
    if json:
        show.emit({**facts, "said": said})
        return
    _tell(facts, title=f"The index {target}:")
    show.line(f"Ask through it: vitrail recommend {run} --user U --index {target}")


@app.command()
def search(
    path: IndexArgument,
    item: Annotated[str, typer.Option(help="An item of the index; its own vector asks.")],
    k: Count = 10,
    filter: Filter = None,
    json: JSON = False,
) -> None:
    """The items whose vectors are nearest to an item's. For users and histories: vitrail recommend RUN --index INDEX."""
    from vitrail.errors import SettingError
    from vitrail.index import base
    from vitrail.index.exact import ExactIndex
    from vitrail.index.store import open_index

    index = open_index(path)
    if not isinstance(index, ExactIndex):
        raise SettingError(f"{path} keeps its vectors on a server ({index.kind}), where they are not read back: ask it with a vector, from Python.")
    hits = index.search(index.vectors([item]), k + 1, None if filter is None else base.Filter(where=filter))
    pairs = [(name, score) for name, score in zip(hits.ids[0].tolist(), hits.scores[0].tolist(), strict=True) if name not in (None, item)]
    found = [{"item": name, "rank": rank, "score": score} for rank, (name, score) in enumerate(pairs[:k], start=1)]
    if json:
        show.emit({"item": item, "request_id": str(uuid.uuid4()), "kind": index.kind, "items": found})
        return
    show.line(f"Nearest to {item}, by {index.metric} ({index.kind}):")
    show.table(("rank", "item", "score"), [(row["rank"], row["item"], row["score"]) for row in found], right=["rank", "score"])


@app.command()
def stats(path: IndexArgument, json: JSON = False) -> None:
    """What an index holds, how it was tuned, and the recall measured; its files are checked."""
    from vitrail.index.store import open_index

    facts = {**open_index(path).stats(), "bytes": _size(path)}
    if json:
        show.emit(facts)
    else:
        _tell(facts, title=f"The index {path}:")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _tell(facts: dict[str, Any], title: str) -> None:
    recall = facts["recall"]
    if recall.get("measured") is not None:
        on = f" on {recall['queries']:,} queries" if recall.get("queries") else ""
        facts = {**facts, "recall": f"{recall['measured']:.4f} at {recall.get('k', 'any')}, measured{on} (asked {recall['target']:g})"}
    show.facts({name: value for name, value in facts.items() if name != "plan"}, title=title)
