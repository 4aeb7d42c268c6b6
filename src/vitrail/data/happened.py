"""What happened, as declared features read it: users, items, moments, and of other columns whether conditions hold, numbers, and categories as hashes.

R rows, E events, M values of a cell. A category is a 63-bit hash of its text, 0 where it is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.data.conditions import matches
from vitrail.data.conditions_grammar import CONSTANTS, parse
from vitrail.data.fields import MOST, Float, Int64
from vitrail.data.vocabulary import hash_ids, mix

Arrays = dict[str, npt.NDArray[np.generic]]


def tokens(column: pl.Series) -> Int64:
    """(R,) hashes of the values of a column as text; 0 where it is null."""
    text = column.cast(pl.String)
    distinct = text.drop_nulls().unique()
    hashes = pl.Series(np.maximum(hash_ids(distinct.to_list()) >> np.uint64(1), np.uint64(1)).astype(np.int64))
    return text.replace_strict(distinct, hashes, default=None, return_dtype=pl.Int64).fill_null(0).to_numpy()


def cell_tokens(column: pl.Series) -> Int64:
    """(R, M) hashes of the values of each cell, at most MOST of a list, filled up with 0."""
    if not isinstance(column.dtype, pl.List):
        return tokens(column)[:, None]
    table = pl.DataFrame({"row": np.arange(len(column)), "value": column.list.head(MOST)}).explode("value", empty_as_null=True)
    place = table.select(place=pl.int_range(pl.len()).over("row"))["place"].to_numpy()
    found = np.zeros((len(column), int(place.max(initial=0)) + 1), dtype=np.int64)
    found[table["row"].to_numpy(), place] = tokens(table["value"])
    return found


def numbers(column: pl.Series) -> Float:
    """(R,) a column as numbers, NaN where null."""
    return column.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()


def joined(*cells: Int64) -> Int64:
    """(R, M1 * M2 * ...) a hash of every combination of the values of the cells (R, Mi); 0 where one is missing."""
    found = cells[0]
    for more in cells[1:]:
        a, b = found[:, :, None], more[:, None, :]
        both = mix(mix(a.astype(np.uint64), 0) ^ b.astype(np.uint64), 0) >> np.uint64(1)
        found = np.where((a == 0) | (b == 0), 0, np.maximum(both.astype(np.int64), 1)).reshape(len(found), a.shape[1] * b.shape[2])
    return found


@dataclass(frozen=True)
class Past:
    """Events of one source, in any order."""

    users: Int64
    """(E,) codes, -1 unknown"""
    items: Int64
    """(E,)"""
    times: Int64
    """(E,) microseconds; of an impression, when its outcome was known"""
    columns: Arrays
    """`holds TEXT` (E,) bool, `number NAME` (E,) float64, `token NAME` (E,) int64: what the features read of them"""
    strange: bool = False
    """whether the users are strangers, whose codes are no users of the data set"""

    @property
    def people(self) -> Int64:
        """(E,) users as rows of what is known of users."""
        return np.full(len(self), -1) if self.strange else self.users

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def of(cls, users: Int64, items: Int64, times: Int64, table: pl.DataFrame, wanted: Iterable[str]) -> Past:
        """Events and, of their columns in `table`, what is `wanted`; a column that is not there is empty."""
        columns: Arrays = {}
        for name in wanted:
            what, _, told = name.partition(" ")
            if what == "holds":
                lacking = [column for column in parse(told)[1] if column not in table.columns and column.lower() not in CONSTANTS]
                columns[name] = matches(told, table.with_columns(pl.lit(None).alias(column) for column in lacking)).to_numpy()
            else:
                column = table[told] if told in table.columns else pl.Series(told, [None] * len(items), dtype=pl.String)
                columns[name] = numbers(column) if what == "number" else tokens(column)
        return cls(np.asarray(users, dtype=np.int64), np.asarray(items, dtype=np.int64), np.asarray(times, dtype=np.int64), columns)

    def where(self, keep: npt.NDArray[np.bool_]) -> Past:
        """The events with `keep` (E,) true."""
        return Past(self.users[keep], self.items[keep], self.times[keep], {name: column[keep] for name, column in self.columns.items()})

    def and_(self, more: Past) -> Past:
        """These events and `more`."""
        columns = {name: np.concatenate([column, more.columns[name]]) for name, column in self.columns.items()}
        users, items, times = (np.concatenate([getattr(self, name), getattr(more, name)]) for name in ("users", "items", "times"))
        return Past(users, items, times, columns)
