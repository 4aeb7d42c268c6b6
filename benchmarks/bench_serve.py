"""Requests a second and latency of `vitrail serve` over a demo shop, driven from the same machine by wrk.

    python benchmarks/bench_serve.py                     simulates a shop and fits sasrec first, both kept in runs/bench
    python benchmarks/bench_serve.py --run demo/sasrec   a run that is there

Half of the requests are GET /recommend for a user (one in twenty unknown), half are POST /recommend with a history. wrk must be installed.
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
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import _record

from vitrail.errors import ResourceError, VitrailError


def shop(folder: Path) -> Path:
    """A simulated shop of 2,000 users and 1,000 items, made once."""
    from vitrail.data.simulate import SimulatorSettings, simulate

    if not (folder / "shop").exists():
        simulate(folder / "shop", settings=SimulatorSettings(pictures=False))
    return folder / "shop"


def shop_run(folder: Path, system: str) -> Path:
    """A system fitted to that shop: it takes seconds and is made anew."""
    from vitrail.train.fit import fit

    run = folder / f"shop-{system}"
    settings = {"epochs": 3} if system not in ("popular", "item-knn", "ease") else {}
    fit(system, shop(folder), out=run, overwrite=True, settings=settings, quiet=True)
    return run


def start(run: Path, port: int, workers: int, *flags: str) -> tuple[subprocess.Popen[bytes], str]:
    """`vitrail serve` in a process of its own, once it answers; and its address."""
    command = [str(Path(sys.executable).parent / "vitrail"), "serve", str(run), "--port", str(port), "--workers", str(workers), *flags]
    process = subprocess.Popen(command)
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        if process.poll() is not None:
            raise ResourceError(f"vitrail serve ended with exit code {process.returncode} before it answered.")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=1):
                return process, address
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    process.kill()
    raise ResourceError("vitrail serve did not answer within a minute.")


def check(address: str, user: str) -> int:
    """One answer, looked at: ten ranked items for a known user. Returns its bytes."""
    with urllib.request.urlopen(f"{address}/recommend?user={urllib.request.quote(user)}&k=10", timeout=5) as response:
        body = response.read()
    answer = json.loads(body)
    assert [row["rank"] for row in answer["items"]] == list(range(1, 11)) and answer["fallback"] is None, answer
    return len(body)


def family(pid: int) -> list[int]:
    """A process and those it started, down to the last; the process alone where the system does not say."""
    try:
        told = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        told = []
    return [pid, *(one for row in told for child in row for one in family(int(child)))]


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Processor time the service has used so far, all workers: what a request costs, however busy the machine is; 0 where the system does not say."""
    ticks = 0
    for pid in family(process.pid):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def drive(address: str, ids: Path, seconds: int, connections: int, threads: int) -> dict[str, Any]:
    """What wrk counted and timed."""
    command = ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{seconds}s", "--latency", "--timeout", "5s"]
    environment = os.environ | {"VITRAIL_USERS": str(ids / "users"), "VITRAIL_ITEMS": str(ids / "items")}
    script = Path(__file__).with_name("questions.lua")
    told = subprocess.run([*command, "-s", str(script), address], env=environment, capture_output=True, text=True, check=False)
    line = next((line for line in told.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise ResourceError(f"wrk gave no result: {(told.stderr or told.stdout).strip()[-300:]}")
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return found | {"requests_per_second": round(found["requests"] / found["seconds"], 1)}


def main() -> int:
    """Serve, drive, stop, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="a run or saved model (default: sasrec over a simulated shop)")
    parser.add_argument("--system", default="sasrec", help="what is fitted where no run is given")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1, help="threads of wrk")
    parser.add_argument("--workers", type=int, default=1, help="processes of the service")
    parser.add_argument("--port", type=int, default=8765)
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
    from vitrail.funnel.recommender import load

    run = options.run or shop_run(_record.ROOT / "runs" / "bench", options.system)
    fitted = load(run)
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder)
        users = [user for user, known in zip(fitted.user_ids.ids.to_list(), fitted.known.lengths > 0, strict=True) if known]
        (ids / "users").write_text("\n".join(users) + "\n", encoding="utf-8")
        (ids / "items").write_text("\n".join(fitted.item_ids.ids.to_list()) + "\n", encoding="utf-8")
        process, address = start(run, options.port, options.workers)
        try:
            size = check(address, users[0])
            drive(address, ids, 2, options.connections, options.threads)
            before, used = _record.load(), cpu_seconds(process)
            found = drive(address, ids, options.seconds, options.connections, options.threads)
            found["service_cpu_ms_per_request"] = round(1e3 * (cpu_seconds(process) - used) / max(found["requests"], 1), 3)
        finally:
            process.send_signal(signal.SIGTERM)
            stopped = process.wait(timeout=30)
    facts = {"system": fitted.name, "items": len(fitted.item_ids), "users": len(users), "answer_bytes": size, "exit_code_after_sigterm": stopped}
    print(json.dumps(found))
    goals = [
        _record.goal("requests a second", found["requests_per_second"], least=300),
        _record.goal("p99, ms", found["p99_ms"], below=100),
        _record.goal("errors", sum(found["errors"].values()), below=1),
    ]
    settings = {key: value for key, value in vars(options).items() if key != "run"}
    return _record.save("serve", {**found, **facts}, goals, before=before, settings=settings)


if __name__ == "__main__":
    sys.exit(main())
