"""data get, data ingest, data describe, data simulate. A flag is a field of the settings class of the same name; a test holds the two together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitrail.cli import show

if TYPE_CHECKING:
    from vitrail.data.ingest import Guess, IngestReport

JSON = Annotated[bool, typer.Option("--json", help=show.JSON_HELP)]
Text = Annotated[str | None, typer.Option()]
app = typer.Typer(name="data", help="Get, make, describe and simulate data sets.", no_args_is_help=True)


def column(what: str) -> Any:
    """A flag that names a column."""
    return typer.Option(metavar="COLUMN", help=f"Column of {what}; none: there is no such column. By default guessed.")


def pairs(texts: Iterable[str] | None, flag: str) -> dict[str, str]:
    """`["a=1"]` -> `{"a": "1"}`. Raises SettingError for a text without `=`."""
    from vitrail.errors import SettingError

    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise SettingError(f'{flag} "{text}" is not of the form name=value.')
        found[key] = value
    return found


@app.command()
def ingest(
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILES]...", help="Files of events, or one folder of a known form.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The data-set folder to write.")] = None,
    train: Annotated[Path | None, typer.Option(help="Training events, where the files come split.")] = None,
    valid: Annotated[Path | None, typer.Option(help="Validation events, where the files come split.")] = None,
    test: Annotated[Path | None, typer.Option(help="Test events, where the files come split.")] = None,
    items: Annotated[list[Path] | None, typer.Option(help="Attributes of items; repeat for more files.")] = None,
    users: Annotated[list[Path] | None, typer.Option(help="Attributes of users; repeat for more files.")] = None,
    events: Annotated[list[str] | None, typer.Option(metavar="KIND=FILE", help="A file that holds one kind of event, e.g. view=views.csv; repeat.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set; by default that of its folder.")] = None,
    user: Annotated[str | None, column("the user (or session) id")] = None,
    item: Annotated[str | None, column("the item id")] = None,
    timestamp: Annotated[str | None, column("the time of an event")] = None,
    position: Annotated[str | None, column("whole numbers that order a user's events")] = None,
    event: Annotated[str | None, column("the kind of event (view, cart, buy)")] = None,
    value: Annotated[str | None, column("a rating or count")] = None,
    part: Annotated[str | None, column("train, valid or test")] = None,
    item_key: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the item id in the items files.")] = None,
    user_key: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the user id in the users files.")] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="The order of the file is the order of events.")] = False,
    format: Annotated[str | None, typer.Option(help="csv, tsv, jsonl, parquet, atomic (RecBole) or lines (user item item ...); by default found out.")] = None,
    separator: Annotated[str | None, typer.Option(help="What separates fields; by default found out.")] = None,
    header: Annotated[bool | None, typer.Option("--header/--no-header", help="Whether the first line names the columns; by default found out.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of text files; by default utf-8.")] = None,
    time_unit: Annotated[str | None, typer.Option(help="Unit of numeric times: s, ms, us or ns; by default found by their size.")] = None,
    positive: Annotated[str | None, typer.Option(metavar="EXPR", help='What counts as an interaction, e.g. "value >= 4"; by default every event.')] = None,
    weights: Annotated[list[str] | None, typer.Option(metavar="KIND=WEIGHT", help="Weight of a kind of event, e.g. buy=5; repeat.")] = None,
    repeats: Annotated[str | None, typer.Option(help="Of repeated events of a user with an item: keep all, the first or the last.")] = None,
    keep_duplicates: Annotated[bool, typer.Option("--keep-duplicates", help="Keep rows that equal an earlier row in every column.")] = False,
    min_user_events: Annotated[int | None, typer.Option(metavar="K", help="Drop users with fewer events, and items likewise, until none is left.")] = None,
    min_item_events: Annotated[int | None, typer.Option(metavar="K", help="Drop items with fewer events.")] = None,
    part_event: Annotated[str | None, typer.Option(metavar="KIND", help="Kind of event of valid and test rows that have none.")] = None,
    columns: Annotated[list[str] | None, typer.Option(metavar="NAME=KIND", help="Correct the kind of an attribute, e.g. genres=categories; repeat.")] = None,
    images: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Pictures named by item id (42.jpg).")] = None,
    image_root: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder that paths of pictures are relative to.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the data, for the record.")] = None,
    look: Annotated[bool, typer.Option("--look", help="Show how the files would be read, and stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set at that place.")] = False,
    json: JSON = False,
) -> None:
    """Read files of events into a data-set folder: roles are guessed and shown, every bad row is named in rejects.parquet."""
    given = dict(locals())
    from vitrail.data.ingest import IngestSettings, inspect
    from vitrail.data.ingest import ingest as run
    from vitrail.errors import SettingError

    told: dict[str, Any] = {key: given[key] for key in IngestSettings.model_fields if given[key] not in (None, False)}
    told |= {"weights": pairs(weights, "--weights")} if weights else {}
    told |= {"columns": pairs(columns, "--columns")} if columns else {}
    told |= {"header": header} if header is not None else {}
    settings = IngestSettings.of(told, where="the flags")
    if not (files or train or valid or test or events):
        raise SettingError("Name the files to read: vitrail data ingest FILES --out FOLDER.")
    sources: dict[str, Any] = {
        "train": train, "valid": valid, "test": test, "items": items or [], "users": users or [],
        "events": {kind: Path(file) for kind, file in pairs(events, "--events").items()} or None, "settings": settings,
    }  # fmt: skip
    if look:
        guess = inspect(files or [], **sources)
        show.emit(guess.to_dict()) if json else print_guess(guess)
        return
    if out is None:
        raise SettingError("Say where to write the data set: --out FOLDER (or --look to see how the files would be read).")
    ours(out, overwrite)
    report = run(files or [], out=out, overwrite=overwrite, **sources)
    if json:
        show.emit(report.to_dict())
        return
    print_guess(report.guess)
    print_report(report)


@app.command()
def rows(
    train: Annotated[Path, typer.Option(help="Training rows.", dir_okay=False)],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The data-set folder to write.")],
    valid: Annotated[Path | None, typer.Option(help="Validation rows.", dir_okay=False)] = None,
    test: Annotated[Path | None, typer.Option(help="Test rows.", dir_okay=False)] = None,
    items: Annotated[Path | None, typer.Option(help="Attributes of items.", dir_okay=False)] = None,
    user: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the user id (default user_id).")] = None,
    item: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the item id (default item_id).")] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of what happened, 0 or 1 (default label).")] = None,
    timestamp: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the time of a row.")] = None,
    history: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the items before, oldest first.")] = None,
    history_label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of what happened with each of them.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set; by default that of its folder.")] = None,
    columns: Annotated[list[str] | None, typer.Option(metavar="NAME=KIND", help="Correct the kind of an attribute; repeat.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set at that place.")] = False,
    json: JSON = False,
) -> None:
    """Read click-through rows that carry their history (user, item, label, items before) into a data set with impressions."""
    given = dict(locals())
    from vitrail.data.rows import RowSettings, read_rows

    told: dict[str, Any] = {key: given[key] for key in RowSettings.model_fields if given[key] is not None}
    told |= {"columns": pairs(columns, "--columns")} if columns else {}
    ours(out, overwrite)
    settings = RowSettings.of(told, where="the flags")
    report = read_rows(train, out=out, valid=valid, test=test, items=items, settings=settings, overwrite=overwrite)
    if json:
        show.emit(report.to_dict())
        return
    show.line(f"kept {report.rows:,} impressions; {report.earlier:,} events are known from histories alone")
    for reason, count in report.rejected.items():
        show.line(f"rejected {count:,}: {reason}")
    show.line(f"{report.dataset!r} at {report.dataset.path}")
    show.line(f"Next: vitrail fit din --data {report.dataset.path} --out RUN")


def ours(out: Path, overwrite: bool) -> None:
    """Raises SettingError where --overwrite would delete something that is no data set."""
    from vitrail.errors import SettingError

    if overwrite and out.exists() and not (out / "dataset.yaml").exists() and not (out.is_dir() and not any(out.iterdir())):
        raise SettingError(f"{out} is not a data set and will not be overwritten: choose another place.")


def print_guess(guess: Guess) -> None:
    """How the files are read, with examples."""
    for file in guess.files:
        how = ", ".join(str(word) for word in (file.format, file.part, file.event and f"event {file.event}") if word)
        rows = [(role, g.column, ", ".join(g.examples), g.why) for role, g in file.roles.items()]
        show.table(("role", "column", "examples", "why"), rows, title=f"{file.path} ({how}) -> {file.table}")
    rows = [(table, name, guessed.kind, ", ".join(guessed.examples)) for table, names in guess.columns.items() for name, guessed in names.items()]
    if rows:
        show.table(("table", "attribute", "kind", "examples"), rows, title="attributes")
    show.line(f"events are ordered by: {guess.order}")
    for remark in guess.notes:
        show.line(f"note: {remark}")


def print_report(report: IngestReport) -> None:
    """Kept, repaired and rejected rows by reason, and where to look."""
    show.line(f"kept {report.kept:,} events")
    for title, counts in (("repaired", report.repaired), ("rejected", report.rejected), ("removed by the k-core", report.removed)):
        for reason, count in counts.items():
            if count:
                show.line(f"{title} {count:,}: {reason}")
    path = report.dataset.path
    if any(report.rejected.values()):
        show.line(f"every rejected row with its line and reason: {path / 'rejects.parquet'}")
    show.line(f"{report.dataset!r} at {path}")
    show.line(f"Next: vitrail data describe {path}, then vitrail fit SYSTEM --data {path} --out RUN")


@app.command()
def get(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A public data set, e.g. ml-100k or amazon-2014:Beauty; --list shows them.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The data-set folder to write (default: data/NAME).")] = None,
    cache: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where downloads are kept (default: ~/.cache/vitrail/sources).")] = None,
    source: Annotated[Path | None, typer.Option("--from", metavar="FILE_OR_FOLDER", help="Files placed by hand; nothing is downloaded.")] = None,
    known: Annotated[bool, typer.Option("--list", help="Show the data sets there are, with size and licence.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set at that place.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    json: JSON = False,
) -> None:
    """Download a public data set, check it against its checksum and ingest it; what was cut off is continued."""
    from vitrail.data.sources import find, records
    from vitrail.data.sources import get as run
    from vitrail.errors import SettingError
    from vitrail.train.progress import bar

    if known:
        every = [record.model_dump(mode="json", exclude_defaults=True) | {"bytes": record.size} for record in records().values()]
        if json:
            show.emit({"records": every})
            return
        rows = [
            (f"{r.name}:CATEGORY" if r.categories else r.name, r.title, r.size and f"{r.size / 1e6:,.0f} MB", r.licence.partition(" (")[0])
            for r in records().values()
        ]
        show.table(("name", "what", "download", "licence"), rows)
        for record in records().values():
            if record.categories:
                show.line(f"{record.name}: {', '.join(record.categories)}")
        return
    if name is None:
        raise SettingError("Name a data set, e.g. vitrail data get ml-100k; --list shows what there is.")
    record = find(name)
    place = out or Path("data") / name.replace(":", "-")
    ours(place, overwrite)
    report = run(record, out=place, cache=cache, source=source, overwrite=overwrite, bar=None if quiet else lambda file: bar(file, "bytes"))
    if json:
        show.emit(report.to_dict())
        return
    print_guess(report.ingest.guess)
    show.line(f"licence: {record.licence}")
    show.line(f"cite: {record.citation}")
    if record.note:
        show.line(f"note: {record.note}")
    print_report(report.ingest)


@app.command()
def describe(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A data-set folder.")],
    plots: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Draw the distributions into this folder.")] = None,
    svg: Annotated[bool, typer.Option("--svg", help="Draw SVG instead of PNG.")] = False,
    json: JSON = False,
) -> None:
    """Sizes, density, time span, lengths, popularity, coverage of attributes, cold shares."""
    from vitrail.data.dataset import Dataset
    from vitrail.data.describe import describe as run

    dataset = Dataset(data)
    facts = run(dataset)
    drawn = []
    if plots is not None:
        from vitrail.data.plots import draw

        drawn = draw(dataset, plots, "svg" if svg else "png", facts=facts)
    values = facts.model_dump(mode="json")
    if json:
        show.emit(values | ({"plots": [str(path) for path in drawn]} if plots is not None else {}))
        return
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    show.facts(plain, title=dataset.info.name)
    for key, value in values.items():
        if key not in ("attributes", "features") and isinstance(value, dict) and value:
            show.facts(value, title=key.replace("_", " "))
    rows = [
        (table, name, found["kind"], f"{found['coverage']:.1%}", found["distinct"])
        for table, names in values.get("attributes", {}).items()
        for name, found in names.items()
    ]
    if rows:
        show.table(("table", "attribute", "kind", "coverage", "distinct"), rows, right=("coverage", "distinct"))
    if values["features"]:
        show.table(("feature", "what it is"), list(values["features"].items()))
    for path in drawn:
        show.line(f"drawn: {path}")


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The data-set folder to write.")],
    users: Annotated[int | None, typer.Option(help="People (default 2000).")] = None,
    items: Annotated[int | None, typer.Option(help="Things on sale (default 1000).")] = None,
    events: Annotated[int | None, typer.Option(help="Events of all users together (default 40000).")] = None,
    categories: Annotated[int | None, typer.Option(help="Categories; each has four subcategories.")] = None,
    factors: Annotated[int | None, typer.Option(help="Width of the latent vectors.")] = None,
    interests_per_user: Annotated[int | None, typer.Option(help="Interests a person has at any time.")] = None,
    drift: Annotated[float | None, typer.Option(help="Share of interests that are replaced within the time span.")] = None,
    popularity_skew: Annotated[float | None, typer.Option(help="Zipf exponent of the appeal of items; 0: all alike.")] = None,
    exposure_bias: Annotated[float | None, typer.Option(help="Items are shown in proportion to appeal to this power.")] = None,
    season_strength: Annotated[float | None, typer.Option(help="How far categories rise and fall within a year; 0: not at all.")] = None,
    cold_items: Annotated[float | None, typer.Option(help="Share of items released only in the last tenth of the time span.")] = None,
    days: Annotated[int | None, typer.Option(help="Time span in days.")] = None,
    pictures: Annotated[bool | None, typer.Option("--pictures/--no-pictures", help="Draw a picture of every item.")] = None,
    activity_spread: Annotated[float | None, typer.Option(help="How unlike people are in how much they do; 0: all alike.")] = None,
    long_range: Annotated[float | None, typer.Option(help="Share of late visits that return to an interest of long ago; 0: none.")] = None,
    old_interests: Annotated[int | None, typer.Option(help="Interests a person had long ago, where some come back.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set at that place.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    json: JSON = False,
) -> None:
    """A shop whose truth is known, of any size: drifting interests, seasons, popularity, cold items, text and pictures."""
    given = dict(locals())
    from vitrail.data.simulate import SimulatorSettings
    from vitrail.data.simulate import simulate as run
    from vitrail.train.progress import bar, silent

    told = {key: given[key] for key in SimulatorSettings.model_fields if given[key] is not None}
    settings = SimulatorSettings.of(told, where="the flags")
    ours(out, overwrite)
    with (silent if quiet else bar("simulate", "events"))(settings.events, 0) as advance:
        dataset = run(out, settings=settings, overwrite=overwrite, progress=advance)
    if json:
        show.emit({"dataset": str(out), "name": dataset.info.name, **dataset.info.counts})
        return
    show.line(f"{dataset!r} at {out}")
