"""Declared features meet a data set: which column is meant, and what training rows teach (vocabularies, bucket edges). N items, U users, E events."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.data import fields as F
from vitrail.data.dataset import Dataset
from vitrail.data.declare import Feature, Features, chosen
from vitrail.data.declared import Asked, Declaration, Declared, wanted_of
from vitrail.data.fields import Field, FieldSettings, Float, Int64
from vitrail.data.happened import Past, cell_tokens, numbers
from vitrail.data.impressions import CLICKED, ImpressionSplit, Rows
from vitrail.data.log import Log
from vitrail.errors import DataError, SettingError, unknown

Bool = npt.NDArray[np.bool_]
KEYED = ("category", "flag", "id", "categories")
"""Kinds of attributes that are categories to a declared feature."""
ROLES = ("user", "item", "timestamp", "position", "part")
"""Columns of events that no feature reads."""
SINGLE = "reads one value of an item or user, and"


def interactions(log: Log, table: pl.DataFrame | None, features: Mapping[str, Feature]) -> Past:
    """The events of `log`, with what the features read of their rows of `table`; none: only who, what and when is known of them."""
    wanted = wanted_of(features, "interactions")
    named = pl.DataFrame() if table is None or log.rows is None else table
    used = [name for name in named.columns if name not in ROLES]
    rows = named.select(used)[np.asarray(log.rows)] if used and wanted else pl.DataFrame()
    assert log.times is not None
    return Past.of(log.users, np.asarray(log.items, dtype=np.int64), log.times, rows, wanted if named.width else ())


def impressions(parts: Iterable[Rows], features: Mapping[str, Feature], matures: int) -> Past:
    """What was shown, seen once its outcome is known: at a moment of its own, or `matures` microseconds after it was."""
    wanted = wanted_of(features, "impressions")
    found = [Past.of(rows.users, rows.items, rows.seen(matures), _shown(rows), wanted) for rows in parts if rows.times is not None]
    past = found[0]
    for more in found[1:]:
        past = past.and_(more)
    return past


def _shown(rows: Rows) -> pl.DataFrame:
    return pl.DataFrame({**rows.context, CLICKED: rows.labels.astype(np.float64)})


def learn_declared(
    dataset: Dataset, split: ImpressionSplit, train: Rows, settings: FieldSettings, taken: Collection[str]
) -> tuple[Declared, list[Field]] | None:
    """The declared features that `settings` ask for, learned on the rows `train` (their context whole), with their fields; none where there are none.

    `taken`: names of other fields. Raises SettingError for what is not there, DataError for what the data cannot give.
    """
    told = chosen(settings.features, dataset.info.features)
    if not told:
        return None
    for name in told:
        if name in taken:
            raise SettingError(f'The feature "{name}" has the name of another field: give it a name of its own.')
    features = _resolved(told, dataset, split, train)
    pasts: dict[str, Past] = {}
    if train.times is not None:
        pasts["interactions"] = interactions(train.log, dataset.interactions, features)
        if split.shown is not None and any(f.past and f.source == "impressions" for f in features.values()):
            pasts["impressions"] = impressions([split.shown], features, split.matures)
    numbers_of, tokens_of = _attributes(dataset, features)
    declared = Declared(Declaration(features), numbers_of, tokens_of, pasts)
    declared = replace(declared, told=replace(declared.told, units=_units(declared, None if train.times is None else int(train.times.max()))))
    asked, fields = Asked(train.users, train.items, train.times, train.context), []
    for name, feature in features.items():
        fields.append(_field(name, feature, declared.values([name], asked)[name], settings))
        declared = replace(declared, told=replace(declared.told, of={f.name: f for f in fields}))
    return declared, fields


def _field(name: str, f: Feature, values: Float | Int64, settings: FieldSettings) -> Field:
    """The field of a feature with these `values` (R,) on training rows."""
    if f.kind != "cross" and not f.category:
        edges = list(f.edges) or F.quantile_edges(values.astype(np.float64), f.buckets or settings.buckets)
        return Field(name=name, whose="event", kind="number", codes=len(edges) + 3, edges=edges)
    if f.hash:
        return Field(name=name, whose="event", kind="category", codes=f.hash + 2, hashed=True)
    keys, counts = np.unique(values[values != 0], return_counts=True)
    keys, counts = keys[counts >= f.at_least], counts[counts >= f.at_least]
    if f.vocabulary:
        keys = np.sort(keys[np.lexsort([keys, -counts])[: f.vocabulary]])
    return Field(name=name, whose="event", kind="category", codes=len(keys) + 2, keys=keys.tolist())


def _units(declared: Declared, until: int | None) -> dict[str, float]:
    """Column -> a power of two of which the largest number before `until` is about 2 ** 31: fine enough to add up, and no sum leaves 64 bits."""
    found: dict[str, float] = {}
    for f in declared.told.features.values():
        if f.kind in ("sum", "mean") and f.column is not None and f.source in declared.pasts:
            past = declared.pasts[f.source]
            largest = np.abs(np.nan_to_num(declared._number(f.column, past if until is None else past.where(past.times <= until)))).max(initial=0.0)
            found[f.column] = max(2.0 ** (np.ceil(np.log2(largest)) - 31 if largest > 0 else -31), found.get(f.column, 0.0))
    return found


def _resolved(told: Features, dataset: Dataset, split: ImpressionSplit, train: Rows) -> Features:
    """The features with the table of every column in its name, and checked against what there is."""
    kinds = {whose: {name: str(kind) for name, kind in dataset.info.columns.get(whose, {}).items()} for whose in ("items", "users")}
    context = {name: _kind(column.dtype) for name, column in train.context.items()}
    found: Features = {}
    for name, f in told.items():
        if not f.past:
            places = kinds | {"context": context}
            if f.column is not None:
                column = _place(f.column, places, name)
                kind = _kind_of(column, places)
                _check(f, name, column, kind, ("number", "category", "flag", "id"))
                odd = {"buckets": f.buckets, "edges": f.edges} if kind != "number" else {"hash": f.hash, "vocabulary": f.vocabulary}
                if wrong := next((key for key, value in odd.items() if value), None):
                    raise SettingError(f'The feature "{name}" has {wrong}, and "{f.column}" is a {kind}: leave {wrong} out.')
                f = f.but({"column": column, "category": kind != "number"})
            elif f.columns:
                parts = [part if part in told else _place(part, places, name) for part in f.columns]
                for part in parts:
                    if part not in told:
                        _check(f, name, part, _kind_of(part, places), ("category", "flag", "id"))
                f = f.but({"columns": parts})
        else:
            f = _of_events(f, name, dataset, split, train, kinds)
        if isinstance(f.missing, str) and f.kind != "cross" and not f.category:
            raise SettingError(f'The feature "{name}" is a number, and missing: {f.missing} is none: write a number.')
        found[name] = f
    return found


def _of_events(f: Feature, name: str, dataset: Dataset, split: ImpressionSplit, train: Rows, kinds: dict[str, dict[str, str]]) -> Feature:
    if train.times is None or train.log.times is None:
        raise DataError(f'The feature "{name}" looks back in time, and data set "{dataset.info.name}" has no clock times: leave it out of features.')
    if f.source == "impressions":
        if split.shown is None:
            raise DataError(f'The feature "{name}" looks at what was shown, and the split "{split.name}" draws its rows: use --split shown or rated.')
        table = _shown(split.shown)
    else:
        table = dataset.interactions.drop(*ROLES, strict=False)
    from vitrail.data.conditions import matches

    for condition in f.conditions:
        matches(condition, table.head(1))  # raises where it cannot be
    by = []
    for part in f.by:
        if part not in ("user", "item"):
            part = _place(part, kinds, name)
            _check(f, name, part, _kind_of(part, kinds), KEYED)
        by.append(part)
    changed: dict[str, object] = {"by": by}
    if f.column is not None and f.column not in ("user", "item"):
        places = kinds | {"events": {column: _kind(table[column].dtype) for column in table.columns}}
        column = _place(f.column, places, name)
        _check(f, name, column, _kind_of(column, places), ("category", "flag", "id", "number") if f.kind == "distinct" and column.startswith("events.") else
               ("category", "flag", "id") if f.kind == "distinct" else ("number",))  # fmt: skip
        changed["column"] = column
    elif f.column is not None and f.kind != "distinct":
        raise SettingError(f'The feature "{name}" is the {f.kind} of "{f.column}", which is no number: name a column of numbers.')
    return f.but(changed)


def _kind(dtype: pl.DataType) -> str:
    return "number" if dtype.is_numeric() else "category" if dtype in (pl.String, pl.Boolean) else "other"


def _place(name: str, places: Mapping[str, Mapping[str, str]], feature: str) -> str:
    """The column with its table before it: items.brand. Raises SettingError where there is none, or several."""
    whose, _, rest = name.partition(".")
    if rest in places.get(whose, {}):
        return name
    found = [f"{whose}.{name}" for whose, columns in places.items() if name in columns]
    if not found:
        raise SettingError(f'{unknown("column", name, {column for columns in places.values() for column in columns})} The feature "{feature}" names it.')
    if len(found) > 1:
        raise SettingError(f'The feature "{feature}" names the column "{name}", and there are {" and ".join(found)}: write which.')
    return found[0]


def _kind_of(column: str, places: Mapping[str, Mapping[str, str]]) -> str:
    whose, _, rest = column.partition(".")
    return places[whose][rest]


def _check(f: Feature, name: str, column: str, kind: str, able: Collection[str]) -> None:
    if kind not in able:
        raise SettingError(f'The feature "{name}" ({f.kind}) cannot read "{column}", which is of kind {kind}: it takes {", ".join(able)}.')


def _attributes(dataset: Dataset, features: Features) -> tuple[dict[str, Float], dict[str, Int64]]:
    """What the features read of items and users; of users with a last row for the unknown one."""
    numbers_of: dict[str, Float] = {}
    tokens_of: dict[str, Int64] = {}
    for f in features.values():
        read = {name: True for name in (*f.by, *f.columns) if "." in name and name not in features}
        if f.column is not None and f.column not in ("user", "item"):
            read[f.column] = f.kind == "distinct" or f.category
        for name, category in read.items():
            whose, _, column = name.partition(".")
            if whose not in ("items", "users"):
                continue
            values = getattr(dataset, whose)[column]
            made = cell_tokens(values) if category else numbers(values)
            if whose == "users":
                made = np.concatenate([made, np.full((1, *made.shape[1:]), 0 if category else np.nan, dtype=made.dtype)])
            if category:
                tokens_of[name] = np.asarray(made, dtype=np.int64)
            else:
                numbers_of[name] = made.astype(np.float64)
    return numbers_of, tokens_of
