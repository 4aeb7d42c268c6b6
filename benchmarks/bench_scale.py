"""Large data on one machine: ingest of a Parquet file against polars reading and sorting it, and, from 50 million events on, one epoch of bpr-mf.

The file is simulated once. Every measurement is a process of its own, so that its peak memory is its own; they take turns, and medians
are compared. `--events 100000000` is the heavy form: about an hour on 2 cores, 8 GB of memory and 6 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HEAVY = 50_000_000


def simulate(source: Path, work: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """vitrail data simulate."""
    from vitrail.data.simulate import SimulatorSettings
    from vitrail.data.simulate import simulate as run

    return {"rows": run(source, settings=SimulatorSettings(pictures=False, **settings)).info.counts["events"]}


def polars_sort(source: Path, work: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What ingest is compared with: the file read and sorted by user and time."""
    import polars as pl

    return {"rows": pl.read_parquet(source).sort("user", "timestamp").height}


def ingest(source: Path, work: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """vitrail data ingest."""
    from vitrail.data.ingest import ingest as run

    report = run([source], out=work / "ingested", overwrite=True)
    return {"rows": report.kept, "fingerprint": report.dataset.fingerprint}


def log(source: Path, work: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The first use of the data set: its events as arrays by user and time, written to the cache."""
    from vitrail.data.dataset import Dataset

    shutil.rmtree(work / "ingested" / "cache", ignore_errors=True)
    return {"rows": len(Dataset(work / "ingested").log(seed=0))}


def epoch(source: Path, work: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One epoch of bpr-mf, split and artifact included."""
    from vitrail.train.fit import fit

    values = {"epochs": 1, "dim": settings["dim"], "batch": settings["batch"]}
    result = fit("bpr-mf", work / "ingested", split=settings["split"], out=work / "run", overwrite=True, settings=values, quiet=True)
    return {"rows": len(result.split.train), "epoch_seconds": result.progress.curve[0]["seconds"], "loss": result.progress.curve[0]["loss"]}


TASKS = {"simulate": simulate, "polars": polars_sort, "ingest": ingest, "log": log, "epoch": epoch}


def measure(task: str, source: Path, work: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Run a task in a process of its own: its seconds, peak memory in GB (10^9) and what it tells."""
    command = [sys.executable, __file__, "--task", task, "--source", str(source), "--work", str(work), "--settings", json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task} failed: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{task}: {found['seconds']:.1f} s, {found['peak_gb']:.2f} GB", flush=True)
    return found


def child(arguments: argparse.Namespace) -> None:
    """The measured process."""
    import resource

    started, busy = time.perf_counter(), time.process_time()
    found = TASKS[arguments.task](arguments.source, arguments.work, json.loads(arguments.settings))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": round(seconds, 2), "cpu_seconds": round(time.process_time() - busy, 2), "peak_gb": round(peak, 3), **found}))


def main() -> int:
    """Simulate, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000, help="events of the simulated shop")
    parser.add_argument("--repeats", type=int, help="times each is measured (default 3; 1 from 50 million events on)")
    parser.add_argument("--work", type=Path, default=Path("runs/bench/scale"), help="folder for the data; what is there already is used again")
    parser.add_argument("--source", type=Path, help="a Parquet file with user, item and timestamp instead of a simulated one")
    parser.add_argument("--alone", action="store_true", help="ours alone: polars holds the whole file to sort it, 21 GB of 100 million events")
    parser.add_argument("--keep", action="store_true", help="leave the ingested data and the run where they are")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        child(arguments)
        return 0
    from _record import goal, load, save, spread

    before, heavy = load(), arguments.events >= HEAVY
    work, repeats = arguments.work, arguments.repeats or (1 if heavy else 3)
    source, results = arguments.source, {}
    if source is None:
        shop = work / f"shop-{arguments.events}"
        if not shop.exists():
            sizes = {"events": arguments.events, "users": max(arguments.events // 100, 100), "items": min(max(arguments.events // 1000, 1000), 100_000)}
            results["simulate"] = told([measure("simulate", shop, work, sizes)], spread)
        source = shop / "interactions.parquet"
    settings = {"split": "temporal:valid=0,test=0.01", "dim": 32, "batch": 262_144}
    sides = ("ingest",) if arguments.alone else ("polars", "ingest")
    turns = [[measure(side, source, work, settings) for side in sides] for _ in range(repeats)]
    results |= {name: told([turn[place] for turn in turns], spread) for place, name in enumerate(sides)}
    results["log"] = told([measure("log", source, work, settings)], spread)
    limit, goals = 8.0 if heavy else 4.0, []
    if not arguments.alone:
        results["ratio"] = round(results["ingest"]["seconds"]["median"] / results["polars"]["seconds"]["median"], 2)
        # other programs make both slower, and not alike: the time on the processor tells more on a busy machine
        results["cpu_ratio"] = round(results["ingest"]["cpu_seconds"]["median"] / results["polars"]["cpu_seconds"]["median"], 2)
        goals.append(goal("ingest over polars read and sort", results["ratio"], below=3.0))
    goals += [
        goal("peak memory of ingest, GB", results["ingest"]["peak_gb"]["max"], below=limit),
        goal("peak memory of the first use, GB", results["log"]["peak_gb"]["max"], below=limit),
    ]
    if heavy:
        results["epoch"] = told([measure("epoch", source, work, settings)], spread)
        goals.append(goal("peak memory of one epoch of bpr-mf, split included, GB", results["epoch"]["peak_gb"]["max"], below=limit))
    if not arguments.keep:
        for folder in ("ingested", "run"):
            shutil.rmtree(work / folder, ignore_errors=True)
    name = "scale" if not heavy else "scale_heavy"
    return save(name, results, goals, before=before, settings={"events": arguments.events, "repeats": repeats, **(settings if heavy else {})})


def told(runs: list[dict[str, Any]], spread: Any) -> dict[str, Any]:
    """The runs of one task."""
    kinds = ("seconds", "cpu_seconds", "peak_gb")
    return {kind: spread([run[kind] for run in runs]) for kind in kinds} | {key: value for key, value in runs[0].items() if key not in kinds}


if __name__ == "__main__":
    sys.exit(main())
