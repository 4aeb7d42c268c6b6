"""Vitrail beside RecBole, RecTools, implicit and cornac: load, time an epoch, evaluation, lists, memory, metrics.

    python benchmarks/bench_peers.py                               every row that is not finished yet, then the table
    python benchmarks/bench_peers.py --only recbole.sasrec.beauty  one row, or all whose name starts so
    python benchmarks/bench_peers.py --only recbole.sasrec.beauty --epoch
                                                                   a whole epoch where an estimate is the default: minutes
    python benchmarks/bench_peers.py --table                       measure nothing, write the results of the finished rows

A finished row is kept in runs/bench/peers/rows and taken from there; --again measures it anew. The peers' environments are made under
runs/bench/envs when they are first needed. The data are looked for in VITRAIL_DATA (else ../shared/data beside the repository).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import _record
from peers.environments import Environment, read_environments
from peers.measure import measure
from peers.page import page
from peers.plan import Options, Plan, Row, apply, choose, read_plan, verdicts

from vitrail.errors import VitrailError
from vitrail.files import read_json, write_text

PAGE = _record.ROOT / "docs" / "results" / "peers.md"


def parser() -> argparse.ArgumentParser:
    """The flags."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--only", nargs="+", default=[], metavar="ROW", help="rows, or what their names start with")
    found.add_argument("--list", action="store_true", help="name the rows and end")
    found.add_argument("--again", action="store_true", help="measure finished rows anew")
    found.add_argument("--table", action="store_true", help="measure nothing, write what is finished")
    found.add_argument("--threads", type=int, default=2, help="of each side (default: 2)")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--steps", type=int, help="batches a turn in rows that estimate an epoch")
    found.add_argument("--epoch", action="store_true", help="a whole epoch, not an estimate, and metrics after it")
    found.add_argument("--repeats", type=int, help="turns of each side")
    found.add_argument("--cap", type=float, help="seconds a row may take")
    found.add_argument("--no-converge", action="store_true", help="do not train on until validation stops it")
    found.add_argument("--work", type=Path, default=_record.ROOT / "runs" / "bench" / "peers", help="where rows, splits and logs are kept")
    return found


def main() -> int:
    """0: every goal is met; 1: one is missed; 2: the request cannot be run."""
    asked = parser().parse_args()
    before = _record.load()
    try:
        plan, environments = read_plan(), read_environments()
        options = Options.of(
            {"threads": asked.threads, "seed": asked.seed, "steps": asked.steps, "epoch": asked.epoch, "repeats": asked.repeats, "cap": asked.cap,
             "converge": not asked.no_converge}, where="the command line",
        )  # fmt: skip
        chosen = choose(plan, asked.only)
        if asked.list:
            print("\n".join(row.name for row in chosen))
            return 0
        if not asked.table:
            _measure(chosen, plan, options, environments, asked)
    except VitrailError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _write(plan, environments, asked.work, options, before)


def _measure(chosen: list[Row], plan: Plan, options: Options, environments: dict[str, Environment], asked: argparse.Namespace) -> None:
    data_root = Path(os.environ.get("VITRAIL_DATA") or _record.ROOT.parent / "shared" / "data").resolve()
    asked.work.mkdir(parents=True, exist_ok=True)
    for row in chosen:
        row = apply(row, options)
        if asked.again:
            (asked.work / "rows" / f"{row.name}.json").unlink(missing_ok=True)
        record = measure(row, plan, options, environments, asked.work.resolve(), data_root)
        print(f"{row.name}: {record['status']} in {record['seconds']:g} s{': ' + record['why'] if 'why' in record else ''}; {_told(record)}", flush=True)


def _told(record: dict[str, Any]) -> str:
    found = [f"{measure} {values.get('wall', values.get('value'))}" for measure, values in record.get("ratios", {}).items()]
    return "ratios (peer over Vitrail; NDCG the other way): " + (", ".join(found) or "none")


def _write(plan: Plan, environments: dict[str, Environment], work: Path, options: Options, before: list[float]) -> int:
    rows, goals = {}, []
    for row in plan.rows:
        file, nothing = work / "rows" / f"{row.name}.json", {"row": row.name, "status": "pending", "differences": row.differences, "load_before": before}
        record = read_json(file) if file.exists() else nothing | {"why": "not run yet"}
        record.pop("identity", None)
        rows[row.name] = record
        goals += verdicts(row, record)
    results = {"rows": rows, "environments": {name: ", ".join(found.pins) for name, found in environments.items()}}
    code = _record.save("peers", results, goals, before=before, settings=options.model_dump(mode="json"))
    write_text(PAGE, page(read_json(_record.RESULTS / "peers.json")))
    print("written: docs/results/peers.md")
    return code


if __name__ == "__main__":
    sys.exit(main())
