"""How a recipe's data set is made: ingested once from files under VITRAIL_DATA, its items joined from other tables where it must be, its content encoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitrail.config import PositiveInt, Settings
from vitrail.data.ingest import IngestSettings
from vitrail.data.rows import RowSettings
from vitrail.errors import DataError, SettingError
from vitrail.files import atomic_file, read_json, write_json

if TYPE_CHECKING:
    from vitrail.data.dataset import Dataset

Say = Callable[[str], None]


class Ingest(Settings):
    """What `vitrail.data.ingest.ingest` is given; paths, that of `flags.images` too, are relative to VITRAIL_DATA."""

    files: list[str] = []
    train: str | None = None
    valid: str | None = None
    test: str | None = None
    items: list[str] = []
    users: list[str] = []
    events: dict[str, str] = {}
    flags: IngestSettings = IngestSettings()


class Join(Settings):
    """A table of items made out of others before the ingest: `ids`, a table (item, key), joined to the rows of `items` by that key."""

    ids: str
    item: str
    """column of the item id in `ids`"""
    key: str
    """column of `ids` that names a row of `items`"""
    items: str
    items_key: str
    """column of `items` that `key` is in"""
    clean: dict[str, dict[str, str]] = {}
    """column -> regular expression -> what takes its place, one after the other"""


class Encode(Settings):
    """Content to encode, as `vitrail content encode` is given it."""

    encoder: str
    columns: list[str] = []
    """item attributes to read; none: all of the kind"""
    kind: Literal["text", "image"] | None = None
    """none: that of the name, where it is text or image"""
    prefix: str = ""
    pooling: Literal["mean", "cls", "last"] = "mean"
    length: PositiveInt = 256


class ReadRows(Settings):
    """What `vitrail.data.rows.read_rows` is given; paths are relative to VITRAIL_DATA."""

    train: str
    valid: str | None = None
    test: str | None = None
    items: str | None = None
    flags: RowSettings = RowSettings()


class Data(Settings):
    """A data set and how it is made: by `ingest`, or from click-through rows by `rows`."""

    name: str
    ingest: Ingest = Ingest()
    rows: ReadRows | None = None
    join: Join | None = None
    """more items files, made here"""
    content: dict[str, Encode] = {}
    """name of the vectors -> what they are made by and of"""


def prepare(data: Data, *, data_root: str | Path, work: str | Path, say: Say) -> Dataset:
    """Ingest the data set into `work/data/<name>`, or open what is there, and encode the content that the recipe names. Raises DataError
    where the sources are absent, or where that place holds data made otherwise."""
    dataset = _ingested(data, data_root, work, say)
    for name, wanted in data.content.items():
        _encoded(dataset, name, wanted, say)
    return dataset


def _encoded(dataset: Dataset, name: str, told: Encode, say: Say) -> None:
    """Vectors that are there and made as the recipe says are left alone; what others made is never replaced."""
    from vitrail.content.encode import encode

    kind = told.kind or name
    if kind not in ("text", "image"):
        raise SettingError(f'The recipe encodes "{name}" and does not say of what: add kind: text or kind: image.')
    report = encode(
        dataset, text=told.encoder if kind == "text" else None, image=told.encoder if kind == "image" else None, columns=told.columns or None,
        name=name, prefix=told.prefix, pooling=told.pooling, length=told.length, precision="fp32",
    )[0]  # fmt: skip
    say(f"vectors {name}: {report['items']:,} items by {report['encoder']}, {report['encoded']:,} contents encoded in {report['seconds']:.1f} s")


def _joined(told: Join, root: Path, out: Path) -> Path:
    """Write the table of items that `told` describes to `out`. Raises DataError where a file or column is absent."""
    import polars as pl

    try:
        tables = {
            name: pl.read_csv(root / name, separator="," if name.endswith(".csv") else "\t", quote_char=None, infer_schema=False)
            for name in (told.ids, told.items)
        }
        ids = tables[told.ids].select(pl.col(told.item), pl.col(told.key).alias(told.items_key))
        table = ids.join(tables[told.items], on=told.items_key, how="left", maintain_order="left")
        for column, pieces in told.clean.items():
            for pattern, piece in pieces.items():
                table = table.with_columns(pl.col(column).str.replace_all(pattern, piece))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"The items cannot be joined from {told.ids} and {told.items}: {str(error).splitlines()[0]}.") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as temporary:
        table.write_csv(temporary, separator="\t")
    return out


def _ingested(data: Data, data_root: str | Path, work: str | Path, say: Say) -> Dataset:
    from vitrail.data.dataset import Dataset
    from vitrail.data.ingest import ingest

    folder = Path(work) / "data" / data.name
    mark = folder.with_name(f"{data.name}.json")
    wanted = {"ingest": data.ingest.model_dump(mode="json", exclude_defaults=True)} if data.rows is None else {"rows": data.rows.model_dump(mode="json")}
    wanted |= {"join": data.join.model_dump(mode="json", exclude_defaults=True)} if data.join is not None else {}
    if folder.exists():
        if not mark.exists() or read_json(mark) != wanted:
            raise DataError(f"{folder} was ingested with other settings than this recipe's: move it away, or choose another place to work.")
        return Dataset(folder)
    root, told = Path(data_root), data.ingest
    missing = [path for path in _sources(data) if not (root / path).exists()]
    if missing:
        raise DataError(f"There is no {root / missing[0]}: put the data there, or say with the variable VITRAIL_DATA where they are.")
    if (rows := data.rows) is not None:
        from vitrail.data.rows import read_rows

        write_json(mark, wanted)
        read = read_rows(
            root / rows.train, valid=_under(root, rows.valid), test=_under(root, rows.test), items=_under(root, rows.items), out=folder,
            settings=rows.flags.but({"name": data.name}),
        )  # fmt: skip
        say(f"read {data.name}: {read.rows:,} impressions, {sum(read.rejected.values()):,} rejected")
        return read.dataset
    more = [] if data.join is None else [_joined(data.join, root, folder.with_name(f"{data.name}.items.tsv"))]
    write_json(mark, wanted)
    report = ingest(
        [root / path for path in told.files],
        out=folder,
        train=_under(root, told.train),
        valid=_under(root, told.valid),
        test=_under(root, told.test),
        items=[*(root / path for path in told.items), *more],
        users=[root / path for path in told.users],
        events={kind: root / path for kind, path in told.events.items()},
        settings=told.flags.but({"name": data.name, "images": _under(root, told.flags.images)}),
    )
    counts = report.dataset.info.counts
    say(f"ingested {data.name}: {counts['users']:,} users, {counts['items']:,} items, {counts['events']:,} events, {sum(report.rejected.values()):,} rejected")
    return report.dataset


def _under(root: Path, path: str | Path | None) -> Path | None:
    return None if path is None else root / path


def _sources(data: Data) -> list[str]:
    if (rows := data.rows) is not None:
        return [path for path in (rows.train, rows.valid, rows.test, rows.items) if path is not None]
    told, join = data.ingest, data.join
    joined = [] if join is None else [join.ids, join.items]
    single = [str(path) for path in (told.train, told.valid, told.test, told.flags.images) if path is not None]
    return [*told.files, *single, *told.items, *told.users, *told.events.values(), *joined]
