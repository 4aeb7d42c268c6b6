"""One row: both sides side by side, turn about, each in a process of its own."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import _record
import numpy as np

from peers.environments import Environment, make, versions
from peers.handover import Judge, hand_over, ingest_seconds
from peers.plan import Options, Plan, Row, code_hash, identity, ratios, summary
from peers.side import Side, SideFailed
from vitrail.errors import VitrailError
from vitrail.files import read_json, write_json

PATIENCE = 10
"""Validations without improvement before a converging side stops."""


def jobs(row: Row, options: Options, data: Path, split: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job files of our side and the peer's."""
    shared = {"threads": options.threads, "seed": options.seed, "split": str(split), "cut": row.split, "epochs": row.epochs}
    ours = {"peer": "vitrail", "model": row.system, "data": str(data), "settings": row.settings}
    theirs = {"peer": row.peer, "model": row.model, "data": row.data, "settings": row.peer_settings}
    return ours | shared, theirs | shared


def measure(row: Row, plan: Plan, options: Options, environments: dict[str, Environment], work: Path, data_root: Path) -> dict[str, Any]:
    """The record of a row, also where it failed; kept in `work/rows`, and taken from there where it is finished."""
    key = identity(row, options, environments[row.peer].pins, code_hash())
    file = work / "rows" / f"{row.name}.json"
    if file.exists() and (kept := read_json(file))["identity"] == key and kept["status"] == "done":
        print(f"{row.name}: finished before ({file})", flush=True)
        return kept
    started, before = time.monotonic(), _record.load()
    record: dict[str, Any] = {"row": row.name, "identity": key, "status": "done", "load_before": before, "differences": row.differences}
    try:
        python = make(row.peer, environments, work.parent / "envs")
        data, split, judge = hand_over(plan.data_of(row), row.split, data_root=data_root, work=work)
        record |= {"versions": versions(python), "ingest_seconds": ingest_seconds(plan.data_of(row), work)}
        places = work / "sides" / row.name
        places.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + row.cap
        ours, theirs = jobs(row, options, data, split)
        with ExitStack() as stack:
            a = stack.enter_context(Side("vitrail", Path(sys.executable), "run_vitrail.py", ours, places, {}, deadline))
            b = stack.enter_context(Side(row.peer, python, f"run_{row.peer}.py", theirs, places, environments[row.peer].variables, deadline))
            _turns(row, options, {"ours": a, "peer": b}, record, environments[row.peer].evaluates, judge, places)
        record["ratios"] = ratios(record, row.per_target)
    except (VitrailError, OSError, ValueError, KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())[:300]
        record |= {"status": "failed", "why": said if isinstance(error, VitrailError) else f"{type(error).__name__} while the row was measured: {said}"}
        if "ours" in record:
            record["ratios"] = ratios(record, row.per_target)
    record |= {"seconds": round(time.monotonic() - started, 1), "load_after": _record.load(), "date": datetime.now(UTC).isoformat(timespec="minutes")}
    write_json(file, record)
    return record


def _turns(row: Row, options: Options, sides: dict[str, Side], record: dict[str, Any], evaluates: bool, judge: Judge, places: Path) -> None:
    for who in sides:
        record[who] = {}
    record["ours"]["threads"] = record["peer"]["threads"] = options.threads

    def in_turn(do: str, repeats: int, asked: list[str] | None = None, **order: Any) -> dict[str, list[dict[str, Any]]]:
        answers: dict[str, list[dict[str, Any]]] = {who: [] for who in asked or sides}
        for _ in range(repeats):
            for who in answers:
                answers[who].append(sides[who].ask(do, **order))
        return answers

    for who, found in in_turn("load", row.repeats).items():
        record[who]["load"] = summary(found)
    for who, found in in_turn("build", 1).items():
        record[who] |= {key: found[0][key] for key in ("batches", "targets", "parameters") if key in found[0]}
    trained = True
    if row.mode == "fit":
        for who, found in in_turn("fit", row.repeats).items():
            record[who]["fit"] = summary(found)
    elif row.mode == "epochs":
        epochs = in_turn("epochs", row.epochs, n=1)
        for who, found in epochs.items():
            record[who]["epoch"] = summary([time for answer in found for time in answer["epochs"]])
    else:
        for who, found in in_turn("steps", row.repeats, n=row.steps).items():
            batches = [time for answer in found for time in answer["batches"]]
            told = f"the median of {len(batches)} batches times the batches of an epoch"
            record[who]["epoch"] = summary(batches, record[who]["batches"]) | {"estimated": told}
        trained = options.epoch
        if trained:
            for who, found in in_turn("epochs", row.epochs, n=1).items():
                record[who]["epoch"] = summary([time for answer in found for time in answer["epochs"]])
    for who, side in sides.items():
        record[who]["peak_mb"] = side.peak_mb
    if not row.answers:
        return
    if evaluates:
        for who, found in in_turn("evaluate", row.repeats if trained else min(row.repeats, 2)).items():
            record[who] |= {"evaluate": summary(found), "own_metrics": found[-1].get("metrics", {})}
    _lists(row, sides, record, judge if trained else None, places, "metrics", row.repeats)
    for who, side in sides.items():
        record[who]["peak_mb_with_evaluation"] = side.peak_mb
    if row.converge and trained and row.mode == "epochs":
        for who, side in sides.items():
            found = side.ask("converge", seconds=row.converge, patience=PATIENCE)
            record[who]["convergence"] = {key: found[key] for key in ("stopped", "seconds", "best", "epochs_done")}
            record[who]["convergence"]["cpu_seconds"] = round(sum(time["cpu"] for time in found["epochs"]), 2)
        _lists(row, sides, record, judge, places, "converged", 1)


def _lists(row: Row, sides: dict[str, Side], record: dict[str, Any], judge: Judge | None, places: Path, key: str, repeats: int) -> None:
    """Top 10 for all users, `repeats` turns, and what Vitrail's evaluator says of the last of them."""
    times: dict[str, list[dict[str, Any]]] = {who: [] for who in sides}
    for _ in range(repeats):
        for who, side in sides.items():
            times[who].append(side.ask("lists", path=str(places / f"{who}.npy")))
    for who in sides:
        if key == "metrics":
            record[who]["lists"] = summary(times[who])
        codes = np.load(places / f"{who}.npy", allow_pickle=False)
        if judge is not None:
            if codes.shape != (len(judge.part), 10):
                raise SideFailed(f"{who} gave lists of shape {codes.shape} for {len(judge.part)} queries.")
            record[who][key] = judge(codes)
