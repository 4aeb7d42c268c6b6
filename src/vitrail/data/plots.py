"""Figures of a data set: lengths, popularity, time, attributes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from vitrail.data.dataset import Dataset
from vitrail.data.describe import Description, describe, times_of
from vitrail.errors import unknown
from vitrail.plotstyle import BLUE, FAINT, GREY, GRID, ORANGE, SKY, Format, figure, logarithmic, percent, plain, plain_numbers, save, share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
GRAINS = (("1h", "hour", 1 / 24), ("1d", "day", 1.0), ("1w", "week", 7.0), ("1mo", "month", 30.4), ("1q", "quarter", 91.3), ("1y", "year", 365.25))
"""Widths that time is counted in: polars name, word, days."""


def draw(dataset: Dataset, folder: str | Path, format: Format = "png", *, facts: Description | None = None) -> list[Path]:
    """Draw `dataset` into `folder`; returns the files written, in reading order. Figures that the data cannot fill are left out.

    `facts`: what `describe` said of it, where known. Raises SettingError for an unknown format, ResourceError where the folder cannot be written.
    """
    if format not in ("png", "svg"):
        raise unknown("picture format", format, ("png", "svg"))
    facts = facts or describe(dataset)
    if facts.events == 0:
        return []
    made: dict[str, Figure | None] = {
        "events-per-user": _lengths(dataset, facts),
        "popularity": _popularity(dataset, facts),
        "events-over-time": _over_time(dataset, facts),
        "week": _week(dataset, facts),
        "attributes": _attributes(facts),
    }
    return [save(drawn, Path(folder) / f"{name}.{format}") for name, drawn in made.items() if drawn is not None]


def _counts(dataset: Dataset, role: str) -> np.ndarray:
    return dataset.interactions.group_by(role).len()["len"].to_numpy().astype(np.int64)


def _lengths(dataset: Dataset, facts: Description) -> Figure:
    """Share of users with at least n events, both axes logarithmic."""
    counts = np.sort(_counts(dataset, "user"))
    values, first = np.unique(counts, return_index=True)
    reached = 1 - first / len(counts)
    spread = facts.events_per_user
    drawn, axes = figure(
        "Events per user",
        subtitle=f"{len(counts):,} users with events · median {spread.median:,.0f} · mean {spread.mean:,.1f} · a tenth have {spread.p90:,.0f} or more",
        x="events",
        y="users with at least so many",
    )
    axes.plot(values, reached, color=BLUE, marker="o" if len(values) < 40 else None, markersize=4)
    logarithmic(axes, x=True, y=True)
    axes.axvline(spread.median, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate("median", (spread.median, reached.min()), xytext=(5, 2), textcoords="offset points", color=ORANGE, fontsize=9)
    plain_numbers(axes, x=True)
    percent(axes, y=True)
    return drawn


def _popularity(dataset: Dataset, facts: Description) -> Figure:
    """Events of each item by its rank, both axes logarithmic; head, middle and tail as in the slices of an evaluation."""
    counts = np.sort(_counts(dataset, "item"))[::-1]
    shape = facts.popularity
    drawn, axes = figure(
        "Popularity of items",
        subtitle=f"the top 1 % of items have {share(shape.top_1pct_share)} of the events, the top 10 % {share(shape.top_10pct_share)} · Gini {shape.gini:.2f}",
        x="rank of the item",
        y="events",
    )
    ranks = np.arange(1, len(counts) + 1)
    # A curve needs no more points than pixels: a million items draw as fast as a thousand.
    shown = np.unique(np.geomspace(1, len(counts), 600).round().astype(np.int64)) - 1
    axes.plot(ranks[shown], counts[shown], color=BLUE, marker="o" if len(counts) < 40 else None, markersize=4)
    logarithmic(axes, x=True, y=True)
    groups = {"head": shape.head, "middle": shape.mid, "tail": shape.tail}
    start = 1
    for name, group in groups.items():
        stop = min(start + group.items, len(counts))
        if start > 1 and start < len(counts):
            axes.axvline(start, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)))
        if stop > start:
            axes.annotate(name, (float(np.sqrt(start * stop)), 0.97), xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=9, color=FAINT)
        start += group.items
    told = "\n".join(f"{name}: {group.items:,} items, {share(group.events_share)} of the events" for name, group in groups.items())
    axes.annotate(told, (0.02, 0.04), xycoords="axes fraction", va="bottom", fontsize=9, color=FAINT, linespacing=1.5)
    axes.set_ylim(top=float(counts[0]) * 3)
    plain_numbers(axes, x=True, y=True)
    return drawn


def _over_time(dataset: Dataset, facts: Description) -> Figure | None:
    """Events in each hour, day, week, month... so that there are at most about 150 steps."""
    times = times_of(dataset)
    if times is None or facts.span is None or facts.span.days <= 0:
        return None
    every, word, width = next((grain for grain in GRAINS if facts.span.days / grain[2] <= 150), GRAINS[-1])
    table = pl.DataFrame({"time": times.drop_nulls().dt.truncate(every)}).group_by("time").len().sort("time").upsample("time", every=every)
    when, count = table["time"].dt.replace_time_zone(None).to_numpy(), table["len"].fill_null(0).to_numpy()
    drawn, axes = figure("Events over time", subtitle=f"{facts.span.first[:10]} to {facts.span.last[:10]} (UTC), events in each {word}", y=f"events per {word}")
    style: Any = {"color": BLUE, "linewidth": 1.6}
    if len(when) < 60:
        when, count = np.append(when, when[-1] + np.timedelta64(round(width * 86_400), "s")), np.append(count, count[-1])
        style["drawstyle"] = "steps-post"
    axes.fill_between(when, count, step="post" if "drawstyle" in style else None, color=SKY, alpha=0.35, linewidth=0)
    axes.plot(when[:-1], count[:-1], **style)
    # The last step is cut off where the data end: it looks like a fall and is none.
    axes.plot(when[-2:], count[-2:], **style, linestyle=(0, (1, 1.5)))
    axes.set_ylim(bottom=0)
    import matplotlib.dates as md

    locator = md.AutoDateLocator(maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(md.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    plain_numbers(axes, y=True)
    return drawn


def _week(dataset: Dataset, facts: Description) -> Figure | None:
    """Weekday by hour, UTC. None where times are whole days: an hour would be an invention."""
    times = times_of(dataset)
    if times is None or facts.span is None or facts.span.days < 7 or (times.drop_nulls().dt.truncate("1d") == times.drop_nulls()).all():
        return None
    known = times.drop_nulls()
    cell = (known.dt.weekday().cast(pl.Int64) - 1) * 24 + known.dt.hour().cast(pl.Int64)
    grid = np.bincount(cell.to_numpy(), minlength=168).reshape(7, 24) / len(known)
    drawn, axes = figure("When things happen", subtitle="share of all events in each hour of the week, UTC", x="hour of the day", size=(7.2, 3.4))
    image = axes.pcolormesh(np.arange(25), np.arange(8), grid, cmap="Blues", vmin=0, edgecolors="white", linewidth=0.8)
    axes.grid(False)
    axes.invert_yaxis()
    axes.set_yticks(np.arange(7) + 0.5, DAYS)
    axes.set_xticks(np.arange(0, 25, 3))
    for side in axes.spines.values():
        side.set_visible(False)
    bar = drawn.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(which="both", length=0, labelsize=8.5, labelcolor=FAINT)
    percent(bar.ax, y=True)
    return drawn


def _attributes(facts: Description) -> Figure | None:
    """Coverage of every attribute of items and users."""
    rows = [(table, name, fact) for table in ("items", "users") for name, fact in facts.attributes[table].items()]
    if not rows:
        return None
    rows = rows[:30]
    drawn, axes = figure("Attributes", subtitle="share of rows with a value · kind · distinct values", size=(7.2, 1.3 + 0.3 * len(rows)))
    places = np.arange(len(rows))
    axes.barh(places, np.ones(len(rows)), height=0.62, color=GRID)
    axes.barh(places, [fact.coverage for _, _, fact in rows], height=0.62, color=[BLUE if table == "items" else ORANGE for table, _, _ in rows])
    axes.set_yticks(places, [plain(f"{table[:-1]}: {name}") for table, name, _ in rows])
    axes.invert_yaxis()
    axes.grid(False)
    axes.set_xlim(0, 1)
    for place, (_, _, fact) in zip(places, rows, strict=True):
        axes.annotate(
            f"{share(fact.coverage)} · {fact.kind or 'kind unknown'} · {fact.distinct:,} distinct", (1.0, place), xytext=(8, 0),
            textcoords="offset points", va="center", fontsize=8.5, color=FAINT, annotation_clip=False,
        )  # fmt: skip
    percent(axes, x=True)
    return drawn
