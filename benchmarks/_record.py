"""What every benchmark writes: the numbers, their spread, the goals, and the machine, date and command that made them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.doctor import examine
from vitrail.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """median, p90, p99, least and most of `values` (in their unit), and how many they are."""
    data = np.asarray(values, dtype=np.float64)
    found = {"median": np.median(data), "p90": np.quantile(data, 0.9), "p99": np.quantile(data, 0.99), "min": data.min(), "max": data.max()}
    return {name: round(float(value), digits) for name, value in found.items()} | {"n": len(data)}


def goal(what: str, measured: float, *, below: float | None = None, least: float | None = None) -> dict[str, Any]:
    """A line of the goals: `measured` must be under `below`, or at least `least`."""
    met = (below is None or measured < below) and (least is None or measured >= least)
    return {"what": what, "goal": f"< {below:g}" if below is not None else f">= {least:g}", "measured": measured, "met": met}


def load() -> list[float]:
    """Processes that wanted to run, over 1, 5 and 15 minutes, all programs of the machine together."""
    return [round(value, 2) for value in os.getloadavg()]


def _told(words: list[str]) -> list[str]:
    """The options, without the places of one machine: whoever repeats it has others."""
    places = {"--work", "--mmrec", "--out", "--data", "--vectors"}
    return [word for before, word in zip(["", *words], words, strict=False) if not places & {before, word}]


def save(name: str, results: dict[str, Any], goals: Sequence[dict[str, Any]], *, before: list[float], settings: dict[str, Any] | None = None) -> int:
    """Write benchmarks/results/<name>.json, print the goals; returns 0 where all are met, else 1."""
    report = examine()
    record = {
        "name": name,
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_told(sys.argv[1:])]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": report["machine"] | {"memory_gib": report["memory"]["total_gib"], "threads": report["compute"]["threads"], "gpu": report["compute"]["gpu"]},
        "versions": report["versions"],
        "load_before": before,
        "load_after": load(),
        "niceness": os.nice(0),
        "settings": settings or {},
        "results": results,
        "goals": list(goals),
    }
    write_json(RESULTS / f"{name}.json", record)
    for row in goals:
        measured = "not measured" if row["measured"] is None else f"{row['measured']:g}"
        print(f"{'ok     ' if row['met'] else 'MISSED '} {row['what']}: {measured} (goal {row['goal']})")
    print(f"written: benchmarks/results/{name}.json (load before {before[0]}, cores {report['machine']['usable_cores']})")
    return 0 if all(row["met"] for row in goals) else 1
