"""The catalogue while it is served: the artifact's attributes, and what was changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import polars as pl


def as_kind(value: Any, kind: pl.DataType) -> Any:
    """A JSON value as a column of type `kind` holds it: dates and times are read from ISO 8601. Raises ValueError where it cannot stand there."""
    if value is None:
        return None
    if isinstance(value, bool) != (kind == pl.Boolean):
        raise ValueError(f"{kind} is wanted")
    if kind == pl.Date:
        return date.fromisoformat(_text(value))
    if isinstance(kind, pl.Datetime):
        moment = datetime.fromisoformat(_text(value))
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return moment if kind.time_zone else moment.replace(tzinfo=None)
    if isinstance(value, str) != (kind in (pl.String, pl.Categorical, pl.Enum)):
        raise ValueError(f"{kind} is wanted")
    try:
        found = pl.Series([value], dtype=kind, strict=kind.is_nested())
    except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
        raise ValueError(str(error)) from None
    if found.null_count():
        raise ValueError(f"{kind} is wanted")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is wanted")
    return value


def with_changes(items: pl.DataFrame, changes: Mapping[str, Mapping[str, Any]], codes: Mapping[str, int]) -> pl.DataFrame:
    """`items` with the attributes of `changes` where it has the item (`codes`: its row) and a column of a fitting type; the order of rows stays."""
    places = [codes[item] for item in changes]
    if not places:
        return items
    rows = []
    for row in items[places].iter_rows(named=True):
        for name, value in changes[row["item"]].items():
            if name in row and name != "item":
                try:
                    row[name] = as_kind(value, items.schema[name])
                except ValueError:
                    continue  # a version whose catalogue has another type there keeps its own value
        rows.append(row)
    changed = pl.DataFrame(rows, schema=items.schema, strict=False).with_columns(row=pl.Series(places, dtype=pl.UInt32))
    kept = items.with_row_index("row").filter(~pl.col("row").is_in(pl.Series(places, dtype=pl.UInt32).implode()))
    return pl.concat([kept, changed.select(kept.columns)]).sort("row").drop("row")


NAMES = ("title", "name", "item_name", "product_name", "movie_title", "headline", "label")
"""Columns that name an item for people, the likeliest first."""


@dataclass(frozen=True)
class Columns:
    """The columns of a catalogue that tell people what an item is."""

    title: str | None
    category: str | None
    price: str | None
    images: tuple[str, ...]
    groups: tuple[str, ...]
    """every attribute that puts items into groups: categories, or texts of a few words by name"""


def columns_for_people(schema: Mapping[str, pl.DataType], kinds: Mapping[str, str]) -> Columns:
    """By the kinds of attributes (`kinds`), and by their names where these tell nothing."""
    lower = {name.lower(): name for name in schema if name != "item"}
    texts = [name for name, kind in kinds.items() if kind == "text" and name in schema]
    named = [lower[name] for name in NAMES if name in lower and schema[lower[name]] == pl.String] or texts
    groups = [name for name in kinds if kinds[name] in ("category", "categories") and name in schema]
    sorts = [name for name in (*groups, "category", "categories", "genre") if name in schema]
    sorts.sort(key=lambda name: "categor" not in name.lower() and "genre" not in name.lower())
    prices = [name for name in schema if "price" in name.lower()]
    images = tuple(name for name in kinds if kinds[name] == "image" and name in schema)
    return Columns(next(iter(named), None), next(iter(sorts), None), next(iter(prices), None), images, tuple(dict.fromkeys([*sorts, *groups])))
