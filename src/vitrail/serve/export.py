"""What a store kept, as tables to learn from: impressions with what became of them, and events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from vitrail.files import atomic_file
from vitrail.serve.store.base import Store

PAGE = 10_000
"""Records read at once."""
TIME = pl.Datetime("us", "UTC")
IMPRESSIONS: dict[str, Any] = {
    "request_id": pl.String, "user": pl.String, "timestamp": TIME, "item": pl.String, "position": pl.Int32, "clicked": pl.Boolean, "propensity": pl.Float64,
    "variant": pl.String,
}  # fmt: skip
"""A row an item shown; position from 1."""
EVENTS: dict[str, Any] = {
    "user": pl.String, "item": pl.String, "timestamp": TIME, "event": pl.String, "value": pl.Float64, "event_id": pl.String, "request_id": pl.String,
}  # fmt: skip
"""A row an event, in the order they came."""


def write_impressions(store: Store, out: str | Path) -> int:
    """Write every item that was shown, and whether an event that names the request came back, as Parquet; returns the rows.

    An answer that showed nothing has no row. Raises ResourceError where the disk is full or the store does not answer.
    """

    def pages() -> Iterator[pl.DataFrame]:
        after = 0
        while page := store.served(after, PAGE):
            after, rows = page[-1][0], [one for _, one in page]
            clicks = pl.DataFrame(sorted(store.clicks([one.request for one in rows])), schema=["request_id", "item"], orient="row")
            clicks = clicks.cast({"request_id": pl.String, "item": pl.String}).with_columns(clicked=pl.lit(True))
            shown = pl.DataFrame(
                {
                    "request_id": [one.request for one in rows],
                    "user": pl.Series([one.user for one in rows], dtype=pl.String),
                    "timestamp": pl.Series([one.timestamp for one in rows], dtype=pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
                    "item": pl.Series([list(one.items) for one in rows], dtype=pl.List(pl.String)),
                    "position": pl.Series([range(1, len(one.items) + 1) for one in rows], dtype=pl.List(pl.Int32)),
                    "propensity": pl.Series([list(one.propensities) for one in rows], dtype=pl.List(pl.Float64)),
                    "variant": [one.variant for one in rows],
                }
            ).filter(pl.col("item").list.len() > 0)
            flat = shown.explode("item", "position", "propensity")
            yield flat.join(clicks, on=["request_id", "item"], how="left", maintain_order="left").with_columns(pl.col("clicked").fill_null(False))

    return _write(Path(out), pages, IMPRESSIONS)


def write_events(store: Store, out: str | Path) -> int:
    """Write every event as Parquet that `vitrail data ingest` reads; returns the rows. Raises as `write_impressions`."""

    def pages() -> Iterator[pl.DataFrame]:
        after = 0
        while page := store.events(after, PAGE):
            after = page[-1][0]
            rows = [(e.user, e.item, e.timestamp, e.kind, e.value, e.id, e.request) for _, e in page]
            kinds = EVENTS | {"timestamp": pl.Int64}
            yield pl.DataFrame(rows, schema=kinds, orient="row").with_columns(pl.col("timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))

    return _write(Path(out), pages, EVENTS)


def _write(out: Path, pages: Callable[[], Iterator[pl.DataFrame]], schema: dict[str, Any]) -> int:
    empty = pl.DataFrame(schema=schema)
    kind = empty.to_arrow().schema
    rows = 0
    with atomic_file(out) as temporary, pq.ParquetWriter(temporary, kind) as writer:
        for page in pages():
            writer.write_table(page.select(empty.columns).cast(pl.Schema(schema)).to_arrow().cast(kind))
            rows += len(page)
    return rows
