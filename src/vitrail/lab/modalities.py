"""What each kind of content does for a fitted run: left out, made noisy, or missing for a share of the items, when it answers or from the start.

The run itself is not changed: its weights are put over content that is, or, with `retrain`, its system is fitted anew on it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitrail.data.dataset import Dataset
from vitrail.data.vectors import Vectors
from vitrail.errors import SettingError
from vitrail.evaluation.plots import colours, label
from vitrail.files import fingerprint, read_json, write_json, write_text
from vitrail.funnel.altered import changed, like, with_content
from vitrail.funnel.recommender import Recommender, load
from vitrail.lab.bench import hold, remember
from vitrail.lab.tune import Say
from vitrail.plotstyle import FAINT, figure, percent, save
from vitrail.plotstyle import plain as safe
from vitrail.systems import registry
from vitrail.systems.base import Given
from vitrail.train.fit import Content, Fitter, cut, evaluate_run, pick_device, recorded_split
from vitrail.train.loop import Left

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ASKED = 64
"""Users whose scores tell whether a change moves anything."""


def modality_effects(
    run: str | Path | Recommender,
    *,
    out: str | Path,
    data: str | Path | Dataset | None = None,
    noise: Sequence[float] = (0.5, 1.0, 2.0),
    missing: Sequence[float] = (0.25, 0.5, 0.75),
    seeds: int = 3,
    metric: str = "recall@20",
    retrain: bool = False,
    device: str = "auto",
    quiet: bool = False,
    say: Say | None = None,
) -> dict[str, Any]:
    """Measure `run` on its test part with each of its modalities left out, with noise on it, and with a share of the items missing it.

    `noise`: standard deviations, as shares of a vector's root mean square; `missing`: shares of the items that have the modality; each is drawn `seeds`
    times. `retrain`: the system is fitted anew on the changed content, else the run's weights answer by it. Returns what `out/result.json` holds: `rows` of
    {what, modality, level, mean, sd, share, draws}, where `share` is of the whole, and `sentences`; beside it `report.md` and a picture. What is finished
    is not measured again. Raises SettingError for a run that reads no content and for levels out of bounds, and as `evaluate_run`.
    """
    say = say or (lambda text: None if quiet else print(text, file=sys.stderr))  # noqa: T201
    recommender = run if isinstance(run, Recommender) else load(run)
    names = list(recommender.given.vectors)
    if not names:
        raise SettingError(f'System "{recommender.name}" reads no content vectors, so there is no modality to take away: name a run that does.')
    if seeds < 1 or any(level <= 0 for level in noise) or not all(0 < level < 1 for level in missing):
        raise SettingError("--seeds is 1 or more, --noise above 0, and --missing between 0 and 1.")
    dataset = data if isinstance(data, Dataset) else Dataset(data or recommender.info["data"]["path"])
    cells: list[tuple[str, str | None, float]] = [("whole", None, 0.0)]
    cells += [("without", name, 1.0) for name in names]
    cells += [(what, name, level) for what, levels in (("noise", noise), ("missing", missing)) for name in names for level in levels]
    folder, changes = Path(out), False
    rows: list[dict[str, Any]] = []
    request = {"run": recommender.info["fingerprint"], "files": recommender.info.get("files"), "metric": metric, "retrain": retrain}
    with hold(folder):
        remember(folder / "request.json", request, "report")
        for what, name, level in cells:
            values = []
            for seed in range(seeds if what in ("noise", "missing") else 1):
                file = folder / "cells" / f"{fingerprint([what, name, level, seed])}.json"
                if not file.exists():
                    write_json(file, measured(recommender, (what, name, level, seed), dataset, metric, retrain, device))
                found = read_json(file)
                values.append(found["value"])
                changes = changes or found["moved"]
            mean = statistics.fmean(values)
            whole = rows[0]["mean"] if rows else mean
            sd = statistics.stdev(values) if len(values) > 1 else None
            share = mean / whole if whole else None
            rows.append({"what": what, "modality": name, "level": level, "mean": mean, "sd": sd, "share": share, "draws": len(values)})
            say(f"  {_name(rows[-1])}: {metric} {mean:.4f}")
        result = {
            "system": recommender.name, "data": dataset.info.name, "metric": metric, "retrain": retrain, "fingerprint": recommender.info["fingerprint"],
            "modalities": names, "rows": rows, "sentences": sentences(rows, recommender.name, metric, retrain, changes),
        }  # fmt: skip
        write_json(folder / "result.json", result)
        for kind in ("svg", "png"):
            save(curves(result), folder / f"modalities.{kind}")
        write_text(folder / "report.md", report(result))
    say(f"the report is at {folder / 'report.md'}")
    return result


def measured(
    recommender: Recommender, change: tuple[str, str | None, float, int], dataset: Dataset, metric: str, retrain: bool, device: str, left: Left | None = None
) -> dict[str, Any]:
    """`metric` on the test part after a `change` (what, kind, level, seed of the draw), whether it moved a score, and whether a deadline (`left` tells the
    seconds) stopped the fit that `retrain` asks for."""
    other, cut_off = recommender, False
    if change[0] != "whole":
        given = changed(recommender.given, *change)
        other, cut_off = again(recommender, given, dataset, device, left) if retrain else (with_content(recommender, given), False)
    value = evaluate_run(other, data=dataset, metrics=[metric]).metrics[metric]
    return {"value": value, "moved": moved(recommender, other), "cut": cut_off}


class Altered(Dataset):
    """A data set with other content vectors."""

    def __init__(self, path: Path, given: Given) -> None:
        super().__init__(path)
        self._given = given

    def vectors(self, name: str) -> Vectors:
        """The changed ones."""
        found = super().vectors(name)
        return replace(found, values=self._given.vectors[name].numpy(), mask=self._given.masks[name].numpy())


def again(recommender: Recommender, given: Given, dataset: Dataset, device: str, left: Left | None = None) -> tuple[Recommender, bool]:
    """The system of a run fitted on changed content, with its settings, split and seed; and whether `left`, the seconds it has, stopped it."""
    info, cls = recommender.info, registry.find(recommender.name)
    config = cls.Config.of(info["config"], where="the manifest")
    split, _, protocol = cut(dataset, recorded_split(info["split"]), bool(info["protocol"].get("refit")), info["protocol"]["name"])
    fitter = Fitter(Altered(dataset.path, given), split, protocol, info["seed"], pick_device(device), True, None, False, left=left)
    model, fresh, progress = fitter.fit(cls, config, Content.of(cls, config, dataset).sizes(dataset))
    return like(recommender, model.cpu(), fresh), progress.cut


def _name(row: dict[str, Any]) -> str:
    if row["what"] == "noise":
        return f"noise of {row['level']:g} on {row['modality']}"
    if row["what"] == "missing":
        return f"{100 * row['level']:.0f} % of items without {row['modality']}"
    return "whole" if row["what"] == "whole" else f"without {row['modality']}"


def moved(one: Recommender, other: Recommender) -> bool:
    """Whether the scores of two states of a system differ, for the first users."""
    asked = one.known.histories(np.arange(min(ASKED, len(one.user_ids))))
    with torch.inference_mode():
        return not torch.allclose(one.score(asked)[0], other.score(asked)[0])


def sentences(rows: Sequence[dict[str, Any]], system: str, metric: str, retrain: bool, changes: bool) -> list[str]:
    """What is left of the whole, in words; `changes`: whether anything that was done moved a score."""
    if not changes:
        return [f"{system} reads its content in training only: nothing that is done to it afterwards moves an answer. Ask with --retrain what it is worth."]
    whole, told = rows[0]["mean"], []
    how = "fitted anew" if retrain else "as it was fitted"
    for row in rows[1:]:
        if row["what"] == "without" and row["share"] is not None:
            told.append(f"Without {row['modality']}, {system} {how} keeps {100 * row['share']:.0f} % of its {metric} ({row['mean']:.4f} of {whole:.4f}).")
    return told


def report(result: dict[str, Any]) -> str:
    """Markdown: the sentences, a row a change."""
    how = "fitted anew on the changed content" if result["retrain"] else "the fitted weights over the changed content"
    lines = [f"# What content does for {result['system']} on {result['data']}", "", f"{label(result['metric'])} of the test part, {how}.", ""]
    lines += [f"- {sentence}" for sentence in result["sentences"]]
    lines += ["", f"| content | {result['metric']} | ± draws | of the whole |", "| --- | ---: | ---: | ---: |"]
    for row in result["rows"]:
        sd, share = "" if row["sd"] is None else f"{row['sd']:.4f}", "" if row["share"] is None else f"{100 * row['share']:.1f} %"
        lines.append(f"| {_name(row)} | {row['mean']:.4f} | {sd} | {share} |")
    return "\n".join([*lines, "", "Noise is told in shares of the root mean square of a vector: at 1 half of its energy is noise.", ""])


def curves(result: dict[str, Any]) -> Figure:
    """A line a modality over the share of items that lack it, all of them at the right end."""
    about = f"{result['system']} on {result['data']}, " + ("fitted anew" if result["retrain"] else "as it was fitted")
    drawn, axes = figure(f"{label(result['metric'])} where content is missing", subtitle=about, x="items without the modality", size=(6.4, 4.0))
    paint, whole = colours(result["modalities"]), result["rows"][0]["mean"]
    for name in result["modalities"]:
        own = [row for row in result["rows"] if row["modality"] == name and row["what"] in ("missing", "without")]
        points = sorted([(0.0, whole, 0.0), *((row["level"], row["mean"], row["sd"] or 0.0) for row in own)])
        levels, means, sds = zip(*points, strict=True)
        axes.errorbar(levels, means, sds, fmt="o-", color=paint[name], label=f"{safe(name)} missing", capsize=3)
        for row in result["rows"]:
            if row["modality"] == name and row["what"] == "noise":
                axes.axhline(row["mean"], color=paint[name], linewidth=0.9, linestyle=":", alpha=0.8)
                axes.annotate(f"noise {row['level']:g}", (1.0, row["mean"]), xytext=(4, -3), textcoords="offset points", fontsize=7, color=FAINT)
    axes.set_ylim(bottom=0)
    percent(axes, x=True)
    axes.legend(fontsize=8)
    return drawn
