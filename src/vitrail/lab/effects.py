"""What the choices of a protocol do by themselves: the same systems and settings under several splits, masks, and with and without a refit.

Nothing is tuned. Each system is fitted once for every split and refit; a mask changes only how the test part is asked.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.data.dataset import Dataset
from vitrail.data.splits import parse_split
from vitrail.errors import SettingError
from vitrail.evaluation.plots import colours, label
from vitrail.evaluation.protocol import Protocol, parse_protocol, protocol_for
from vitrail.files import fingerprint, read_json, write_json, write_text
from vitrail.lab.bench import check_needs, hold, remember
from vitrail.lab.members import check_systems, fixed_settings
from vitrail.lab.tune import Say, plain
from vitrail.plotstyle import figure, save
from vitrail.plotstyle import plain as safe
from vitrail.systems import registry
from vitrail.train.fit import cut, evaluate_run, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = ("split", "mask", "refit")


def effects(
    systems: Sequence[str],
    data: str | Path | Dataset,
    *,
    out: str | Path,
    splits: Sequence[str],
    masks: Sequence[str] = ("train+valid", "train"),
    refits: Sequence[bool] = (False, True),
    seeds: int = 1,
    metric: str = "recall@20",
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    quiet: bool = False,
    say: Say | None = None,
) -> dict[str, Any]:
    """Measure `systems` under every combination of `splits`, `masks` and `refits`; returns what `out/result.json` holds.

    `conditions`: what each was; `rows`: (system, condition) with mean, sd over seeds and rank; `axes`: how far each choice alone moves a value and
    how many pairs of systems it turns round; `sentences` in words. Beside it `report.md` and a picture. `settings` as in `compare`. What is finished is
    not run again. Raises VitrailError: one sentence.
    """
    say = say or (lambda text: None if quiet else print(text, file=sys.stderr))  # noqa: T201
    names = check_systems(systems)
    dataset = data if isinstance(data, Dataset) else Dataset(data)
    if len(splits) * len(masks) * len(refits) < 2:
        raise SettingError("There is one condition only, and nothing to compare: name two splits, two masks, or both refits.")
    if seeds < 1:
        raise SettingError(f"--seeds is {seeds}: give 1 or more.")
    chosen = [parse_split(split) for split in splits]
    for split, mask in itertools.product(chosen, masks):
        parse_protocol(_protocol(split.name, mask), split.name)
    fixed = fixed_settings(names, settings or {})
    configs = {name: registry.find(name).Config.of(fixed[name], where=f'settings of system "{name}"') for name in names}
    check_needs(configs, dataset)
    folder = Path(out)
    request = {"systems": names, "data": dataset.fingerprint, "splits": [s.text for s in chosen], "seeds": seeds, "metric": metric, "settings": fixed}
    cells: list[dict[str, Any]] = []
    conditions: list[dict[str, Any]] = []
    with hold(folder):
        remember(folder / "request.json", plain(request), "report")
        for split, refit in itertools.product(chosen, refits):
            made: dict[str, list[Path]] = {}
            for name in names:
                count = 1 if registry.find(name).deterministic else seeds
                config = {"metric": metric, **fixed[name]} if "metric" in registry.find(name).Config.model_fields else fixed[name]
                runs = [folder / fingerprint([split.text, refit]) / name / f"seed-{seed}" for seed in range(count)]
                for seed, run in enumerate(runs):
                    fit(name, dataset, split=split, refit=refit, out=run, seed=seed, resume=True, settings=config, device=device, quiet=True)
                made[name] = runs
            for mask in masks:
                _, _, protocol = cut(dataset, split, refit, _protocol(split.name, mask))
                place, queries = len(conditions), 0
                for name in names:
                    values = []
                    for run in made[name]:
                        found = _measured(run, dataset, protocol, metric)
                        values.append(found["value"])
                        queries = found["queries"]
                    sd = statistics.stdev(values) if len(values) > 1 else None
                    cells.append({"system": name, "condition": place, "mean": statistics.fmean(values), "sd": sd})
                own = {"split": split.text, "mask": mask, "refit": refit, "protocol": protocol.describe(), "queries": queries}
                conditions.append(own)
                best = max(cells[-len(names) :], key=lambda c: c["mean"])
                say(f"  {split.text}, mask {mask}{', refit' if refit else ''}: best {best['system']} {metric} {best['mean']:.4f}")
    _rank(cells)
    axes = {axis: moved(axis, conditions, cells) for axis in AXES}
    result = {
        "data": dataset.info.name, "metric": metric, "systems": names, "conditions": conditions, "rows": cells,
        "axes": {axis: found for axis, found in axes.items() if found is not None}, "sentences": [],
    }  # fmt: skip
    result["sentences"] = [_sentence(axis, found, metric) for axis, found in axes.items() if found is not None]
    write_json(folder / "result.json", result)
    drawn = slopes(result)
    for kind in ("svg", "png"):
        save(drawn, folder / f"effects.{kind}")
    write_text(folder / "report.md", report(result))
    say(f"the report is at {folder / 'report.md'}")
    return result


def _protocol(split: str, mask: str) -> str:
    return f"{protocol_for(split).name}:mask={mask}"


def _measured(run: Path, dataset: Dataset, protocol: Protocol, metric: str) -> dict[str, Any]:
    """The mean of `metric` of a run under `protocol`; read where it was measured before."""
    file = run / f"{fingerprint([protocol.model_dump(mode='json'), metric])}.json"
    if file.exists():
        return dict(read_json(file))
    evaluation = evaluate_run(run, data=dataset, metrics=[metric], protocol=protocol)
    row = {"value": evaluation.metrics[metric], "queries": evaluation.users}
    write_json(file, row)
    return row


def _rank(cells: list[dict[str, Any]]) -> None:
    for place in {cell["condition"] for cell in cells}:
        own = sorted((c for c in cells if c["condition"] == place), key=lambda c: -c["mean"])
        for rank, cell in enumerate(own, start=1):
            cell["rank"] = rank


def moved(axis: str, conditions: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What changing `axis` alone does, everything else held: the largest factor between two values of one system, and how many (pair of systems,
    pair of conditions) change their order; none where the axis has one value."""
    value = {(c["system"], c["condition"]): c["mean"] for c in cells}
    names = list(dict.fromkeys(c["system"] for c in cells))
    rest = [other for other in AXES if other != axis]
    alike = [
        (a, b)
        for a, b in itertools.combinations(range(len(conditions)), 2)
        if conditions[a][axis] != conditions[b][axis] and all(conditions[a][other] == conditions[b][other] for other in rest)
    ]
    if not alike:
        return None
    worst: dict[str, Any] = {"factor": 1.0, "system": names[0], "from": None, "to": None}
    turned = asked = 0
    for a, b in alike:
        for name in names:
            low, high = sorted((value[name, a], value[name, b]))
            if low > 0 and high / low > worst["factor"]:
                first, second = (a, b) if value[name, a] <= value[name, b] else (b, a)
                worst = {"factor": high / low, "system": name, "from": conditions[first][axis], "to": conditions[second][axis], "low": low, "high": high}
        for one, two in itertools.combinations(names, 2):
            asked += 1
            turned += (value[one, a] - value[two, a]) * (value[one, b] - value[two, b]) < 0
    return {**worst, "turned": turned, "pairs": asked}


def _sentence(axis: str, found: Mapping[str, Any], metric: str) -> str:
    order = f"it turns round {found['turned']} of {found['pairs']} orders of two systems"
    if found["from"] is None:
        return f"The {axis} alone moves no value of {metric}; {order}."
    change = f"{100 * (found['factor'] - 1):.0f} %" if found["factor"] < 2 else f"{found['factor']:.1f} times"
    words = {True: "with a refit", False: "without"}
    low, high = (words.get(found[key], found[key]) for key in ("from", "to"))
    return f"The {axis} alone moves {metric} by up to {change} ({found['system']}: {found['low']:.4f} {low}, {found['high']:.4f} {high}); {order}."


def _name(condition: Mapping[str, Any]) -> str:
    return f"{condition['split']}, mask {condition['mask']}{', refit' if condition['refit'] else ''}"


def report(result: Mapping[str, Any]) -> str:
    """Markdown: the sentences, a row a condition, a column a system (value and rank)."""
    value = {(c["system"], c["condition"]): c for c in result["rows"]}
    lines = [f"# What the protocol alone does to {result['metric']} on {result['data']}", ""]
    lines += [f"- {sentence}" for sentence in result["sentences"]]
    lines += ["", "| split | mask | refit | queries | " + " | ".join(result["systems"]) + " |"]
    lines += ["| --- | --- | --- | ---: |" + " ---: |" * len(result["systems"])]
    for place, condition in enumerate(result["conditions"]):
        shown = [f"{value[name, place]['mean']:.4f} ({value[name, place]['rank']})" for name in result["systems"]]
        refit = "yes" if condition["refit"] else "no"
        lines.append(f"| {condition['split']} | {condition['mask']} | {refit} | {condition['queries']:,} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", "In brackets the rank within the row. Values of different rows must not be compared as if they measured one thing.", ""])


def slopes(result: Mapping[str, Any]) -> Figure:
    """A line a system over the conditions, by rank."""
    names, conditions = result["systems"], result["conditions"]
    about = f"by {label(result['metric'])}, the same settings in every condition"
    drawn, axes = figure("Rank of each system", subtitle=about, size=(2.2 + 0.62 * len(conditions), 3.2 + 0.16 * len(names)))
    paint = colours(names)
    for name in names:
        ranks = [cell["rank"] for cell in result["rows"] if cell["system"] == name]
        axes.plot(range(len(ranks)), ranks, "o-", color=paint[name], label=safe(name), markersize=6)
    axes.set_xticks(range(len(conditions)), [safe(_name(condition)) for condition in conditions], rotation=38, ha="right", fontsize=8)
    axes.set_yticks(range(1, len(names) + 1))
    axes.set_ylim(len(names) + 0.5, 0.5)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn
