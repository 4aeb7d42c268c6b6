"""Click-through rows -> a data set: each row names a user, an item, what happened, when, and the user's history so far.

The history of a user is stored once: the first row's history, then the items of all rows in order. A row whose own history is not the end of what that
gives is rejected, so that what a ranker reads is what the file said.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vitrail.config import Settings
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.readers import read_table
from vitrail.data.schema import DatasetInfo, Kind
from vitrail.data.times import parse_times
from vitrail.errors import DataError, did_you_mean


class RowSettings(Settings):
    """Which column is what."""

    user: str = "user_id"
    """Column of the user id."""
    item: str = "item_id"
    """Column of the item id."""
    label: str = "label"
    """Column of what happened: 0 or 1."""
    timestamp: str | None = None
    """Column of the time of a row; none: the order of the file is that of a user's rows."""
    history: str | None = None
    """Column of the items before, oldest first, e.g. ['12', '7']; none: only the rows before are known."""
    history_label: str | None = None
    """Column of what happened with each of them."""
    name: str | None = None
    """Name of the data set; by default that of its folder."""
    columns: dict[str, Kind] = {}
    """Corrections of the kinds of item attributes."""


@dataclass(frozen=True)
class RowReport:
    """What became of the rows."""

    dataset: Dataset
    rows: int
    rejected: dict[str, int]
    earlier: int
    """events that only histories told of"""

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and mappings, for JSON."""
        counts = self.dataset.info.counts
        told = {"dataset": str(self.dataset.path), "name": self.dataset.info.name, "users": counts["users"], "items": counts["items"]}
        return told | {"events": counts["events"], "impressions": self.rows, "earlier": self.earlier, "rejected": self.rejected}


def read_rows(
    train: Path, *, out: Path | str, valid: Path | None = None, test: Path | None = None, items: Path | None = None, settings: RowSettings | None = None,
    overwrite: bool = False,
) -> RowReport:  # fmt: skip
    """Read files of rows and write the data set `out` with its impressions; `items` is a file of item attributes.

    The log holds every row and every event of the histories, with what happened as its value; what a history tells of before a user's first row is put
    just before that row, a microsecond an event, so that nothing is known earlier than it was. Raises DataError: one sentence.
    """
    told = settings or RowSettings()
    tables, lines = [], []
    for part, path in (("train", train), ("valid", valid), ("test", test)):
        if path is not None:
            raw = read_table(path)
            tables.append(_columns(raw.frame, told, path).with_columns(part=pl.lit(part), file=pl.lit(path.name)))
            lines.append(raw.lines)
    frame = pl.concat(tables).with_columns(line=np.concatenate(lines))
    order = "row" if told.timestamp is None else "time"
    frame = frame.with_row_index("row").sort("user", order, "row")
    frame, rejects = _sound(frame)
    if not frame.height:
        raise DataError(f"No row of {train} can be used: say which columns are which (user, item, label, history).")
    interactions, before = _log(frame)
    rejects = pl.concat([rejects, _unlike(frame, interactions, before)])
    kept = ~(frame["file"] + frame["line"].cast(pl.String)).is_in((rejects["file"] + rejects["line"].cast(pl.String)).implode())
    clock = told.timestamp is not None
    impressions = frame.with_columns(before=pl.Series(before), clicked=pl.col("label")).filter(kept).sort("row")
    impressions = impressions.select("user", "item", *(["timestamp"] if clock else []), "before", "clicked", "part")
    attributes, kinds = _attributes(items, interactions["item"], told)
    info = DatasetInfo(
        name=told.name or Path(out).name, order="timestamp" if clock else "position",
        source=[str(path) for path in (train, valid, test, items) if path is not None],
        roles={"user": told.user, "item": told.item, "value": told.label}, columns={"items": kinds} if kinds else {},
        counts={"impressions": impressions.height}, origin={"rows": told.model_dump(mode="json", exclude_defaults=True)},
    )  # fmt: skip
    events = interactions.select("user", "item", "timestamp" if clock else "position", "value")
    dataset = write_dataset(out, info, events, attributes, None, rejects, overwrite=overwrite, impressions=impressions)
    why = dict(rejects["reason"].value_counts().iter_rows())
    return RowReport(dataset, impressions.height, why, interactions.height - frame.height)


def _columns(frame: pl.DataFrame, told: RowSettings, path: Path) -> pl.DataFrame:
    """user, item, label, time, timestamp, seen and seen_labels (lists) as told."""
    for role in ("user", "item", "label", "timestamp", "history", "history_label"):
        column = getattr(told, role)
        if column is not None and column not in frame.columns:
            raise DataError(f'{path} has no column "{column}" for --{role.replace("_", "-")}.{did_you_mean(column, frame.columns)}')
    times = parse_times(frame[told.timestamp]).values if told.timestamp else pl.Series([None] * frame.height, dtype=pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "user": frame[told.user].str.strip_chars(),
            "item": frame[told.item].str.strip_chars(),
            "label": frame[told.label].cast(pl.Float64, strict=False),
            "timestamp": times,
            "time": times.dt.epoch("us"),
            "seen": _listed(frame, told.history),
            "seen_labels": _listed(frame, told.history_label).list.eval(pl.element().cast(pl.Float64, strict=False)),
        }
    )


def _listed(frame: pl.DataFrame, column: str | None) -> pl.Series:
    """Cells like "['12', '7']", "12|7" or "12 7" as lists of text; empty lists where there is no such column."""
    if column is None:
        return pl.Series([[]] * frame.height, dtype=pl.List(pl.String))
    if isinstance(frame[column].dtype, pl.List):
        return frame[column].cast(pl.List(pl.String))
    return frame[column].fill_null("").str.extract_all(r"[^\s\[\]'\",|;^]+")


def _sound(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that can be used, and the others as rejects with their reason."""
    reason = (
        pl.when(pl.col("user").is_null() | pl.col("item").is_null()).then(pl.lit("no user or item"))
        .when(pl.col("label").is_null() | ~pl.col("label").is_between(0, 1)).then(pl.lit("the label is not between 0 and 1"))
        .when((pl.col("seen_labels").list.len() > 0) & (pl.col("seen_labels").list.len() != pl.col("seen").list.len()))
        .then(pl.lit("the history and its labels differ in length"))
    )  # fmt: skip
    frame = frame.with_columns(reason=reason)
    return frame.filter(pl.col("reason").is_null()).drop("reason"), _rejects(frame.filter(pl.col("reason").is_not_null()))


def _rejects(frame: pl.DataFrame) -> pl.DataFrame:
    text = pl.concat_str([pl.col("user"), pl.col("item")], separator=",", ignore_nulls=True)
    return frame.select("file", pl.col("line").cast(pl.Int64), "reason", text=text)


def _log(frame: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray[Any, np.dtype[np.int64]]]:
    """Events (user, item, value, timestamp, position) in order, and for each row how many events of its user came before it.

    `frame` is sorted by user and time. Rows of one instant do not see each other: their `before` is that of the first of them.
    """
    first = frame.group_by("user", maintain_order=True).first()
    early = first.select("user", "seen", "seen_labels", "timestamp").with_columns(count=pl.col("seen").list.len())
    labels = pl.when(pl.col("seen_labels").list.len() > 0).then("seen_labels").otherwise(pl.lit(1.0).repeat_by("count"))
    early = early.with_columns(seen_labels=labels).filter(pl.col("count") > 0)
    early = early.with_columns(place=pl.int_ranges(0, "count")).explode("seen", "seen_labels", "place", empty_as_null=True)
    early = early.select(
        "user", item="seen", value="seen_labels", position=pl.col("place").cast(pl.Int64),
        timestamp=pl.col("timestamp") - pl.duration(microseconds=(pl.col("count") - pl.col("place")).cast(pl.Int64)),
    )  # fmt: skip
    shift = first.select("user", start=pl.col("seen").list.len().cast(pl.Int64))
    rows = frame.join(shift, on="user", how="left", maintain_order="left").with_columns(position=pl.col("start") + pl.int_range(pl.len()).over("user"))
    before = rows.select(pl.when(pl.col("time").is_null()).then("position").otherwise(pl.col("position").min().over("user", "time")))["position"].to_numpy()
    late = rows.select("user", "item", value="label", position="position", timestamp="timestamp")
    return pl.concat([early, late]).sort("user", "position"), before.astype(np.int64)


def _unlike(frame: pl.DataFrame, log: pl.DataFrame, before: np.ndarray[Any, np.dtype[np.int64]]) -> pl.DataFrame:
    """Rows whose own history is not the end of the log's before them, but for rows of the same instant."""
    told = frame.with_columns(place=log_places(frame, log), count=pl.col("seen").list.len()).filter(pl.col("count") > 0)
    told = told.with_columns(offset=pl.int_ranges(0, "count")).select("row", "user", "item", "file", "line", "seen", "offset", "place", "count")
    flat = told.explode("seen", "offset", empty_as_null=True)
    where = flat["place"].to_numpy() - flat["count"].to_numpy().astype(np.int64) + flat["offset"].to_numpy()
    same = log["item"].gather(np.maximum(where, 0)) == flat["seen"]
    wrong = flat.filter(~same | pl.Series(where < 0))["row"].unique()
    odd = told.filter(pl.col("row").is_in(wrong.implode()))
    return _rejects(odd.with_columns(reason=pl.lit("its history is not that of the rows before it")))


def log_places(frame: pl.DataFrame, log: pl.DataFrame) -> pl.Series:
    """The place of each row of `frame` in `log`, both sorted by user and order; rows are the last events of their users."""
    ends = log.with_row_index("place").group_by("user").agg(pl.col("place").max().alias("end"))
    from_end = frame.select(pl.col("user"), back=pl.len().over("user") - 1 - pl.int_range(pl.len()).over("user"))
    joined = from_end.join(ends, on="user", how="left", maintain_order="left")
    return (joined["end"].cast(pl.Int64) - joined["back"].cast(pl.Int64)).rename("place")


def _attributes(items: Path | None, seen: pl.Series, told: RowSettings) -> tuple[pl.DataFrame | None, dict[str, Kind]]:
    if items is None:
        return None, {}
    from vitrail.data.attributes import read_attributes

    found = read_attributes([items], "item", told=None, source=told.item, seen=seen.unique(), kinds=told.columns, encoding="utf-8", ledger=None)
    return found.frame, found.kinds
