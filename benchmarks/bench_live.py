"""A service with its loop closed under load: recommendations at a steady rate while events arrive in batches, nothing lost.

    python benchmarks/bench_live.py                    two minutes at 100 recommendations and 500 events a second, then the highest rates
    python benchmarks/bench_live.py --seconds 10 --ladder 200,400 --rung 5      a short look
    python benchmarks/bench_live.py --funnel           the same over a whole funnel: five sources, fused, ranked by DIN, arranged; made where it is absent
    python benchmarks/bench_live.py --run demo/sasrec --store postgresql://...   another run or funnel, another store
    python benchmarks/bench_live.py --write            put the table into docs/deploy.md

wrk (a compiled generator) drives from the same machine, paced by benchmarks/live.lua: moments of sending are laid down beforehand, and how late
requests went out is reported. It and the service share the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import _record
from bench_serve import check, cpu_seconds, family, shop, shop_run, start

from vitrail.errors import ResourceError, VitrailError

HERE = Path(__file__).parent
PAGE = _record.ROOT / "docs" / "deploy.md"
MARKS = ("<!-- measured: bench_live{} -->", "<!-- end -->")
FUNNEL = HERE / "live.funnel.yaml"


class Wrk:
    """A wrk that runs beside us."""

    def __init__(self, address: str, ids: Path, mode: str, rate: float, seconds: int, connections: int, batch: int = 1, prefix: str = "e") -> None:
        """`rate` requests a second, 0: as fast as answers come. `batch`: events of a request."""
        files = {"USERS": ids / "users", "ITEMS": ids / "items", "QUESTIONS": HERE / "questions.lua"}
        given = files | {"MODE": mode, "RATE": rate, "BATCH": batch, "PREFIX": prefix}
        environment = os.environ | {f"VITRAIL_{name}": str(value) for name, value in given.items()}
        command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency", "--timeout", "5s", "-s", str(HERE / "live.lua"), address]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self) -> dict[str, Any]:
        """What it counted and timed, once it ended."""
        told, trouble = self._process.communicate()
        line = next((line for line in told.splitlines() if line.startswith("RESULT ")), None)
        if line is None:
            raise ResourceError(f"wrk gave no result: {(trouble or told).strip()[-300:]}")
        found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
        return found | {"requests_per_second": round(found["requests"] / found["seconds"], 1)}


def shop_funnel(folder: Path) -> Path:
    """The funnel of live.funnel.yaml over the simulated shop of bench_serve, built once: a minute or two."""
    from vitrail.funnel.build import run_funnel

    out = folder / "shop-funnel"
    run_funnel(FUNNEL, out, data=shop(folder), quiet=False)
    return out


def degraded(address: str) -> int:
    """Answers that were cut short for lack of time, so far."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return sum(round(float(line.split()[-1])) for line in lines if line.startswith("vitrail_degraded_total"))


def memory_mib(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of the service, all workers; 0 where the system does not say."""
    total = 0
    for pid in family(process.pid):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
    return round(total / 1024, 1)


def kept(store: str, prefix: str) -> int:
    """Events of a load that the store holds."""
    from vitrail.serve.store.base import open_store

    opened, count, after = open_store(store), 0, 0
    while page := opened.events(after, 20_000):
        after = page[-1][0]
        count += sum(event.id.startswith(f"{prefix}-") for _, event in page)
    opened.close()
    return count


def steady(address: str, ids: Path, options: argparse.Namespace, rate: float, seconds: int, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Questions at `rate` a second while events arrive in batches."""
    events = Wrk(address, ids, "events", options.events / options.batch, seconds, 8, options.batch, prefix)
    questions = Wrk(address, ids, "questions", rate, seconds, options.connections)
    return questions.result(), events.result()


def highest(address: str, ids: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rates tried, the lowest first, until one is not held: fewer than 97 % go out, or p99 is 60 ms or more."""
    rungs = []
    for rate in options.ladder:
        found, _ = steady(address, ids, options, rate, options.rung, f"ladder{rate}")
        # wrk takes up to a second to start, so the rate counts from what it could have sent
        held = found["requests_per_second"] >= 0.97 * rate and found["p99_ms"] < 60 and not sum(found["errors"].values())
        rungs.append({"rate": rate, "held": held, **{key: found[key] for key in ("requests_per_second", "p50_ms", "p99_ms", "late_p99_ms")}})
        if not held:
            break
    return rungs


def main() -> int:
    """Serve, drive, count, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="a run, saved model or funnel (default: sasrec over a simulated shop)")
    parser.add_argument("--funnel", action="store_true", help="serve the funnel of live.funnel.yaml over the simulated shop")
    parser.add_argument("--system", default="sasrec", help="what is fitted where no run is given")
    parser.add_argument("--store", help="URL of the store (default: a new SQLite file)")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--rate", type=float, default=100.0, help="recommendations a second")
    parser.add_argument("--events", type=float, default=500.0, help="events a second")
    parser.add_argument("--batch", type=int, default=50, help="events of a request")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--ladder", type=lambda text: [float(rate) for rate in text.split(",") if rate], default=[200.0, 300.0, 400.0, 600.0, 800.0, 1000.0])
    parser.add_argument("--rung", type=int, default=20, help="seconds of each rate of the ladder, and of single events")
    parser.add_argument("--workers", type=int, default=1, help="processes of the service")
    parser.add_argument("--port", type=int, default=8766)
    parser.add_argument("--write", action="store_true", help="put the table into docs/deploy.md")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("error: wrk is not installed; install it (apt install wrk) and run again.", file=sys.stderr)
        return 2
    try:
        return _measure(options)
    except VitrailError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _measure(options: argparse.Namespace) -> int:
    from vitrail.funnel.build import open_answerer

    home = _record.ROOT / "runs" / "bench"
    run = options.run or (shop_funnel(home) if options.funnel else shop_run(home, options.system))
    fitted = open_answerer(run)
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        ids = Path(folder)
        users = [user for user, known in zip(fitted.user_ids.ids.to_list(), fitted.known.lengths > 0, strict=True) if known]
        (ids / "users").write_text("\n".join(users) + "\n", encoding="utf-8")
        (ids / "items").write_text("\n".join(fitted.item_ids.ids.to_list()) + "\n", encoding="utf-8")
        store = options.store or str(ids / "store.sqlite")
        process, address = start(run, options.port, options.workers, "--store", store)
        try:
            check(address, users[0])
            steady(address, ids, options, options.rate, 3, "warm")
            before, used, mark, cut = _record.load(), cpu_seconds(process), f"steady{os.getpid()}", degraded(address)
            questions, events = steady(address, ids, options, options.rate, options.seconds, mark)
            cut = degraded(address) - cut
            cores = round((cpu_seconds(process) - used) / questions["seconds"], 3)
            rungs = highest(address, ids, options)
            single = Wrk(address, ids, "events", 0, options.rung, 32, 1, "single").result()
            memory = memory_mib(process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
        there, alone = kept(store, mark), kept(store, "single")
        size = sum(file.stat().st_size for file in ids.glob("store.sqlite*"))
    lost = max(0, events["events_acknowledged"] - there) + max(0, single["events_acknowledged"] - alone)
    results = {
        "steady": questions, "events": events | {"in_store": there}, "lost": lost, "degraded": cut,
        "service_cores": cores, "service_mib": memory, "ladder": rungs,
        "highest_rate": max((rung["rate"] for rung in rungs if rung["held"]), default=options.rate if questions["p99_ms"] < 60 else 0.0),
        "store_mib": round(size / 2**20, 1),
        "single_events": single | {"events_per_second": round(single["events_acknowledged"] / single["seconds"], 1), "in_store": alone},
        "system": fitted.name, "items": len(fitted.item_ids), "users": len(users),
        "store": "sqlite" if options.store is None else options.store.partition(":")[0],
        "generator": "wrk, paced by benchmarks/live.lua",
    }  # fmt: skip
    print(json.dumps(results))
    if options.write:
        write_table(results, options)
    errors = sum(questions["errors"].values()) + sum(events["errors"].values()) + events["events_refused"]
    goals = [
        _record.goal("recommendations a second", questions["requests_per_second"], least=0.97 * options.rate),
        _record.goal("p50, ms", questions["p50_ms"], below=15),
        _record.goal("p99, ms", questions["p99_ms"], below=60),
        _record.goal("events a second", round(events["events_acknowledged"] / events["seconds"], 1), least=0.97 * options.events),
        _record.goal("acknowledged events lost", lost, below=1),
        _record.goal("errors", errors, below=1),
        _record.goal("share of answers without the ranker", round(cut / max(questions["requests"], 1), 4), below=0.01),
    ]
    settings = {key: value for key, value in vars(options).items() if key not in ("run", "store")}
    return _record.save("live_funnel" if options.funnel else "live", results, goals, before=before, settings=settings)


def write_table(results: dict[str, Any], options: argparse.Namespace) -> None:
    """The sizing table of docs/deploy.md."""
    steady, single, rungs = results["steady"], results["single_events"], results["ladder"]
    beside = f"and {options.events:g} events/s"
    rows = [
        f"| {options.rate:g}/s {beside}, {options.seconds} s | {steady['p50_ms']:.1f} | {steady['p99_ms']:.1f} | {results['service_cores']:.2f} |",
        *(f"| {rung['rate']:g}/s {beside}, {options.rung} s | {rung['p50_ms']:.1f} | {rung['p99_ms']:.1f} | |" for rung in rungs),
    ]
    machine = f"{options.workers} worker{'s' if options.workers > 1 else ''}, {os.cpu_count()} cores shared with the generator"
    lines = [
        f"`{results['system']}`, {results['items']:,} items, store {results['store']}, {machine}:",
        "",
        f"| recommendations, with events in batches of {options.batch} | p50 ms | p99 ms | cores of the service |",
        "| --- | ---: | ---: | ---: |",
        *rows,
        "",
        f"Highest rate held: {results['highest_rate']:g} a second. Single events, each durable before its answer, 32 connections: "
        f"{single['events_per_second']:,.0f} a second, p99 {single['p99_ms']:.0f} ms. Memory: {results['service_mib']:.0f} MiB. "
        f"Acknowledged events lost: {results['lost']}.",
    ]
    text = "\n".join(lines)
    mark = MARKS[0].format(" --funnel" if options.funnel else "")
    before, rest = PAGE.read_text(encoding="utf-8").split(mark)
    PAGE.write_text(f"{before}{mark}\n{text}\n{MARKS[1]}{rest.split(MARKS[1], 1)[1]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
