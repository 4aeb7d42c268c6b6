"""docs/results/peers.md and the table of the README, both from benchmarks/results/peers.json."""

from __future__ import annotations

from typing import Any

NAMES = {"epoch": "s/epoch", "fit": "fit s", "evaluate": "evaluation s", "load": "load s", "lists": "top 10 s"}

COUNTS = {"peak_mb": "peak memory, MB", "peak_mb_with_evaluation": "with evaluation, MB", "batches": "batches an epoch", "targets": "targets an epoch"}
ABOUT = """Written by `make bench` (`python benchmarks/bench_peers.py`); do not edit. Each side runs in its own process and environment on the split
that Vitrail cut and wrote out, with the same number of threads; the two take turns, so that other work on the machine hits both. Times are
medians in seconds, the range in brackets; a ratio is the peer's number over Vitrail's, above 1 in Vitrail's favour, **bold** where the peer
wins. `cpu` is processor time: it changes less with what else runs. Memory is the most that was resident in a side's process when its
training turns were over, libraries included. All NDCG and recall come from Vitrail's evaluator, from the lists of ten that each side gave
for the same queries under the same mask; their ratio is Vitrail's over the peer's. Vitrail's load opens a data set that was ingested once;
the ingest is given beside it.
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def number(value: float | None) -> str:
    """Three digits that say something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(value: float | None) -> str:
    """A ratio; bold where it is not in our favour."""
    if value is None:
        return ""
    return f"{value:.2f}x" if value >= 1 else f"**{value:.2f}x**"


def short(record: dict[str, Any]) -> str:
    """The README's table: a line a row, ours and the peer's, the ratio; then the rows that were not run."""
    rows, waiting = [], []
    for row in record["results"]["rows"].values():
        ours, theirs, found = row.get("ours", {}), row.get("peer", {}), row.get("ratios", {})
        if not ours and row["status"] != "failed":
            waiting.append(row["row"])
            continue
        kind = "epoch" if "epoch" in ours else "fit"
        clock = [number(side[kind]["wall"]["median"]) if kind in side else "" for side in (ours, theirs)]
        key = "converged" if "converged" in ours and "converged" in theirs else "metrics"
        ndcg = [f"{side[key]['ndcg@10']:.4f}" if key in side else "" for side in (ours, theirs)]
        memory = [number(side.get("peak_mb")) for side in (ours, theirs)]
        name = row["row"] + (" (estimate)" if "estimated" in ours.get("epoch", {}) else "") + (" (failed)" if row["status"] == "failed" else "")
        rows.append([name, NAMES[kind], *clock, times(found.get(kind, {}).get("wall")), *memory, times(found.get("memory", {}).get("value")), *ndcg])
    head = ["peer.model.data", "time", "ours", "theirs", "ratio", "ours, MB", "theirs, MB", "ratio", "NDCG@10 ours", "theirs"]
    return table(head, rows) + (f"\n\nNot run yet: {', '.join(waiting)}." if waiting else "")


def page(record: dict[str, Any]) -> str:
    """The whole page."""
    machine, settings = record["machine"], record["settings"]
    rows = record["results"]["rows"]
    parts = [
        "# Vitrail beside its peers\n",
        ABOUT,
        f"{record['date']}, {machine['processor']}, {machine['usable_cores']} cores, {settings['threads']} threads; load average "
        f"{record['load_before'][0]:g} before, {record['load_after'][0]:g} after.\n",
        "## Overview\n",
        short(record) + "\n",
        "## Goals\n",
        table(["goal", "least", "measured", ""], [[g["what"], g["goal"], number(g["measured"]), _verdict(g)] for g in record["goals"]]) + "\n",
    ]
    parts += [_row(row, record["results"]["environments"]) for row in rows.values()]
    return "\n".join(parts)


def _verdict(goal: dict[str, Any]) -> str:
    return "met" if goal["met"] else "MISSED" + (f": {goal['why']}" if goal.get("why") else "")


def _row(row: dict[str, Any], environments: dict[str, Any]) -> str:
    ours, theirs, found = row.get("ours", {}), row.get("peer", {}), row.get("ratios", {})
    peer = row["row"].split(".")[0]
    said = [f"## {row['row']}\n"]
    if row["status"] == "failed":
        said.append(f"**Failed:** {row['why']}\n")
    lines = []
    for measure, name in NAMES.items():
        if measure in ours and measure in theirs:
            ratio = found.get(measure, {})
            lines.append([name, _spread(ours[measure]), _spread(theirs[measure]), times(ratio.get("wall")), times(ratio.get("cpu"))])
    for key, name in COUNTS.items():
        if key in ours or key in theirs:
            value = times(found.get("memory", {}).get("value")) if key == "peak_mb" else ""
            lines.append([name, *[f"{side[key]:,}" if key in side else "" for side in (ours, theirs)], value, ""])
    for key, name in (("metrics", "after the same epochs"), ("converged", "stopped by validation")):
        for metric in ("ndcg@10", "recall@10"):
            if key in ours and key in theirs:
                value = times(found.get({"metrics": "ndcg"}.get(key, key), {}).get("value")) if metric == "ndcg@10" else ""
                lines.append([f"{metric}, {name}", *[f"{side[key][metric]:.4f}" for side in (ours, theirs)], value, ""])
    if "convergence" in ours and "convergence" in theirs:
        lines.append(["until then", *[_stop(side["convergence"]) for side in (ours, theirs)], "", ""])
    if lines:
        said.append(table(["", "Vitrail", peer, "ratio", "cpu ratio"], lines) + "\n")
    if estimate := ours.get("epoch", {}).get("estimated"):
        said.append(f"Time an epoch is an estimate: {estimate}.\n")
    said += [f"- {text}" for text in row["differences"]]
    facts = [f"ingest {row['ingest_seconds']:g} s, once"] if row.get("ingest_seconds") is not None else []
    facts.append(f"load average {row['load_before'][0]:g} before, {row.get('load_after', [0])[0]:g} after")
    facts.append(", ".join(f"{name} {version}" for name, version in row.get("versions", {}).items()) or environments.get(peer, ""))
    said.append(f"- {'; '.join(facts)}; `python benchmarks/bench_peers.py --only {row['row']}`\n")
    return "\n".join(said)


def _spread(found: dict[str, Any]) -> str:
    wall = found["wall"]
    return f"{number(wall['median'])} [{number(wall['min'])}, {number(wall['max'])}], cpu {number(found['cpu']['median'])}"


def _stop(found: dict[str, Any]) -> str:
    return f"{found['epochs_done']} epochs in all, {number(found['seconds'])} s ({found['stopped']})"
