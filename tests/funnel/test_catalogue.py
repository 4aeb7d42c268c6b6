"""Attributes that changed since the artifact was written."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from vitrail.funnel.catalogue import as_kind, with_changes


@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        (None, pl.Float64(), None),
        (2, pl.Float64(), 2),
        (2, pl.Int8(), 2),
        ("x", pl.String(), "x"),
        (True, pl.Boolean(), True),
        (["a"], pl.List(pl.String), ["a"]),
        ("2026-01-31", pl.Date(), date(2026, 1, 31)),
        ("2026-01-31T10:00:00+02:00", pl.Datetime("us", "UTC"), datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("2026-01-31T10:00:00+02:00", pl.Datetime("us"), datetime(2026, 1, 31, 8)),
        ("2026-01-31T10:00:00", pl.Datetime("us", "UTC"), datetime(2026, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_values_that_fit(value: Any, kind: pl.DataType, found: Any) -> None:
    assert as_kind(value, kind) == found


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", pl.Float64()),
        ("2", pl.Int64()),
        (True, pl.Float64()),
        (1, pl.Boolean()),
        (1, pl.String()),
        (["a"], pl.String()),
        ({"a": 1}, pl.Float64()),
        ([1, "x"], pl.List(pl.Int64)),
        (300, pl.Int8()),
        (10**30, pl.Int64()),
        ("soon", pl.Date()),
        (5, pl.Date()),
        (5, pl.Datetime("us")),
    ],
)
def test_values_that_do_not(value: Any, kind: pl.DataType) -> None:
    with pytest.raises(ValueError):
        as_kind(value, kind)


def test_rows_keep_their_order_and_other_columns() -> None:
    items = pl.DataFrame({"item": ["a", "b", "c"], "price": [1.0, 2.0, 3.0], "tags": [["x"], None, []], "day": [date(2026, 1, 1)] * 3})
    changes = {"c": {"price": 9, "nothing": 1, "item": "z"}, "a": {"tags": ["y"], "day": "2026-02-01", "price": "dear"}}
    found = with_changes(items, changes, {"a": 0, "c": 2})
    assert found.to_dicts() == [
        {"item": "a", "price": 1.0, "tags": ["y"], "day": date(2026, 2, 1)},
        {"item": "b", "price": 2.0, "tags": None, "day": date(2026, 1, 1)},
        {"item": "c", "price": 9.0, "tags": [], "day": date(2026, 1, 1)},
    ]
    assert found.schema == items.schema
    assert with_changes(items, {}, {}) is items
