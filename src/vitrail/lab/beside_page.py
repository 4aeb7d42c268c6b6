"""The parts of the page of a comparison on rare and cold items, on content, and on the split: tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vitrail.evaluation.plots import FEW, colours, label
from vitrail.evaluation.report import Section
from vitrail.lab.sentences import bare
from vitrail.lab.worth import ANEW
from vitrail.plotstyle import FAINT, GREY, INK, PALETTE, figure, percent, plain, plain_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TAIL, COLD = "popularity:tail", "items:cold"
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
Figures = dict[str, "Figure"]
Series = Sequence[tuple[str, str, str]]
"""name, colour and marker of what a row of dots shows"""
WHOLE = ("all its content", INK, "o")


def pictures(result: Mapping[str, Any]) -> Figures:
    """Name of a file -> picture, of the parts that `result` has."""
    drawn: Figures = {}
    if (rare := rare_plot(result)) is not None:
        drawn["rare_items"] = rare
    if (content := result.get("content")) is not None:
        for kind in kinds_of(content):
            for what in ("missing", "noise"):
                if (lines := lines_plot(result, what, kind)) is not None:
                    drawn[f"content_{what}_{kind}"] = lines
        drawn["content_left_out"] = ablation_plot(result)
    if "splits" in result:
        drawn |= {"split_ranks": ranks_plot(result), "split_values": values_plot(result)}
    return drawn


def sections(result: Mapping[str, Any], drawn: Figures) -> list[Section]:
    """The parts of the page, in order."""
    made = []
    if (head_and_rows := rare_table(result)) is not None:
        cold = "; cold: targets without any, which only systems that read what an item is can answer with" if "cold" in head_and_rows[0][-1] else ""
        note = f"Tail: targets among the least popular items, which have the last fifth of the training events{cold}. Users in brackets."
        made.append(_section("Rare and cold items", (), note, head_and_rows, [drawn["rare_items"]]))
    if "content" in result:
        found = [drawn[name] for name in drawn if name.startswith("content_")]
        anew = " Fitted anew: the first seed without the kind from the start, beside what it reaches with it." if result["content"]["retrain"] else ""
        note = (
            f"Shares are of {label(result['metric'])} with all content. Means over seeds, each with "
            f"draws of its own; the weights stay as they were fitted. Noise is told in shares of the root mean square of a vector.{anew}"
        )
        made.append(_section("What content does", result["content"]["sentences"], note, content_table(result["content"]), found))
    if "splits" in result:
        note = (
            "Every system keeps the settings that were chosen under the first split; under the others it is fitted "
            "once. Values of different splits must not be compared as if they measured one thing: ranks, in brackets, can be."
        )
        figures = [drawn["split_ranks"], drawn["split_values"]]
        made.append(_section("What the split does", result["splits"]["sentences"], note, splits_table(result["splits"]), figures))
    return made


def _section(title: str, answers: Sequence[str], note: str, cells: tuple[list[str], list[list[str]]], drawn: Sequence[Figure]) -> Section:
    return Section(title, note, *cells, texts=("Content",), figures=drawn, answers=answers)


def kinds_of(content: Mapping[str, Any]) -> list[str]:
    """The kinds of content that any system reads."""
    return list(dict.fromkeys(kind for own in content["kinds"].values() for kind in own))


def rare_table(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    """Columns and rows; none where no system answers with cold items, or no target is in the tail."""
    metric, rows = result["metric"], []
    present = [name for name in (TAIL, COLD) if any(metric in row["slices"].get(name, {}) for row in result["systems"])]
    if not present or not any(row.get("cold_items") for row in result["systems"]):
        return None
    users = {name: max(row["slices"].get(name, {}).get("users", 0) for row in result["systems"]) for name in present}
    for row in result["systems"]:
        cells = [row["system"], f"{row['mean'][metric]:.4f}"]
        for name in present:
            value = row["slices"].get(name, {}).get(metric)
            cells.append("cannot" if name == COLD and not row["cold_items"] else "" if value is None else f"{value:.4f}")
        rows.append(cells)
    return ["System", f"{label(metric)}, all targets", *(f"{name.partition(':')[2]} ({users[name]:,.0f})" for name in present)], rows


def rare_plot(result: Mapping[str, Any]) -> Figure | None:
    """A row a system: all targets, those of the tail, and the cold ones for systems that can."""
    if rare_table(result) is None:
        return None
    metric = result["metric"]
    values = {
        row["system"]: {
            "all targets": row["mean"][metric],
            "tail": row["slices"].get(TAIL, {}).get(metric),
            "cold": row["slices"].get(COLD, {}).get(metric) if row.get("cold_items") else None,
        }
        for row in result["systems"]
    }
    few = [name.partition(":")[2] for name in (TAIL, COLD) if 0 < max(row["slices"].get(name, {}).get("users", 0) for row in result["systems"]) < FEW]
    about = label(metric) + (f"; of fewer than {FEW} users: {' and '.join(few)}" if few else "")
    return dots("Rare and cold items", about, values, [("all targets", INK, "o"), ("tail", PALETTE[0], "s"), ("cold", PALETTE[1], "D")])


def content_table(content: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a row a system and kind, the best system first."""
    by_cell = {(row["system"], row["kind"], row["what"], row["level"]): row for row in content["rows"]}
    wanted = [("missing", level) for level in content["missing"]] + [("without", 1.0)] + [("noise", level) for level in content["noise"]]
    wanted += [(ANEW, 1.0)] if content["retrain"] else []
    rows = []
    for system in sorted(content["kinds"], key=lambda name: -content["whole"][name]):
        for n, kind in enumerate(content["kinds"][system]):
            cells = [by_cell.get((system, kind, what, level)) for what, level in wanted]
            rows.append([system, kind, f"{content['whole'][system]:.4f}" if n == 0 else "", *map(_cell, cells)])
    heads = {"missing": "{:.0%} lack it", "without": "all lack it", "noise": "noise {:g}", ANEW: "fitted anew without it"}
    return ["System", "Content", "None lacks it", *(heads[what].format(level).replace("%", " %") for what, level in wanted)], rows


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    least, share = "≥ " if row["cut"] else "", None if row["share"] is None else f"{100 * row['share']:.0f} %"
    if row["what"] in ("missing", "noise") and share is not None:
        return f"{least}{share}"
    return f"{least}{row['mean']:.4f}" + (f" ({share})" if share is not None else "")


def ablation_plot(result: Mapping[str, Any]) -> Figure:
    """A row a system: with all its content, and without each kind."""
    content = result["content"]
    kinds = kinds_of(content)
    series = [WHOLE, *((f"without {kind}", PALETTE[n % 7], MARKERS[(n + 1) % 7]) for n, kind in enumerate(kinds))]
    values: dict[str, dict[str, float | None]] = {name: {WHOLE[0]: content["whole"][name]} for name in _ranked(result)}
    if content["retrain"]:
        series += [(f"fitted anew without {kind}", PALETTE[(n + 4) % 7], MARKERS[(n + 1) % 7]) for n, kind in enumerate(kinds)]
    for row in content["rows"]:
        if row["what"] in ("without", ANEW):
            values[row["system"]][f"{'fitted anew ' if row['what'] == ANEW else ''}without {row['kind']}"] = row["mean"]
    return dots("Each kind of content left out", f"{label(content['metric'])} of the test part", values, series)


def lines_plot(result: Mapping[str, Any], what: str, kind: str) -> Figure | None:
    """A line a system over the share of items that lack `kind`, or over the noise on it; none where nothing was measured."""
    content = result["content"]
    title = f"Where {plain(kind)} is missing" if what == "missing" else f"Noise on {plain(kind)}"
    ends = []
    drawn, axes = figure(title, subtitle=f"{label(content['metric'])} after the fit, means over seeds", x=_AXIS[what], size=(5.4, 3.7))
    paint = colours([row["system"] for row in result["systems"]])
    for name in _ranked(result):
        own = [row for row in content["rows"] if (row["system"], row["kind"]) == (name, kind) and row["what"] in (what, *(("without",) * (what == "missing")))]
        if not own:
            continue
        points = sorted([(0.0, content["whole"][name], 0.0), *((row["level"], row["mean"], row["sd"] or 0.0) for row in own)])
        levels, means, sds = (np.array(column) for column in zip(*points, strict=True))
        axes.fill_between(levels, means - sds, means + sds, color=paint[name], alpha=0.12, linewidth=0)
        faint = paint[name] == GREY
        axes.plot(levels, means, "o-", color=paint[name], markersize=3.2 if faint else 4.5, linewidth=1.1 if faint else 1.8, zorder=2 if faint else 3)
        ends.append((float(levels[-1]), float(means[-1]), name, paint[name]))
    if not ends:
        return None
    axes.set_ylim(bottom=0)
    axes.set_xticks([0.0, *content[what], *((1.0,) if what == "missing" else ())])
    if what == "missing":
        percent(axes, x=True)
    else:
        plain_numbers(axes, x=True)
    name_lines(axes, ends, height=3.7)
    return drawn


_AXIS = {"missing": "items without it", "noise": "standard deviation, as a share of a vector's root mean square"}


def _ranked(result: Mapping[str, Any]) -> list[str]:
    """The systems whose content was changed, best first."""
    return [row["system"] for row in result["systems"] if row["system"] in result["content"]["kinds"]]


def splits_table(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a row a system, a column a split, and Kendall's tau to the first one below."""
    cells = {(row["system"], row["condition"]): row for row in found["rows"]}
    rows = []
    for system in _by_first(found):
        values = [cells.get((system, n)) for n in range(len(found["conditions"]))]
        rows.append([system, *("" if v is None else f"{'≥ ' if v['cut'] else ''}{v['mean']:.4f} ({v['rank']})" for v in values)])
    taus = {order["b"]: order["tau"] for order in found["orders"] if order["a"] == 0 and order["tau"] is not None}
    rows.append(["Kendall's tau to the first", "", *(bare(taus[n], 2) if n in taus else "" for n in range(1, len(found["conditions"])))])
    return ["System", *(f"{c['split']} ({c['queries']:,} queries)" for c in found["conditions"])], rows


def _by_first(found: Mapping[str, Any]) -> list[str]:
    """The systems in their order under the first split."""
    return [row["system"] for row in sorted((row for row in found["rows"] if row["condition"] == 0), key=lambda row: row["rank"])]


def ranks_plot(result: Mapping[str, Any]) -> Figure:
    """A line a system over the splits, by rank."""
    found = result["splits"]
    names, places = _by_first(found), range(len(found["conditions"]))
    about = f"rank by {label(found['metric'])}, the same settings under every split"
    drawn, axes = figure("The order of systems by split", subtitle=about, size=(5.4, 1.5 + 0.27 * len(names)))
    paint = colours([row["system"] for row in result["systems"]])
    for name in names:
        own = sorted((row["condition"], row["rank"]) for row in found["rows"] if row["system"] == name)
        above = 2 if paint[name] == GREY else 3
        axes.plot([x for x, _ in own], [y for _, y in own], "o-", color=paint[name], markersize=6, linewidth=1.8, clip_on=False, zorder=above)
        for (x, y), shift, side in ((own[0], -10, "right"), (own[-1], 10, "left")):
            if x in (places[0], places[-1]):
                axes.annotate(plain(name), (x, y), xytext=(shift, 0), textcoords="offset points", ha=side, va="center", fontsize=8.5, color=INK)
    axes.set_xticks(list(places), [_wrapped(condition["split"]) for condition in found["conditions"]])
    axes.set_xlim(-0.42 * places[-1], 1.42 * places[-1])
    axes.set_yticks([])
    axes.set_ylim(len(names) + 0.5, 0.5)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawn


def values_plot(result: Mapping[str, Any]) -> Figure:
    """A row a system, a dot a split."""
    found = result["splits"]
    texts = [condition["split"] for condition in found["conditions"]]
    values: dict[str, dict[str, float | None]] = {name: {} for name in _by_first(found)}
    for row in found["rows"]:
        values[row["system"]][texts[row["condition"]]] = row["mean"]
    series = [(text, PALETTE[n % 7], MARKERS[n % 7]) for n, text in enumerate(texts)]
    return dots("Values by split", f"{label(found['metric'])}; each split asks another question", values, series)


def dots(title: str, subtitle: str, values: Mapping[str, Mapping[str, float | None]], series: Series) -> Figure:
    """A row a system, from the first at the top; in it a dot for each of `series` that has a value."""
    lines = -(-len(series) // 3)
    drawn, axes = figure(title, subtitle=subtitle, size=(5.4, 1.35 + 0.27 * len(values) + 0.2 * lines))
    for place, own in enumerate(values.values()):
        there = [value for value in own.values() if value is not None]
        axes.plot([min(there), max(there)], [place, place], color=GREY, linewidth=1.4, alpha=0.35, zorder=1)
        for name, colour, marker in series:
            if (value := own.get(name)) is not None:
                large = 8.5 if name == series[0][0] else 6.0  # seen behind another dot at the same place
                axes.plot(value, place, marker, color=colour, markersize=large, markeredgecolor="white", markeredgewidth=0.6, zorder=2)
    shown = [one for one in series if any(own.get(one[0]) is not None for own in values.values())]
    for name, colour, marker in shown:
        axes.plot([], [], marker, color=colour, label=plain(name), markersize=6.5)
    axes.set_yticks(range(len(values)), [plain(name) for name in values], color=INK)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]) if axes.get_xlim()[0] < 0.35 * axes.get_xlim()[1] else None)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)
    plain_numbers(axes, x=True)
    drawn.legend(loc="outside lower left", ncols=min(len(shown), 3), fontsize=8.5, handletextpad=0.2, columnspacing=1.2, frameon=False)
    return drawn


def name_lines(axes: Axes, ends: Sequence[tuple[float, float, str, str]], height: float) -> None:
    """Names right of the ends (x, y, name, colour) of lines, a line of text apart from one another. `height` of the figure in inches."""
    low, high = axes.get_ylim()
    gap = (high - low) * 9.5 / (72 * 0.66 * height)
    ordered = sorted(ends, key=lambda end: end[1])
    heights = apart([y for _, y, _, _ in ordered], gap)
    for (x, y, name, colour), at in zip(ordered, heights, strict=True):
        axes.annotate(
            plain(name), (x, y), xytext=(1.045, at), textcoords=("axes fraction", "data"), va="center", fontsize=8, color=INK if colour != GREY else FAINT,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.6, "shrinkA": 1, "shrinkB": 3}, annotation_clip=False,
        )  # fmt: skip


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Ascending `values` moved as little as it takes (least squares) for neighbours to be `gap` apart."""
    from scipy.optimize import isotonic_regression

    steps = gap * np.arange(len(values))
    moved: np.ndarray[Any, np.dtype[np.float64]] = isotonic_regression(np.asarray(values) - steps).x + steps
    return [float(value) for value in moved]


def _wrapped(text: str) -> str:
    return plain(text).replace(":", ":\n", 1).replace(",", ",\n")
