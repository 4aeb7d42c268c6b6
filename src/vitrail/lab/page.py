"""The page and the pictures of a comparison."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.data.dataset import Dataset
from vitrail.evaluation import plots
from vitrail.evaluation.compare import Comparison
from vitrail.evaluation.evaluator import Evaluation
from vitrail.evaluation.report import Section, number, write_report
from vitrail.files import write_text
from vitrail.lab import beside_page
from vitrail.lab.bench import duration
from vitrail.lab.markdown import kept_epochs, markdown, whole_fit
from vitrail.lab.sentences import bare, gain
from vitrail.lab.tuner import ENDED
from vitrail.plotstyle import INK, figure, logarithmic, plain, plain_numbers, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")


Curves = Mapping[str, Sequence[Mapping[str, Any]]]


def write_page(
    folder: Path, dataset: Dataset, result: Mapping[str, Any], evaluations: Sequence[Evaluation], compared: Comparison, curves: Curves
) -> Path:
    """Write `report.html`, which stands alone, and its pictures in `plots/` as SVG and PNG."""
    from vitrail.data.describe import describe

    metric = compared.metric
    by_name = {e.system: e for e in evaluations}
    ordered = [by_name[row.system] for row in compared.rows]
    curves = {e.system: curves[e.system] for e in ordered if curves.get(e.system)}
    cost, tuning = cost_plot(result), tuning_plot(result)
    drawn: dict[str, Figure | None] = {"quality": plots.intervals_plot(ordered, metric), "time": cost, "tuning": tuning}
    drawn |= {f"by_{group}": plots.slices_plot(ordered, group, metric) for group in plots.SLICES}
    drawn |= {f"against_{price.partition('@')[0]}": plots.tradeoff_plot(ordered, metric, price) for price in plots.PRICES}
    drawn |= {f"training_{'loss' if key == 'loss' else 'validation'}": plots.curves_plot(curves, key, list(by_name)) for key in ("loss", metric)}
    beside = beside_page.pictures(result)
    drawn |= beside
    for name, picture in drawn.items():
        if picture is not None:
            for kind in FORMATS:
                save(picture, folder / "plots" / f"{name}.{kind}")
    pictures = [picture for picture in (cost, tuning) if picture is not None]
    sections = [effects_section(result), *beside_page.sections(result, beside), published_section(result), tuning_section(result)]
    sections += [cost_section(result, pictures), how_section(result)]
    return write_report(
        folder / "report.html",
        evaluations,
        title=f"{len(ordered)} systems compared on {result['data'] or 'one data set'}",
        metric=metric,
        describe=describe(dataset).model_dump(),
        curves=curves,
        compared=compared,
        answers=[*filter(None, [result.get("baseline")]), *result["sentences"]],
        spread={row["system"]: row["sd"] for row in result["systems"]},
        sections=[section for section in sections if section is not None],
    )


def copy_page(folder: Path, result: Mapping[str, Any], target: Path) -> None:
    """The page of `folder` again at `target`; only its tables, as Markdown, where the name ends in .md."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".md":
        write_text(target, markdown(result))
    else:
        shutil.copyfile(folder / "report.html", target)


def read_curves(run: Path) -> list[dict[str, Any]]:
    """A record an epoch; none where nothing was trained."""
    file = run / "curves.jsonl"
    return [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines() if text.strip()] if file.exists() else []


def effects_section(result: Mapping[str, Any]) -> Section | None:
    """How large the differences are."""
    if not result["effects"]:
        return None
    means = {row["system"]: row["mean"][result["metric"]] for row in result["systems"]}
    rows = []
    for found, test in zip(result["effects"], result["tests"], strict=True):
        a, b, diff = (found["a"], found["b"], test["diff"]) if test["diff"] >= 0 else (found["b"], found["a"], -test["diff"])
        d = "" if found["cohens_d"] is None else f"{abs(found['cohens_d']):.2f}"
        rows.append((f"{a} over {b}", gain(diff, means[b]), d, bare(test["p"], 4), bare(test["p_holm"], 4), f"{test['n']:,}"))
    note = (
        "Relative gain in the mean; Cohen's d is the mean of the users' differences over their standard deviation: .2 is small, .5 is medium. "
        "A difference can be sure and small."
    )
    return Section("How large the differences are", note, ("Pair", "Gain", "Cohen's d", "p", "p, corrected", "Users"), rows, early=True)


def cost_section(result: Mapping[str, Any], drawn: Sequence[Figure]) -> Section:
    """Time, memory, parameters."""
    facts = {row["system"]: row for row in result["systems"]}
    rows = []
    for name, cost in sorted(result["cost"]["systems"].items(), key=lambda pair: pair[1]["fit_seconds"]):
        fits = "any" if facts[name]["deterministic"] else str(len(facts[name]["seeds"]))
        epochs = kept_epochs(facts[name])
        memory = "" if cost["peak_memory"] is None else f"{cost['peak_memory'] / 2**20:,.0f} MiB"
        tune = "" if not cost["tune_seconds"] else duration(cost["tune_seconds"])
        parameters = f"{facts[name]['parameters']:,}"
        rows.append((name, tune, fits, duration(cost["fit_seconds"]), whole_fit(cost), epochs, f"{cost['evaluate_seconds']:.2f} s", memory, parameters))
    columns = ("System", "Tuning", "Seeds", "Training of a seed", "Its whole fit, wall / CPU", "Epochs kept", "Test of a seed", "Peak memory", "Parameters")
    note = (
        "Time on this machine, means over seeds (any: the seed moves nothing); training is without its validations, the whole fit is with them, by the "
        "clock and of the processor. "
        "Memory is that of the whole process while it fitted and tested, the most over seeds; parameters are numbers that are learned, or stored where none is."
    )
    return Section("What it costs", note, columns, rows, figures=drawn)


def tuning_section(result: Mapping[str, Any]) -> Section | None:
    """What was tried and chosen."""
    rows = []
    for name, found in result["tuning"].items():
        trials, best = found["trials"], found["best"]
        if not trials:
            rows.append((name, "0", "", "", "", "nothing was tuned"))
            continue
        states = [t["state"] for t in trials]
        stopped = ", ".join(f"{states.count(s)} {s}" for s in ("cut", "pruned", "failed") if s in states)
        first = "" if trials[0]["value"] is None else f"{trials[0]['value']:.4f}"
        value, chosen = ("", "the default") if best is None else (f"{best['value']:.4f}", _settings(best["settings"]))
        rows.append((name, f"{len(trials)}{f' ({stopped})' if stopped else ''}", first, value, chosen, _space(found["space"])))
    if not any(found["trials"] for found in result["tuning"].values()):
        return None
    metric = plots.label(result["metric"])
    columns = ("System", "Trials", f"{metric} on validation, as given", "Best", "Chosen", "Tried")
    note = (
        "Every system had the same number of trials (fewer only where all its settings were tried, or where a budget gave every system the same share of "
        "time); the first is the setting as given. A trial that was cut is one the deadline stopped, with its best weights so far."
    )
    return Section("How each was tuned", note, columns, rows, ("Chosen", "Tried"))


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {'none' if value is None else value}" for key, value in values.items())


def _space(space: Mapping[str, Any]) -> str:
    words = []
    for name, what in space.items():
        tried = " | ".join("none" if c is None else str(c) for c in what["choices"]) if "choices" in what else f"{what['low']:g} to {what['high']:g}"
        words.append(f"{name}: {tried}")
    return "; ".join(words)


def published_section(result: Mapping[str, Any]) -> Section | None:
    """What others reported, beside ours."""
    ours = {row["system"]: row for row in result["systems"]}
    rows = []
    for name, entries in result["published"].items():
        for entry in entries:
            for metric, value in entry["metrics"].items():
                mean = ours[name]["mean"].get(metric)
                sd = ours[name]["sd"].get(metric)
                mine = "" if mean is None else number(metric, mean) + (f" ± {sd:.4f}" if sd is not None else "")
                rows.append((name, plots.label(metric), mine, number(metric, value), entry["source"], entry["protocol"]))
    if not rows:
        return None
    note = "From the recipes for these data and this split; the settings of others are theirs. The last column says under which protocol they measured."
    columns = ("System", "Metric", "Ours, mean over seeds", "Theirs", "Source", "Their protocol")
    return Section("Beside what others reported", note, columns, rows, ("Source", "Their protocol"))


def how_section(result: Mapping[str, Any]) -> Section:
    """How to repeat it."""
    estimate, most = result["cost"]["expected"], result["cost"]["at_most"]
    told = f"; the estimate before it started was {duration(estimate)}, at most {duration(most)}" if estimate else ""
    took = f"It took {duration(result['cost']['seconds'])}{told}."
    return Section("How to repeat it", " ".join([took, *result["cut"]]), command=result["command"])


def cost_plot(result: Mapping[str, Any]) -> Figure | None:
    """Quality against the time to fit."""
    names = [row["system"] for row in result["systems"]]
    metric = result["metric"]
    about = "up: more right answers; left: sooner fitted"
    drawn, axes = figure("Quality and time", subtitle=about, x="seconds to fit one seed", y=plots.label(metric), size=(5.4, 3.5))
    paint = plots.colours(names)
    points = {row["system"]: (max(result["cost"]["systems"][row["system"]]["fit_seconds"], 0.001), row["mean"][metric]) for row in result["systems"]}
    heights = [y for _, y in points.values()]
    a_point = ((max(heights) - min(heights)) or 1.0) / 110  # what one point of text is worth on the axis, about
    ordered = sorted(points, key=lambda name: points[name][1])
    for name, at in zip(ordered, beside_page.apart([points[name][1] for name in ordered], 11 * a_point), strict=True):
        x, y = points[name]
        axes.plot(x, y, "o", color=paint[name], markersize=8)
        line = {"arrowstyle": "-", "color": paint[name], "linewidth": 0.7, "alpha": 0.6}
        axes.annotate(
            plain(name), (x, y), xytext=(14, (at - y) / a_point), textcoords="offset points", va="center", fontsize=9, color=INK, arrowprops=line
        )
    axes.margins(0.2)
    logarithmic(axes, x=True)
    plain_numbers(axes, x=True)
    return drawn


def tuning_plot(result: Mapping[str, Any]) -> Figure | None:
    """The best value on validation so far, by trial."""
    lines: dict[str, list[float]] = {}
    for name, found in result["tuning"].items():
        best: list[float] = []
        for trial in found["trials"]:
            value = trial["value"] if trial["state"] in ENDED and trial["value"] is not None else float("-inf")
            best.append(max(value, best[-1] if best else float("-inf")))
        if len(best) > 1:
            lines[name] = [value if value > float("-inf") else float("nan") for value in best]
    if not lines:
        return None
    drawn, axes = figure("Tuning", subtitle=f"best {plots.label(result['metric'])} on validation so far", x="trial", size=(5.4, 3.5))
    paint = plots.colours([row["system"] for row in result["systems"]])
    for name, values in lines.items():
        axes.plot(range(1, len(values) + 1), values, drawstyle="steps-post", color=paint[name], label=plain(name), linewidth=1.8)
        axes.plot(len(values), values[-1], "o", color=paint[name], markersize=6)
    axes.locator_params(axis="x", integer=True)
    plots.legend(drawn, axes)
    return drawn
