"""What an item looks like to people, and finding items and users by how they begin."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any

import polars as pl

from vitrail.funnel.catalogue import Columns, columns_for_people
from vitrail.serve.page.pictures import Pictures

WORD = re.compile(r"[^\W_]+")
WORD_KEY = "word"
"""What a word of the title is called among attributes."""
LONGEST = 1500
"""Characters of an attribute that are sent."""


@dataclass(frozen=True)
class Cards:
    """The catalogue of one version, for people."""

    columns: Columns
    pictures: Pictures

    @classmethod
    def of(cls, answerer: Any, pictures: Pictures) -> Cards:
        """Which attribute is the title and which the price, by their kinds and names."""
        return cls(columns_for_people(answerer.items.schema, answerer.info.get("columns") or {}), pictures)

    def card(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """{item, title, category, price, picture, attributes} of a row of the catalogue."""
        columns = self.columns
        title = row.get(columns.title) if columns.title else None
        attributes = {name: _plain(value) for name, value in row.items() if name != "item" and name not in columns.images and value is not None}
        price = row.get(columns.price) if columns.price else None
        return {
            "item": row["item"],
            "title": str(title) if title else row["item"],
            "category": _plain(row.get(columns.category)) if columns.category else None,
            "price": price if isinstance(price, int | float) and price == price else None,
            "picture": row["item"] in self.pictures,
            "attributes": attributes,
        }

    def find(self, items: pl.DataFrame, begins: str, category: str | None, k: int, popularity: Any) -> list[str]:
        """Up to k ids of items whose title has words that begin with each word of `begins`, or whose id begins so; the popular ones first."""
        kept = pl.lit(True)
        words = WORD.findall(begins.lower())
        if begins.strip():
            by_id = pl.col("item").str.starts_with(begins.strip())
            title = self.columns.title
            found = pl.lit(False)
            if title is not None and words:
                text = pl.col(title).cast(pl.String).str.to_lowercase()
                found = pl.all_horizontal([text.str.contains(rf"(^|[^\p{{L}}\p{{N}}]){re.escape(word)}") for word in words]).fill_null(False)
            kept = by_id | found
        if category is not None and self.columns.category is not None:
            column = pl.col(self.columns.category)
            is_list = isinstance(items.schema[self.columns.category], pl.List)
            kept = kept & (column.list.contains(category) if is_list else column.cast(pl.String) == category).fill_null(False)
        counts = pl.Series("count", popularity) if popularity is not None else pl.Series("count", range(len(items), 0, -1))
        return items.with_columns(counts).filter(kept).sort("count", descending=True, maintain_order=True).head(k)["item"].to_list()


Counts = Mapping[tuple[str, str], int]
"""(attribute, or "word"; value) -> items that have it."""


def matching(cards: Cards, rows: list[Mapping[str, Any]], history: list[Mapping[str, Any]], counts: Counts, n_items: int) -> list[list[dict[str, Any]]]:
    """What each of `rows` has in common with the history: attributes and words of the title, each with in how many of its items.

    The telling ones come first: those of many items of the history and of few others. What half of the catalogue has says nothing, nor a word of a fifth.
    """
    columns = cards.columns
    past: Counter[tuple[str, str]] = Counter(one for row in history for one in _values(row, columns))
    found: list[list[dict[str, Any]]] = []
    for row in rows:
        shared = [one for one in sorted(_values(row, columns)) if past[one] and counts.get(one, 0) * (5 if one[0] == WORD_KEY else 2) <= n_items]
        said = {value.lower() for name, value in shared if name != WORD_KEY}
        shared = [one for one in shared if one[0] != WORD_KEY or one[1] not in said]
        shared.sort(key=lambda one: -past[one] * log((n_items + 1) / (counts.get(one, 0) + 1)))
        found.append([{"attribute": name, "value": value, "items": past[name, value]} for name, value in shared[:5]])
    return found


def count_values(items: pl.DataFrame, columns: Columns) -> dict[tuple[str, str], int]:
    """How many items have each value of the attributes that put items into groups, and each word of their titles."""
    found: dict[tuple[str, str], int] = {}
    for name in columns.groups:
        values = items[name].list.unique().explode() if isinstance(items.schema[name], pl.List) else items[name]
        found |= {(name, value): count for value, count in values.cast(pl.String).drop_nulls().value_counts().iter_rows()}
    if columns.title is not None:
        words = items[columns.title].cast(pl.String).str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+").list.unique().explode().drop_nulls()
        found |= {(WORD_KEY, word): count for word, count in words.value_counts().iter_rows()}
    return found


def _values(row: Mapping[str, Any], columns: Columns) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for name in columns.groups:
        value = row.get(name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and str(one).strip():
                found.add((name, str(one)))
    title = row.get(columns.title) if columns.title else None
    return found | {(WORD_KEY, word) for word in WORD.findall(str(title or "").lower()) if len(word) > 2 and not word.isdigit()}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, list):
        return [str(one) for one in value[:30]]
    return str(value)
