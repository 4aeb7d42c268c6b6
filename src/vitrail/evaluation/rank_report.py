"""What the page of a ranker says beside metrics: lift by tenths of the score, the calibration plot, and what each field is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vitrail.evaluation.binary import Part, RankEvaluation
from vitrail.evaluation.report import Section
from vitrail.plotstyle import BLUE, FAINT, INK, figure, percent, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 25
"""Fields a plot has, the most important first."""


def lift_plot(parts: list[Part]) -> Figure:
    """A bar a part: how many times the mean rate of success its rows have."""
    drawn, axes = figure("Lift by tenths of the score", subtitle="rate of success over the mean of all rows; highest scores first", size=(5.4, 3.1))
    axes.bar(range(1, len(parts) + 1), [part.lift for part in parts], color=BLUE, width=0.8)
    axes.axhline(1.0, color=INK, linewidth=0.9)
    axes.set_xticks(range(1, len(parts) + 1))
    axes.grid(False, axis="x")
    return drawn


def calibration_plot(curve: list[tuple[float, float, int]]) -> Figure:
    """The rate of success of each bin against its mean probability; on the line they are equal."""
    drawn, axes = figure("Calibration", subtitle="bins of equally many rows; the line is perfect", x="probability", y="rate of success", size=(5.4, 3.6))
    most = max((max(p, rate) for p, rate, _ in curve), default=1.0) * 1.05
    axes.plot([0, most], [0, most], color=FAINT, linewidth=0.9)
    axes.plot([p for p, _, _ in curve], [rate for _, rate, _ in curve], "o-", color=BLUE, markersize=6, linewidth=1.2)
    percent(axes, x=True, y=True)
    return drawn


def importance_plot(importance: Mapping[str, Mapping[str, float]], metric: str) -> Figure:
    """A bar a field: what `metric` loses when its values change places."""
    shown = sorted(importance.items(), key=lambda pair: -pair[1].get(metric, 0.0))[:SHOWN]
    told = f"{metric.upper()} lost when the values of a field change places"
    drawn, axes = figure("What fields are worth", subtitle=told, size=(5.4, 1.3 + 0.26 * len(shown)))
    axes.barh(range(len(shown)), [row.get(metric, 0.0) for _, row in shown], color=BLUE, height=0.7)
    axes.set_yticks(range(len(shown)), [plain(name) for name, _ in shown], color=INK)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    return drawn


def sections(evaluation: RankEvaluation) -> list[Section]:
    """What the page of a ranker has beside that of every system."""
    metric = "gauc" if "gauc" in evaluation.metrics else "auc"
    parts = [Part(*part) for part in evaluation.lift]
    found = []
    if parts:
        rows = [[str(n), f"{part.rate:.4f}", f"{part.lift:.2f}", f"{100 * part.caught:.0f} %", f"{part.rows:,}"] for n, part in enumerate(parts, start=1)]
        figures = [lift_plot(parts), calibration_plot(evaluation.curve)]
        found.append(Section("Lift and calibration", columns=["tenth", "rate", "lift", "caught", "rows"], rows=rows, figures=figures))
    if evaluation.importance:
        names = [name for name in ("auc", "gauc") if any(name in row for row in evaluation.importance.values())]
        ordered = sorted(evaluation.importance.items(), key=lambda pair: -pair[1].get(metric, 0.0))
        rows = [[name, *(f"{row[key]:+.4f}" if key in row else "" for key in names)] for name, row in ordered]
        note = "What is lost when the values of a field change places, of attributes among items or users; fields that say the same hide each other."
        found.append(Section("Fields", note=note, columns=["field", *names], rows=rows, figures=[importance_plot(evaluation.importance, metric)]))
    return found
