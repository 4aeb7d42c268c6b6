"""Figures of a comparison: means with intervals, slices, accuracy against novelty, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vitrail.evaluation.compare import names_of
from vitrail.evaluation.evaluator import Evaluation
from vitrail.plotstyle import FAINT, GREY, INK, PALETTE, figure, percent, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "recall": "Recall", "precision": "Precision", "hit_rate": "Hit rate", "ndcg": "NDCG", "ndcg_ngcf": "NDCG (NGCF)", "mrr": "MRR", "map": "MAP",
    "novelty": "Novelty", "intra_list_diversity": "Diversity in a list", "coverage": "Coverage", "gini": "Gini", "popularity_lift": "Popularity lift",
    "auc": "AUC", "gauc": "GAUC", "gauc_equal": "GAUC, users alike", "logloss": "Log loss", "ece": "ECE",
}  # fmt: skip
SLICES = {
    "popularity": ("By popularity of the target", ("popularity:head", "popularity:mid", "popularity:tail", "items:cold")),
    "history": ("By length of the history", ("history:0", "history:1-5", "history:6-20", "history:21-100", "history:>100")),
}
FEW = 30
"""A slice of fewer users is drawn hollow."""


def label(metric: str) -> str:
    """`ndcg@10` -> `NDCG@10`."""
    name, at, k = metric.partition("@")
    return LABELS.get(name, name) + at + k


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour of each system, in order; from the eighth on they are all grey."""
    return {name: PALETTE[n] if n < len(PALETTE) - 1 else GREY for n, name in enumerate(names)}


def intervals_plot(evaluations: Sequence[Evaluation], metric: str) -> Figure:
    """A dot for the mean of each system and a line for its 95 % interval, in the order given, the first on top."""
    names = names_of(evaluations)
    drawn, axes = figure(label(metric), subtitle="mean over users, with its 95 % interval", size=(5.4, 1.3 + 0.34 * len(names)))
    paint = colours(names)
    for place, (name, evaluation) in enumerate(zip(names, evaluations, strict=True)):
        mean = evaluation.metrics[metric]
        low, high = evaluation.ci.get(metric, (mean, mean))
        axes.plot([low, high], [place, place], color=paint[name], linewidth=3.2, alpha=0.45, solid_capstyle="round")
        axes.plot(mean, place, "o", color=paint[name], markersize=7)
        axes.annotate(f"{mean:.4f}", (high, place), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(names)), [plain(name) for name in names], color=INK)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(False, axis="y")
    axes.margins(x=0.16)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)
    return drawn


def slices_plot(evaluations: Sequence[Evaluation], group: str, metric: str) -> Figure | None:
    """The metric of each system over the slices of `group` (popularity or history); none where no slice has it."""
    title, known = SLICES[group]
    present = [name for name in known if any(metric in e.slices.get(name, {}) for e in evaluations)]
    if not present:
        return None
    users = {name: int(next(e.slices[name]["users"] for e in evaluations if name in e.slices)) for name in present}
    drawn, axes = figure(title, subtitle=f"{label(metric)}; hollow: fewer than {FEW} users", y=label(metric), size=(5.4, 3.5))
    names = names_of(evaluations)
    paint = colours(names)
    shift = min(0.09, 0.6 / len(names))
    for n, (system, evaluation) in enumerate(zip(names, evaluations, strict=True)):
        where = [place + (n - (len(names) - 1) / 2) * shift for place in range(len(present))]
        height = [evaluation.slices.get(name, {}).get(metric, float("nan")) for name in present]
        axes.plot(where, height, color=paint[system], linewidth=1.0, alpha=0.35)
        for x, y, name in zip(where, height, present, strict=True):
            axes.plot(x, y, "o", color=paint[system], markerfacecolor=paint[system] if users[name] >= FEW else "white", markersize=6.5, clip_on=False)
        axes.plot([], [], "o", color=paint[system], label=plain(system))
    axes.set_xticks(range(len(present)), [f"{name.split(':')[1]}\n{users[name]:,} users" for name in present])
    axes.set_xlim(-0.5, len(present) - 0.5)
    axes.set_ylim(bottom=0)
    axes.grid(False, axis="x")
    drawn.legend(loc="outside lower left", ncols=min(len(names), 4), fontsize=9, handletextpad=0.2, columnspacing=1.2, frameon=False)
    return drawn


PRICES = {
    "novelty@10": ("Accuracy and novelty", "up: more right answers; right: less known items", "Novelty@10 (bits)"),
    "coverage@10": ("Accuracy and coverage", "up: more right answers; right: more of the catalogue is shown", "share of the catalogue shown in top 10"),
}
"""metric -> title, subtitle, name of the axis."""


def tradeoff_plot(evaluations: Sequence[Evaluation], metric: str, against: str = "novelty@10") -> Figure | None:
    """Accuracy up, `against` (a key of PRICES) to the right: what is paid for it; none where it was not measured."""
    if not all(against in e.metrics for e in evaluations):
        return None
    title, subtitle, axis = PRICES[against]
    drawn, axes = figure(title, subtitle=subtitle, x=axis, y=label(metric), size=(5.4, 3.5))
    names = names_of(evaluations)
    paint = colours(names)
    points = [(e.metrics[against], e.metrics[metric]) for e in evaluations]
    right = sum(x for x, _ in points) / len(points)
    heights = [y for _, y in points]
    a_point = ((max(heights) - min(heights)) or 1.0) * 1.28 / 150  # what one point of text is worth on the axis, about
    above = {"right": float("inf"), "left": float("inf")}
    for name, (x, y) in sorted(zip(names, points, strict=True), key=lambda pair: -pair[1][1]):
        axes.plot(x, y, "o", color=paint[name], markersize=8)
        side = "right" if x > right else "left"
        above[side] = min(y, above[side] - 11 * a_point)  # a name keeps a line's height from the one above it
        offset = (-9 if side == "right" else 9, (above[side] - y) / a_point)
        axes.annotate(plain(name), (x, y), xytext=offset, textcoords="offset points", ha=side, va="center", fontsize=9, color=INK)
    axes.margins(0.14)
    axes.locator_params(nbins=5)
    if against.startswith("coverage"):
        percent(axes, x=True)
    return drawn


def legend(drawn: Figure, axes: Axes) -> None:
    """The names of lines: beside them where they are few, else below, so that they hide nothing; the figure grows by their rows."""
    count = len(axes.get_legend_handles_labels()[1])
    if count <= 4:
        axes.legend(fontsize=9, frameon=False)
        return
    drawn.set_figheight(drawn.get_figheight() + 0.2 * -(-count // 4))
    drawn.legend(loc="outside lower left", ncols=4, fontsize=8.5, handlelength=1.2, handletextpad=0.4, columnspacing=1.2, frameon=False)


def curves_plot(curves: Mapping[str, Sequence[Mapping[str, Any]]], key: str, names: Sequence[str] = ()) -> Figure | None:
    """`key` (loss or a validation metric) by epoch, a line a system; none where nothing has it. `curves`: system -> a record an epoch."""
    lines = {name: [(r.get("epoch", n + 1), r[key]) for n, r in enumerate(records) if r.get(key) is not None] for name, records in curves.items()}
    lines = {name: points for name, points in lines.items() if len(points) > 1}
    if not lines:
        return None
    title = "Training loss" if key == "loss" else f"{label(key)} on validation"
    drawn, axes = figure(title, x="epoch", size=(5.4, 3.1))
    paint = colours([*names, *(name for name in lines if name not in names)])
    for name, points in lines.items():
        axes.plot([x for x, _ in points], [y for _, y in points], color=paint[name], label=plain(name), linewidth=1.8)
        if key != "loss":
            x, y = max(points, key=lambda point: point[1])
            axes.plot(x, y, "o", color=paint[name], markersize=6)
    axes.locator_params(axis="x", integer=True)
    if len(lines) > 1:
        legend(drawn, axes)
    else:
        axes.text(0.99, 0.97, plain(next(iter(lines))), transform=axes.transAxes, ha="right", va="top", fontsize=9, color=FAINT)
    return drawn
