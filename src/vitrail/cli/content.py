"""content encode, similar, list and import. A flag is a keyword of the Python function of the same name; a test holds the two together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vitrail.cli import show

JSON = Annotated[bool, typer.Option("--json", help=show.JSON_HELP)]
Data = Annotated[Path, typer.Argument(metavar="DATA", help="A data-set folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
app = typer.Typer(name="content", help="Vectors of items' texts and pictures: encode, ask, list, import.", no_args_is_help=True)


@app.command()
def encode(
    data: Data,
    text: Annotated[str | None, typer.Option(metavar="ENCODER", help="minilm, tfidf, words, or a transformers name or path.")] = None,
    image: Annotated[str | None, typer.Option(metavar="ENCODER", help="colour-texture, or a transformers name or path (CLIP, SigLIP, DINO).")] = None,
    columns: Annotated[str | None, typer.Option(metavar="A,B", help="Item attributes to read, in this order; by default all of the kind.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the vectors; by default text or image.")] = None,
    prefix: Annotated[str, typer.Option(help='Put before each text, e.g. "passage: ".')] = "",
    query_prefix: Annotated[str, typer.Option(help='Put before each question, e.g. "query: ".')] = "",
    pooling: Annotated[str, typer.Option(help="How the vectors of tokens become one: mean, cls or last.")] = "mean",
    length: Annotated[int, typer.Option(min=1, help="Tokens that are read of a text.")] = 256,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    device: Device = "auto",
    cache: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where vectors are kept by content; by default in the data set's cache.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace vectors of another encoder.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    json: JSON = False,
) -> None:
    """Encode the texts and pictures of items; only what is new is encoded, and a job that was cut off goes on."""
    from vitrail.content.encode import encode as run
    from vitrail.errors import SettingError

    for flag, value, known in (("pooling", pooling, ("mean", "cls", "last")), ("precision", precision, ("auto", "fp32", "bf16"))):
        if value not in known:
            raise SettingError(f'--{flag} is "{value}": use {", ".join(known[:-1])} or {known[-1]}.')
    asked = None if columns is None else [column.strip() for column in columns.split(",") if column.strip()]
    reports = run(
        data, text=text, image=image, columns=asked, name=name, prefix=prefix, query_prefix=query_prefix, pooling=pooling, length=length,  # type: ignore[arg-type]
        precision=precision, device=device, cache=cache, overwrite=overwrite, quiet=quiet or json,  # type: ignore[arg-type]
    )  # fmt: skip
    if json:
        show.emit(reports)
        return
    for report in reports:
        rate = f" at {report['items_per_second']:,} items/s" if report["encoded"] else ""
        show.line(f"{report['name']}: {report['items']:,} items as {report['dim']} numbers by {report['encoder']}, from {', '.join(report['columns'])}")
        show.line(f"  encoded {report['encoded']:,} new contents{rate}, {report['seconds']:.1f} s in all; {report['without']:,} items have none")
        if report["unreadable"]:
            show.line(f"  {report['unreadable']:,} items have content that says nothing to the encoder or cannot be read")
    show.line(f'Next: vitrail content similar {data} "WORDS", or vitrail fit content-knn --data {data} --out RUN --set vectors=[{reports[0]["name"]}]')


@app.command()
def similar(
    data: Data,
    query: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="What is looked for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="Look for what resembles this picture.")] = None,
    vectors: Annotated[str | None, typer.Option(metavar="NAME", help="Which vectors; by default text for words and image for a picture.")] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="Items.")] = 10,
    device: Device = "auto",
    json: JSON = False,
) -> None:
    """The items whose content is nearest to a text or a picture."""
    from vitrail.content.similar import similar as run

    table = run(data, query, image=image, vectors=vectors, k=k, device=device)
    if json:
        show.emit(table.to_dicts())
        return
    show.table(tuple(table.columns), [tuple(_short(value) for value in row) for row in table.rows()])


def _short(value: Any) -> Any:
    return value[:80] + "..." if isinstance(value, str) and len(value) > 83 else ", ".join(value) if isinstance(value, list) else value


@app.command("list")
def list_(data: Data, json: JSON = False) -> None:
    """The vectors a data set has."""
    from vitrail.data.dataset import Dataset
    from vitrail.data.vectors import read_info

    dataset = Dataset(data)
    found = {name: read_info(dataset.path, name) for name in dataset.vector_names()}
    if json:
        show.emit([{"name": name, **info.model_dump(mode="json")} for name, info in found.items()])
    elif found:
        rows = [(name, i.kind, i.encoder, i.revision, i.dim, i.rows, ", ".join(i.columns)) for name, i in found.items()]
        show.table(("name", "kind", "encoder", "revision", "width", "items", "columns"), rows)
    else:
        show.line(f"No vectors yet: make some with vitrail content encode {data}.")


@app.command("import")
def bring(
    data: Data,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the vectors, e.g. image.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.npy", help="Floats, a row an item.")],
    ids: Annotated[Path | None, typer.Option(metavar="FILE", help="The item id of each row, one a line; by default row n is of the item n.")] = None,
    kind: Annotated[str, typer.Option(help="What they are of: text, image or other.")] = "other",
    encoder: Annotated[str, typer.Option(help="What made them, for the record.")] = "import",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace vectors of another encoder.")] = False,
    json: JSON = False,
) -> None:
    """Take vectors that were made elsewhere."""
    from vitrail.content.bring import bring as run
    from vitrail.errors import SettingError

    if kind not in ("text", "image", "other"):
        raise SettingError(f'--kind is "{kind}": use text, image or other.')
    report = run(data, name, file, ids=ids, kind=kind, encoder=encoder, overwrite=overwrite)  # type: ignore[arg-type]
    if json:
        show.emit(report)
        return
    show.line(f"{name}: {report['items']:,} items as {report['dim']} numbers; {report['without']:,} items have none")
    if report["zeros"] or report["strangers"]:
        show.line(f"  left out: {report['zeros']:,} rows of zeros, {report['strangers']:,} rows of items that are not here")
