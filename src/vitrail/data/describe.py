"""What a data set is like: sizes, density, time span, lengths, popularity, coverage of attributes, cold shares."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.config import Settings
from vitrail.data.dataset import Dataset
from vitrail.data.schema import Order

Int64 = npt.NDArray[np.int64]


class Span(Settings):
    """The time the events cover."""

    first: str
    """ISO 8601, UTC"""
    last: str
    days: float
    untimed: int = 0
    """events without a time"""


class Spread(Settings):
    """How many events a user (or an item) has, among those that have any."""

    min: float
    p25: float
    median: float
    mean: float
    p75: float
    p90: float
    max: float


class Group(Settings):
    """The head, middle or tail of the catalogue by popularity, as in the slices of an evaluation."""

    items: int
    items_share: float
    events_share: float


class Popularity(Settings):
    """How unevenly events fall on the catalogue."""

    gini: float
    """0: every item alike; near 1: a few have all"""
    top_1pct_share: float
    """share of the events that fall on the most popular hundredth of the items (at least one)"""
    top_10pct_share: float
    head: Group
    mid: Group
    tail: Group


class Coverage(Settings):
    """How much of the catalogue, and of what people did, has something."""

    items: float
    """share of the items"""
    events: float
    """share of the events, by their items"""
    missing_files: int = 0
    """pictures that are named but not there"""


class Attribute(Settings):
    """One column."""

    kind: str | None
    coverage: float
    """share of the rows that have a value"""
    distinct: int


class PartCold(Settings):
    """What a predefined part asks that train cannot know."""

    cold_items: int
    """its items without a train event"""
    events_on_cold_items: float
    """share of its events"""
    cold_users: int
    events_of_cold_users: float


class Cold(Settings):
    """Where little or nothing is known."""

    items_without_events: int
    users_without_events: int
    items_with_one_event: int
    users_with_one_event: int
    items_only_in_last_tenth: int | None
    """items whose first event lies in the last 10 % of the time span; none without times"""
    users_only_in_last_tenth: int | None
    parts: dict[str, PartCold] = {}


class Description(Settings):
    """Facts about a data set; `model_dump()` is plain JSON."""

    name: str
    users: int
    items: int
    events: int
    density: float
    """distinct (user, item) pairs over all possible ones"""
    order: Order
    span: Span | None
    """none where events have no clock times"""
    events_per_user: Spread
    events_per_item: Spread
    events_by_type: dict[str, int]
    repeats_share: float
    """share of the events that repeat an earlier (user, item)"""
    popularity: Popularity
    text_coverage: Coverage | None
    """none where the catalogue has no text column"""
    picture_coverage: Coverage | None
    attributes: dict[str, dict[str, Attribute]]
    """table -> column -> facts"""
    features: dict[str, str] = {}
    """declared features of rankers, in words"""
    cold: Cold
    parts: dict[str, int]
    """events of each predefined part"""
    positive: str | None
    """what counts as an interaction; the facts above are about all events"""
    rejected: int
    repaired: int


def describe(dataset: Dataset) -> Description:
    """The facts of `dataset`, over all its events. Raises ArtifactError where a table is missing or damaged."""
    info, events = dataset.info, dataset.interactions
    users, items = dataset.user_ids.encode(events["user"]), dataset.item_ids.encode(events["item"])
    n_users, n_items = len(dataset.users), len(dataset.items)
    by_user, by_item = np.bincount(users, minlength=n_users), np.bincount(items, minlength=n_items)
    distinct = pl.Series(users * max(n_items, 1) + items).n_unique()
    times = times_of(dataset)
    return Description(
        name=info.name,
        users=n_users,
        items=n_items,
        events=events.height,
        density=_share(distinct, n_users * n_items),
        order=info.order,
        span=_span(times),
        events_per_user=_spread(by_user),
        events_per_item=_spread(by_item),
        events_by_type=_tally(events, "event"),
        repeats_share=_share(events.height - distinct, events.height),
        popularity=_popularity(by_item),
        text_coverage=_coverage(dataset, "text", by_item),
        picture_coverage=_coverage(dataset, "image", by_item),
        attributes={name: _attributes(getattr(dataset, name), info.columns.get(name, {}), role) for name, role in _TABLES.items()},
        features={name: feature.text for name, feature in info.features.items()},
        cold=_cold(dataset, users, items, by_user, by_item, times),
        parts=_tally(events, "part"),
        positive=info.positive,
        rejected=info.counts.get("rejected", 0),
        repaired=info.counts.get("repaired", 0),
    )


_TABLES = {"items": ("item",), "users": ("user",), "interactions": ("user", "item", "timestamp", "position", "event", "value", "part")}
"""table -> its columns that play a role and so are no attributes"""


def times_of(dataset: Dataset) -> pl.Series | None:
    """(E,) clock times of the events, null where an event has none; none where no event has one."""
    events = dataset.interactions
    if "timestamp" not in events.columns or events["timestamp"].null_count() == events.height:
        return None
    return events["timestamp"]


def _tally(events: pl.DataFrame, column: str) -> dict[str, int]:
    """value -> events, the most frequent first; empty where there is no such column."""
    if column not in events.columns:
        return {}
    return dict(events[column].drop_nulls().value_counts(name="n").sort(["n", column], descending=[True, False]).iter_rows())


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _span(times: pl.Series | None) -> Span | None:
    if times is None:
        return None
    first: Any = times.min()
    last: Any = times.max()
    return Span(first=first.isoformat(), last=last.isoformat(), days=(last - first).total_seconds() / 86_400, untimed=times.null_count())


def _spread(counts: Int64) -> Spread:
    counts = counts[counts > 0]
    if not len(counts):
        return Spread(min=0, p25=0, median=0, mean=0, p75=0, p90=0, max=0)
    low, p25, median, p75, p90, high = np.percentile(counts, [0, 25, 50, 75, 90, 100]).tolist()
    return Spread(min=low, p25=p25, median=median, mean=float(counts.mean()), p75=p75, p90=p90, max=high)


def _popularity(by_item: Int64) -> Popularity:
    from vitrail.evaluation.slices import popularity_groups

    counts = np.sort(by_item)[::-1]
    n, total = len(counts), int(counts.sum())
    groups = popularity_groups(by_item)
    cut = {
        name: Group(items=int((groups == code).sum()), items_share=_share((groups == code).sum(), n), events_share=_share(by_item[groups == code].sum(), total))
        for code, name in enumerate(("head", "mid", "tail"))
    }
    # Ranks from the rarest up, weighted by events: the usual closed form of the Gini index.
    ranks = np.arange(n, 0, -1, dtype=np.float64)
    gini = _share(float(((2 * ranks - n - 1) * counts).sum()), n * total)
    return Popularity(
        gini=gini,
        top_1pct_share=_share(counts[: max(round(0.01 * n), 1)].sum(), total),
        top_10pct_share=_share(counts[: max(round(0.1 * n), 1)].sum(), total),
        head=cut["head"],
        mid=cut["mid"],
        tail=cut["tail"],
    )


def filled(column: pl.Series) -> pl.Series:
    """(rows,) true where a cell says something: not null, not NaN, not blank, not an empty list."""
    if column.dtype == pl.String:
        return column.str.strip_chars().str.len_bytes().fill_null(0) > 0
    if column.dtype.is_float():
        return column.is_not_null() & column.is_not_nan().fill_null(False)
    if isinstance(column.dtype, pl.List):
        return column.list.len().fill_null(0) > 0
    return column.is_not_null()


def _coverage(dataset: Dataset, kind: str, by_item: Int64) -> Coverage | None:
    """Coverage by any column of `kind`; a picture counts where its file is there (or is named by a URL)."""
    names = [name for name, k in dataset.info.columns.get("items", {}).items() if k == kind and name in dataset.items.columns]
    if not names:
        return None
    has = np.zeros(len(dataset.items), dtype=bool)
    missing = 0
    for name in names:
        column = dataset.items[name]
        there = filled(column).to_numpy().astype(bool)
        if kind == "image":
            found = _files_there(dataset, column.filter(pl.Series(there)).cast(pl.String))
            missing += int((~found).sum())
            there[there] = found
        has |= there
    return Coverage(items=_share(has.sum(), len(has)), events=_share(by_item[has].sum(), by_item.sum()), missing_files=missing)


def _files_there(dataset: Dataset, paths: pl.Series) -> npt.NDArray[np.bool_]:
    """(rows,) whether each picture exists; one listing a folder, not one look-up a picture."""
    path = pl.col("path")
    parts = pl.DataFrame({"path": paths}).with_columns(folder=path.str.extract(r"^(.*)/[^/]*$").fill_null(""), name=path.str.extract(r"([^/]*)$"))
    found = parts["path"].str.contains(r"^https?://").to_numpy().copy()
    for folder in parts.filter(~pl.Series(found))["folder"].unique().to_list():
        inside = (parts["folder"] == folder).to_numpy()
        try:
            names = [entry.name for entry in os.scandir(dataset.image_root / folder)]
        except OSError:
            continue
        found[inside] |= parts["name"].filter(pl.Series(inside)).is_in(names).to_numpy()
    return np.asarray(found, dtype=bool)


def _attributes(table: pl.DataFrame, kinds: dict[str, Any], roles: tuple[str, ...]) -> dict[str, Attribute]:
    found = {}
    for name in table.columns:
        if name in roles:
            continue
        column = table[name]
        there = column.filter(filled(column))
        values = there.explode() if isinstance(there.dtype, pl.List) else there
        found[name] = Attribute(kind=kinds.get(name), coverage=_share(len(there), len(column)), distinct=values.n_unique() if len(values) else 0)
    return found


def _cold(dataset: Dataset, users: Int64, items: Int64, by_user: Int64, by_item: Int64, times: pl.Series | None) -> Cold:
    parts = {}
    if dataset.info.predefined:
        part = dataset.interactions["part"]
        train = (part == "train").to_numpy()
        known_user, known_item = np.bincount(users[train], minlength=len(by_user)) > 0, np.bincount(items[train], minlength=len(by_item)) > 0
        for name in sorted(set(part.unique().to_list()) - {"train"}, key=lambda name: (name != "valid", name)):
            inside = (part == name).to_numpy()
            cold_item, cold_user = ~known_item[items[inside]], ~known_user[users[inside]]
            parts[name] = PartCold(
                cold_items=len(np.unique(items[inside][cold_item])),
                events_on_cold_items=_share(cold_item.sum(), inside.sum()),
                cold_users=len(np.unique(users[inside][cold_user])),
                events_of_cold_users=_share(cold_user.sum(), inside.sum()),
            )
    return Cold(
        items_without_events=int((by_item == 0).sum()),
        users_without_events=int((by_user == 0).sum()),
        items_with_one_event=int((by_item == 1).sum()),
        users_with_one_event=int((by_user == 1).sum()),
        items_only_in_last_tenth=_newcomers(items, by_item, times),
        users_only_in_last_tenth=_newcomers(users, by_user, times),
        parts=parts,
    )


def _newcomers(codes: Int64, counts: Int64, times: pl.Series | None) -> int | None:
    """How many of those with events have all of them in the last 10 % of the time span. Events without a time (untimed parts) count as late."""
    if times is None:
        return None
    clock = times.dt.epoch("us").fill_null(np.iinfo(np.int64).max).to_numpy()
    first, last = int(clock.min()), int(times.dt.epoch("us").max())  # type: ignore[arg-type]
    early = clock < last - (last - first) * 0.1
    return int(((np.bincount(codes[early], minlength=len(counts)) == 0) & (counts > 0)).sum())
