"""The catalogue while it is served: the artifact's attributes, and what was changed since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl


def with_changes(items: pl.DataFrame, changes: Mapping[str, Mapping[str, Any]], codes: Mapping[str, int]) -> pl.DataFrame:
    """`items` with the attributes of `changes` where it has the item (`codes`: its row) and the column; the order of rows stays."""
    places = [codes[item] for item in changes]
    if not places:
        return items
    rows = [{**row, **{name: value for name, value in changes[row["item"]].items() if name in row}} for row in items[places].iter_rows(named=True)]
    changed = pl.DataFrame(rows, schema=items.schema, strict=False).with_columns(row=pl.Series(places, dtype=pl.UInt32))
    kept = items.with_row_index("row").filter(~pl.col("row").is_in(pl.Series(places, dtype=pl.UInt32).implode()))
    return pl.concat([kept, changed.select(kept.columns)]).sort("row").drop("row")
