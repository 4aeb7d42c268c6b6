"""The tables of a comparison as Markdown, for documents that live beside code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitrail.evaluation.metrics import RANKERS
from vitrail.evaluation.plots import label
from vitrail.lab.bench import duration
from vitrail.lab.beside_page import content_table, splits_table

BESIDE = ("recall@10", "recall@20", "ndcg@10", "ndcg@20", "coverage@10", "auc", "gauc", "gauc_equal", "logloss", "ece")
SLICES = ("popularity:head", "popularity:mid", "popularity:tail", "items:cold", "history:0", "history:1-5", "history:6-20", "history:21-100", "history:>100")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, *, last: bool = False) -> str:
    """A Markdown table; the first `left` columns, and with `last` the last one, are text, the others numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    if last:
        rule[-1] = "---"
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def markdown(result: Mapping[str, Any]) -> str:
    """`result` as `lab.compare.compare` returns it -> a document: table, sentences, slices, cost, what was tuned, the command."""
    metric = result["metric"]
    asked = f"{result['users']:,} {'users' if metric in RANKERS else 'queries'} of the {result['part']} part"
    parts = [
        f"# {len(result['systems'])} systems on {result['data']}",
        f"{asked}, fingerprint `{result['fingerprint']}`. {result['protocol']}.",
        _quality(result, metric),
        "\n".join(f"- {sentence}" for sentence in [*filter(None, [result.get("baseline")]), *result["sentences"]]),
        _published(result),
        _slices(result, metric),
        _beside("What content does", result.get("content"), content_table, left=2),
        _beside("What the split does", result.get("splits"), splits_table),
        _cost(result),
        _tuning(result, metric),
        "\n".join(f"- {text}" for text in [*result["cut"], *result["warnings"]]),
        f"Repeat it: `{result['command']}` (it took {duration(result['cost']['seconds'])}).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _quality(result: Mapping[str, Any], metric: str) -> str:
    others = [name for name in BESIDE if name != metric and all(name in row["mean"] for row in result["systems"])]
    rows = []
    for row in result["systems"]:
        sd, ci = row["sd"].get(metric), row["ci"].get(metric)
        seeds = "any" if row["deterministic"] else str(len(row["seeds"]))
        mean = f"{row['mean'][metric]:.4f}" + (f" ± {sd:.4f}" if sd is not None else "")
        rows.append([row["system"], seeds, mean, "" if ci is None else f"{ci[0]:.4f} to {ci[1]:.4f}", *(f"{row['mean'][name]:.4f}" for name in others)])
    head = ["system", "seeds", f"{label(metric)} ± sd over seeds", "95 % interval over users", *map(label, others)]
    return table(head, rows, left=2)


def _published(result: Mapping[str, Any]) -> str:
    ours = {row["system"]: row["mean"] for row in result["systems"]}
    rows = [
        [system, label(name), f"{ours[system][name]:.4f}" if name in ours[system] else "", f"{value:.4f}", entry["source"]]
        for system, entries in result["published"].items()
        for entry in entries
        for name, value in entry["metrics"].items()
    ]
    return "## Beside what others reported\n\n" + table(["system", "metric", "ours", "theirs", "source"], rows, left=2, last=True) if rows else ""


def _slices(result: Mapping[str, Any], metric: str) -> str:
    names = [name for name in SLICES if any(name in row["slices"] for row in result["systems"])]
    rows = [
        [row["system"], *(f"{row['slices'][name][metric]:.4f}" if metric in row["slices"].get(name, ()) else "" for name in names)]
        for row in result["systems"]
    ]
    users = {name: max(row["slices"].get(name, {}).get("users", 0) for row in result["systems"]) for name in names}
    head = ["system", *(f"{name} ({users[name]:,.0f})" for name in names)]
    return f"## Slices, {label(metric)} ({'rows' if metric in RANKERS else 'queries'} in brackets)\n\n" + table(head, rows) if names else ""


def _beside(title: str, found: Mapping[str, Any] | None, rows: Callable[[Mapping[str, Any]], tuple[list[str], list[list[str]]]], left: int = 1) -> str:
    if found is None:
        return ""
    head, cells = rows(found)
    return f"## {title}\n\n{table(head, cells, left=left)}\n\n" + "\n".join(f"- {sentence}" for sentence in found["sentences"])


def _cost(result: Mapping[str, Any]) -> str:
    rows = []
    for row in result["systems"]:
        cost = result["cost"]["systems"][row["system"]]
        memory = "" if cost["peak_memory"] is None else f"{cost['peak_memory'] / 2**20:,.0f}"
        test, stored = f"{cost['evaluate_seconds']:.2f}", f"{row['parameters']:,}"
        rows.append([row["system"], duration(cost["fit_seconds"]), whole_fit(cost), kept_epochs(row), test, memory, stored])
    head = ["system", "training of a seed", "its whole fit, wall / CPU", "epochs kept", "test of a seed, s", "peak memory, MiB", "parameters"]
    return "## Cost\n\n" + table(head, rows)


def whole_fit(cost: Mapping[str, Any]) -> str:
    """Seconds of a fit with its validations, by the clock and of the processor, as text."""
    return "" if cost["wall_seconds"] is None else f"{duration(cost['wall_seconds'])} / {duration(cost['cpu_seconds'])}"


def kept_epochs(row: Mapping[str, Any]) -> str:
    """The epoch that each seed kept, marked where a deadline stopped it."""
    if row["deterministic"]:
        return ""
    return ", ".join(f"{epochs}{' (cut)' if seed in row['cut'] else ''}" for seed, epochs in zip(row["seeds"], row["epochs"], strict=True))


def _tuning(result: Mapping[str, Any], metric: str) -> str:
    rows = []
    for name, found in result["tuning"].items():
        if found["trials"] and found["best"] is not None:
            chosen = ", ".join(f"{key} {'none' if value is None else value}" for key, value in found["best"]["settings"].items())
            first = found["trials"][0]["value"]
            rows.append([name, chosen, str(len(found["trials"])), "" if first is None else f"{first:.4f}", f"{found['best']['value']:.4f}"])
    head = ["system", "chosen", "trials", f"{label(metric)} on validation, as given", "chosen"]
    return "## Chosen on validation\n\n" + table(head, rows, left=2) if rows else ""
