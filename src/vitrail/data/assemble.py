"""The steps of ingest: look at files, join their rows, settle what orders them, drop repeats, cut the k-core, write."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl

from vitrail.data import stream, stream_text
from vitrail.data.attributes import Attributes, add_pictures, keep_ids, read_attributes, typed
from vitrail.data.clean import CANONICAL, FILE, LINE, Ledger, clean_events, clean_ids, repeated
from vitrail.data.conditions import compile_condition
from vitrail.data.ingest import ColumnGuess, FileGuess, Guess, IngestReport, IngestSettings
from vitrail.data.kcore import kcore
from vitrail.data.readers import RawTable, read_table
from vitrail.data.readers_features import check_features, open_features, write_features
from vitrail.data.readers_folder import Source, Sources
from vitrail.data.roles import FLAGS, RoleGuess, examples, guess_roles
from vitrail.data.schema import DatasetInfo, Kind, Order
from vitrail.data.tables import Rows
from vitrail.data.times import PLAUSIBLE
from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import DataError, did_you_mean
from vitrail.resources import afford_disk, afford_memory, free_memory

SAMPLE = 2000
"""Rows that decide the roles."""
OPTIONAL = ("timestamp", "position", "event", "value", "part")


@dataclass(frozen=True)
class Looked:
    """A file of events and how it is read."""

    source: Source
    raw: RawTable
    roles: dict[str, RoleGuess]


@dataclass
class Events:
    """All rows of all files."""

    frame: pl.DataFrame
    order: Order
    files: list[Looked]
    timed_parts: list[str]
    kinds: dict[str, Kind]
    units: dict[str, str]
    notes: list[str]


def look(sources: Sources, told: IngestSettings, head: int | None) -> list[Looked]:
    """Read the files of events (or their first `head` bytes) and guess their roles. Raises DataError."""
    return [_look(source, told, several=len(sources.events) > 1, head=head) for source in sources.events]


def _look(source: Source, told: IngestSettings, *, several: bool, head: int | None) -> Looked:
    raw = read_table(source.path, format=told.format, separator=told.separator, header=told.header, encoding=told.encoding, head=head)
    return _roles(source, raw, told, several)


def _roles(source: Source, raw: RawTable, told: IngestSettings, several: bool) -> Looked:
    if raw.format == "lines":
        return Looked(source, raw, {role: RoleGuess(role, "place", examples(raw.frame[role])) for role in ("user", "item")})
    wanted: dict[str, str | None] = {role: getattr(told, role) for role in FLAGS}
    if source.event is not None:
        if told.event not in (None, "none"):
            raise DataError(f'The kind of event of {source.path} is told twice, by its name "{source.event}" and by --event {told.event}: tell it once.')
        wanted["event"] = "none"
    if source.part is not None:
        wanted["part"] = "none"
    sample = raw.frame.head(SAMPLE)
    if not sample.height:
        Ledger().reject(raw, raw.reasons, sum(map(len, raw.reasons.values())))
        raise DataError(f"{source.path} has no row that can be read: see --format and --separator.")
    named = raw.header or raw.format not in ("csv", "tsv")
    return Looked(source, raw, guess_roles(sample, wanted, path=source.path, header=named, lenient=OPTIONAL if several else ()))


def check_told(files: list[Looked], told: IngestSettings) -> None:
    """Raises DataError where a column that was told is in none of the files."""
    for role in OPTIONAL:
        column = getattr(told, role)
        if column not in (None, "none") and not any(role in file.roles for file in files) and not all(file.raw.format == "lines" for file in files):
            columns = files[0].raw.frame.columns
            raise DataError(f'None of the files has a column "{column}" for --{role}.{did_you_mean(column, columns)}')


def settle_order(files: list[Looked], told: IngestSettings) -> tuple[Order, list[str]]:
    """(what orders events, the parts that have times where others have none). Raises DataError where files of one part disagree."""
    timed = {file.source.path: "timestamp" in file.roles for file in files}
    if any(timed.values()):
        parts: dict[str | None, set[bool]] = {}
        for file in files:
            parts.setdefault(file.source.part, set()).add(timed[file.source.path])
        if any(len(states) > 1 for states in parts.values()):
            without = next(path for path, state in timed.items() if not state)
            raise DataError(f"{without} has no times, and other files beside it have: name its column with --timestamp COLUMN, or read them apart.")
        with_times = [part for part, states in parts.items() if states == {True} and part]
        return "timestamp", with_times if len(with_times) < len(parts) else []
    if all("position" in file.roles for file in files):
        return "position", []
    return ("position" if told.ordered else "none"), []


def join(files: list[Looked], told: IngestSettings, ledger: Ledger) -> Events:
    """Clean the rows of all files and put them together, in the order train, valid, test. Raises DataError."""
    check_told(files, told)
    order, timed_parts = settle_order(files, told)
    kinds_known = any(file.source.event or "event" in file.roles for file in files)
    frames, units, notes, kept = [], {}, [], []
    for number, file in enumerate(files):
        event = file.source.event
        if event is None and kinds_known and "event" not in file.roles and file.source.part in ("valid", "test"):
            event = told.part_event
            if event is None:
                notes.append(f"the rows of {file.source.path.name} have no kind of event: say which with --part-event NAME")
        frame, unit = clean_events(file.raw, file.roles, ledger, part=file.source.part, event=event, time_unit=told.time_unit)
        if unit:
            units["timestamp"] = unit
        frames.append(frame.with_columns(pl.lit(number, dtype=pl.UInt16).alias(FILE)))
        kept.append(replace(file, raw=replace(file.raw, frame=file.raw.frame.head(SAMPLE), lines=file.raw.lines[:SAMPLE])))
    files[:] = kept
    frame = pl.concat(_alike(frames), how="diagonal_relaxed")
    del frames
    if not frame.height:
        raise DataError("No row is left that can be used: see the files and the roles of their columns.")
    frame, more = _placeholders(frame, ledger)
    if more is not None:
        timed_parts = more
    if order == "position" and "position" not in frame.columns:
        frame = frame.with_columns(position=pl.int_range(pl.len(), dtype=pl.Int64).over("user"))
    if any(file.raw.format == "lines" for file in files) and order == "none":
        notes.append("per-line histories are read as sets: pass --ordered where items stand in the order of events")
    if not told.keep_duplicates:
        frame = _once(frame, files, ledger)
    return Events(frame, order, files, timed_parts, {}, units, notes)


def _alike(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """A context column that is a list in one file and none in another becomes text everywhere."""
    lists = {name for frame in frames for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)}
    mixed = {name for frame in frames for name, dtype in frame.schema.items() if name in lists and not isinstance(dtype, pl.List)}
    return [frame.with_columns(pl.col(name).list.join("|") for name in mixed if isinstance(frame.schema.get(name), pl.List)) for frame in frames]


def _placeholders(frame: pl.DataFrame, ledger: Ledger) -> tuple[pl.DataFrame, list[str] | None]:
    """A part whose times are all one tiny number (1) has no times: they are taken out. (rows, the parts with times where that changed)."""
    if "part" not in frame.columns or "timestamp" not in frame.columns:
        return frame, None
    micros = pl.col("timestamp").dt.epoch("us")
    spans = frame.group_by("part").agg(low=micros.min(), high=micros.max(), rows=pl.len()).drop_nulls()
    real = set(spans.filter(pl.col("high") >= PLAUSIBLE[0] * 1e6)["part"].to_list())
    empty = spans.filter((pl.col("low") == pl.col("high")) & (pl.col("high") < PLAUSIBLE[0] * 1e6))
    if not real or not empty.height:
        return frame, None
    for part, rows in empty.select("part", "rows").iter_rows():
        ledger.repair(f"times of the {part} part that are all one placeholder, left empty", rows)
    times = pl.when(pl.col("part").is_in(empty["part"].to_list())).then(None).otherwise(pl.col("timestamp"))
    return frame.with_columns(timestamp=times), [part for part in ("train", "valid", "test") if part in real]


def _once(frame: pl.DataFrame, files: list[Looked], ledger: Ledger) -> pl.DataFrame:
    again = repeated(frame)
    if not again.any():
        return frame
    ledger.repair("exact duplicate rows", int(again.sum()))
    twice = frame.select(FILE, LINE).filter(again)
    for number in twice[FILE].unique().sort().to_list():
        lines = twice.filter(pl.col(FILE) == number)[LINE].to_numpy()
        ledger.note(files[number].raw, "an exact duplicate row, kept once", lines)
    return frame.filter(~again)


def cut(events: Events, told: IngestSettings) -> dict[str, int]:
    """Cut the k-core in place; says how many users, items and events went. Raises DataError where nothing is left."""
    if told.min_user_events <= 1 and told.min_item_events <= 1:
        return {}
    frame = events.frame
    users, items = Vocabulary.of(frame["user"]), Vocabulary.of(frame["item"])
    keep = kcore(users.encode(frame["user"]), items.encode(frame["item"]), min_user_events=told.min_user_events, min_item_events=told.min_item_events)
    if not keep.any():
        raise DataError("No event is left after --min-user-events and --min-item-events: lower them.")
    events.frame = frame.filter(keep)
    left = events.frame.select(pl.col("user", "item").n_unique())
    return {"users": len(users) - left["user"][0], "items": len(items) - left["item"][0], "events": int((~keep).sum())}


def type_context(events: Events, told: IngestSettings, ledger: Ledger) -> None:
    """Give context columns the types of their kinds, in place."""
    types = {name: kind for file in events.files for name, kind in file.raw.types.items()}
    for name in [column for column in events.frame.columns if column not in (*CANONICAL, FILE, LINE)]:
        column, kind = typed(events.frame[name], told.columns.get(name), types.get(name), ledger, f"the events, column {name}")
        events.kinds[name] = kind
        events.frame = events.frame.with_columns(column)


def read_tables(
    sources: Sources, files: list[Looked], seen: Mapping[str, pl.Series], told: IngestSettings, ledger: Ledger | None
) -> tuple[Attributes, Attributes]:
    """The tables of items and users. `seen`: the distinct user and item ids of the events, in order of appearance."""
    tables = []
    for role, paths, key in (("item", sources.items, told.item_key), ("user", sources.users, told.user_key)):
        source = next((file.roles[role].column for file in files if role in file.roles), None)
        tables.append(
            read_attributes(
                paths, role, told=key, source=source, seen=seen[role], kinds=told.columns, encoding=told.encoding, ledger=ledger
            )
        )
    items, users = tables
    if sources.images is not None:
        items = add_pictures(items, sources.images, seen["item"], told.image_root)
    elif told.image_root is not None and "image" in items.kinds.values():
        items.image_root = str(told.image_root.resolve())
    unread = set(told.columns) - set(items.kinds) - set(users.kinds) - {name for file in files for name in file.raw.frame.columns}
    if unread:
        name = sorted(unread)[0]
        raise DataError(f'No file has a column "{name}", whose kind is told.{did_you_mean(name, [*items.kinds, *users.kinds])}')
    return items, users


def describe(
    files: list[Looked], order: Order, context: dict[str, ColumnGuess], items: Attributes, users: Attributes, notes: list[str]
) -> Guess:
    """The guess, as it is shown."""
    shown = [
        FileGuess(str(f.source.path), "interactions", f.raw.format, f.raw.separator, f.raw.header, f.source.part, f.source.event, f.roles) for f in files
    ]
    for table, attributes in (("items", items), ("users", users)):
        shown += [
            FileGuess(str(path), table, form, roles={attributes.role: RoleGuess(key, "name", ())}) for path, form, key in attributes.files
        ]
    columns = {"interactions": context}
    for table, attributes in (("items", items), ("users", users)):
        columns[table] = {name: ColumnGuess(kind, attributes.examples[name]) for name, kind in attributes.kinds.items()}
    return Guess(tuple(shown), columns, order, tuple(notes))


def guess(sources: Sources, told: IngestSettings, head: int) -> Guess:
    """What `inspect` shows."""
    files = look(sources, told, head)
    check_told(files, told)
    order, _ = settle_order(files, told)
    context: dict[str, ColumnGuess] = {}
    seen = []
    for file in files:
        taken = {guessed.column for guessed in file.roles.values()}
        for name in file.raw.frame.columns:
            if name not in taken:
                _, kind = typed(file.raw.frame[name], told.columns.get(name), file.raw.types.get(name), None, "")
                context[name] = ColumnGuess(kind, examples(file.raw.frame[name]))
        seen.append(pl.DataFrame({role: clean_ids(file.raw.frame[file.roles[role].column], role, file.source.path)[0] for role in ("user", "item")}))
    for path in sources.features.values():
        open_features(path)
    items, users = read_tables(sources, files, Rows.of(pl.concat(seen)).seen, told, None)
    return describe(files, order, context, items, users, sources.notes)


def run(sources: Sources, told: IngestSettings, out: Path, *, overwrite: bool) -> IngestReport:
    """What `ingest` does."""
    large = stream.worth(sources, told)
    need = sources.bytes() / 3 + sum(path.stat().st_size for path in sources.features.values())
    afford_disk(need + (stream_text.disk(sources) if large else 0), out, "Writing the data set")
    if large:
        try:
            with stream_text.beside(out) as folder:
                return _in_chunks(sources, told, out, overwrite, folder)
        except stream.NotStreamed as reason:
            sources.notes.append(f"the events were read as a whole, in memory: {reason}")
    need = stream_text.whole_memory(sources)
    afford_memory(need, free_memory(), "Reading the files of events", "write them as Parquet, which is read in chunks", quiet=False)
    ledger = Ledger()
    events = join(look(sources, told, None), told, ledger)
    type_context(events, told, ledger)
    _check_declared(events.frame, told, events.notes)
    check_features(sources.features, events.frame["item"])
    removed = cut(events, told)
    events.frame = events.frame.drop(LINE, FILE)
    names = [column for column in CANONICAL if column in events.frame.columns]
    rows = Rows.of(events.frame.select(*names, *(column for column in events.frame.columns if column not in names)))
    context = {name: ColumnGuess(kind, examples(events.frame[name])) for name, kind in events.kinds.items()}
    return _finish(sources, told, out, ledger, events, rows, context, removed, overwrite)


def _in_chunks(sources: Sources, told: IngestSettings, out: Path, overwrite: bool, folder: Path) -> IngestReport:
    """The same for large files, in chunks; what must be kept on the way is in `folder`. Raises NotStreamed where they need the way through memory."""
    stream.refuse(sources, told)
    need = stream.memory(sources)
    afford_memory(need, free_memory(), "Reading the files of events", "close other programs, or ingest on a larger machine", quiet=False)
    ledger, looked, files = Ledger(), [], []
    units: dict[str, str] = {}
    notes: list[str] = []
    for number, source in enumerate(sources.events):
        file = stream_text.survey(source, told)
        looked.append(_roles(source, file.sample(SAMPLE), told, len(sources.events) > 1))
        file.roles = looked[-1].roles
        if "part" in file.roles:
            raise stream.NotStreamed("its rows come split")
        file.store(folder / f"{number}.parquet", ledger)
        file.unit = stream.time_unit(file, told.time_unit)
        if "timestamp" in file.roles:
            units["timestamp"] = "date" if file.schema[file.roles["timestamp"].column].is_temporal() else str(file.unit)
        files.append(file)
    check_told(looked, told)
    order, timed_parts = settle_order(looked, told)
    made = stream.Stream(files, told, ledger)
    made.guess_context()
    if told.weights is not None:
        _check_weights(told.weights, made.events if "event" in made.schema else None, notes)
    events = Events(pl.DataFrame(schema=made.schema), order, looked, timed_parts, {}, units, notes)
    context = {name: ColumnGuess(guessed.kind, made.examples[name]) for name, guessed in made.kinds.items()}
    return _finish(sources, told, out, ledger, events, made.rows(), context, {}, overwrite)


def _finish(
    sources: Sources, told: IngestSettings, out: Path, ledger: Ledger, events: Events, rows: Rows, context: dict[str, ColumnGuess],
    removed: dict[str, int], overwrite: bool,
) -> IngestReport:  # fmt: skip
    """Read the tables of items and users, and write everything."""
    from vitrail.data.dataset import write_dataset  # imports torch, which `inspect` need not wait for

    items, users = read_tables(sources, events.files, rows.seen, told, ledger)
    if removed:
        for table, role in ((items, "item"), (users, "user")):
            without = keep_ids(table, rows.seen[role])
            if without:
                removed[f"{role}s of the {role}s files outside it"] = without
    shown = describe(events.files, events.order, context, items, users, [*sources.notes, *events.notes, *items.notes, *users.notes])
    repaired, rejected = dict(ledger.repaired.most_common()), dict(ledger.rejected.most_common())
    info = DatasetInfo(
        name=told.name or out.name,
        source=[str(f.path) for f in sources.events] + [str(p) for p in (*sources.items, *sources.users)],
        licence=told.licence,
        roles=_columns(events.files),
        units=events.units,
        order=events.order,
        timed_parts=events.timed_parts,
        positive=told.positive,
        weights=told.weights,
        repeats=told.repeats,
        predefined="part" in rows.schema,
        counts={"rejected": sum(rejected.values()), "repaired": sum(repaired.values())},
        columns={table: {name: column.kind for name, column in columns.items()} for table, columns in shown.columns.items() if columns},
        image_root=items.image_root,
        origin={"ingest": told.model_dump(mode="json", exclude_defaults=True), "repaired": repaired, "rejected": rejected, "removed": removed},
    )
    beside = partial(write_features, sources.features)
    dataset = write_dataset(out, info, rows, items.frame, users.frame, ledger.rejects(), overwrite=overwrite, beside=beside)
    return IngestReport(dataset, shown, rows.height, repaired, rejected, removed)


def _columns(files: list[Looked]) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in files:
        for role, guessed in file.roles.items():
            found.setdefault(role, guessed.column)
    return found


def _check_declared(frame: pl.DataFrame, told: IngestSettings, notes: list[str]) -> None:
    """Raises DataError where what is declared to count speaks of what is not there."""
    if told.positive is not None:
        condition = compile_condition(told.positive, [name for name in frame.columns if name not in (LINE, FILE)])
        if not frame.lazy().filter(condition).limit(1).collect().height:
            raise DataError(f'No event meets --positive "{told.positive}": change it.')
    if told.weights is not None:
        _check_weights(told.weights, frame["event"].unique().to_list() if "event" in frame.columns else None, notes)
        if told.part_event is None and "part" in frame.columns and frame.filter(pl.col("part") != "train", pl.col("event").is_null()).height:
            raise DataError("Kinds of events have weights and rows of valid or test have no kind, so they would not count: say which with --part-event NAME.")


def _check_weights(weights: Mapping[str, float], kinds: Collection[str | None] | None, notes: list[str]) -> None:
    """`kinds` of events there are; none: the files have no such column. What has no weight is noted."""
    if kinds is None:
        raise DataError("Weights of kinds of events are told and the files have none: name their column with --event COLUMN.")
    for name in weights:
        if name not in kinds:
            raise DataError(f'No event is a "{name}", which has a weight.{did_you_mean(name, [kind for kind in kinds if kind is not None])}')
    notes += [f"events of the kind {kind!r} have no weight and do not count" for kind in sorted(kinds, key=str) if kind not in weights]
