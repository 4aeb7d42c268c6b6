"""The data-set page: facts and distributions, counted once and kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from vitrail.data.dataset import Dataset
from vitrail.data.describe import describe, times_of
from vitrail.data.plots import GRAINS

BARS = 24
"""Bars of a histogram at most."""
BUCKETS = 60
"""Moments on the time axis at most."""


def distributions(path: str) -> dict[str, Any]:
    """{facts, shapes} of a data set as plain JSON: what `describe` says, and the shapes a page draws. Raises DataError, ArtifactError."""
    dataset = Dataset(path)
    facts = describe(dataset)
    events = dataset.interactions
    shapes: dict[str, Any] = {
        "events_per_user": _doubling(events.group_by("user").len()["len"].to_numpy()),
        "events_per_item": _doubling(events.group_by("item").len()["len"].to_numpy()),
        "popularity": _lorenz(events.group_by("item").len()["len"].to_numpy(), len(dataset.items)),
        "over_time": _over_time(dataset),
        "attributes": _attributes(dataset),
    }
    return {"facts": facts.model_dump(mode="json"), "shapes": shapes}


def _doubling(counts: np.ndarray) -> list[dict[str, Any]]:
    """How many have 1, 2 to 3, 4 to 7, ... events."""
    if not len(counts):
        return []
    place = np.floor(np.log2(counts)).astype(int)
    return [{"from": int(2**n), "to": int(2 ** (n + 1) - 1), "count": int((place == n).sum())} for n in range(place.max() + 1)]


def _lorenz(counts: np.ndarray, n_items: int) -> list[dict[str, float]]:
    """Share of the events that fall on the most popular share of the items."""
    if not len(counts):
        return []
    reached = np.concatenate([[0.0], np.cumsum(np.sort(counts)[::-1]) / counts.sum(), np.ones(max(n_items - len(counts), 0))])
    shares = np.unique(np.concatenate([np.linspace(0, 1, 41), [0.01, 0.02]]))
    return [{"items": round(float(share), 4), "events": float(reached[round(share * (len(reached) - 1))])} for share in shares]


def _over_time(dataset: Dataset) -> dict[str, Any] | None:
    times = times_of(dataset)
    if times is None:
        return None
    low: Any = times.min()
    high: Any = times.max()
    days = (high - low).total_seconds() / 86_400
    grain, word, _ = next(((g, w, d) for g, w, d in GRAINS if days / d <= BUCKETS), GRAINS[-1])
    table = pl.DataFrame({"at": times.drop_nulls().dt.truncate(grain)}).group_by("at").len().sort("at")
    return {"grain": word, "bars": [{"at": at.isoformat(), "count": count} for at, count in table.iter_rows()]}


def _attributes(dataset: Dataset) -> list[dict[str, Any]]:
    """The most frequent values of categories, and histograms of numbers."""
    found: list[dict[str, Any]] = []
    for name, kind in dataset.info.columns.get("items", {}).items():
        if name not in dataset.items.columns:
            continue
        column = dataset.items[name].drop_nulls()
        if kind in ("category", "categories", "flag"):
            flat = (column.explode() if isinstance(column.dtype, pl.List) else column).cast(pl.String).drop_nulls()
            top = flat.value_counts(sort=True, name="count").head(12)
            bars = [{"value": value, "count": count} for value, count in top.iter_rows()]
            found.append({"name": name, "kind": "values", "distinct": flat.n_unique(), "bars": bars})
        elif kind == "number" and column.dtype.is_numeric() and len(column):
            values = column.cast(pl.Float64).to_numpy()
            values = values[np.isfinite(values)]
            if len(values):
                counts, edges = np.histogram(values, bins=min(BARS, max(len(np.unique(values)), 1)))
                found.append({"name": name, "kind": "number", "edges": edges.tolist(), "counts": counts.tolist(), "median": float(np.median(values))})
    return found
