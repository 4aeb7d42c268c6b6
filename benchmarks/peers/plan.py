"""Rows as data, and the arithmetic of a finished one: ratios, goals, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydantic import model_validator

import vitrail
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Settings, read_yaml
from vitrail.errors import SettingError, unknown
from vitrail.files import fingerprint
from vitrail.recipes_data import Data

HERE = Path(__file__).resolve().parent
MEASURES = ("epoch", "fit", "evaluate", "load", "lists", "memory", "ndcg", "converged")
"""What a goal may be about."""


class Row(Settings):
    """One system of ours beside one model of a peer."""

    name: str
    """PEER.MODEL.DATA"""
    peer: str
    model: str
    """the peer's name of it"""
    system: str
    """ours"""
    data: str
    split: str
    mode: Literal["epochs", "steps", "fit"]
    """whole epochs; a few batches, from which an epoch is estimated; or a whole fit, for what is not fitted in epochs"""
    epochs: PositiveInt = 1
    """timed and trained on each side before the lists are compared (mode steps: with --epoch)"""
    steps: PositiveInt = 5
    """batches of a turn (mode steps)"""
    repeats: PositiveInt = 3
    """turns of each side for what is repeated"""
    converge: NonNegativeFloat = 0.0
    """seconds that each side may go on until its validation stops it; 0: it may not"""
    answers: bool = True
    """measure evaluation and lists too"""
    cap: PositiveFloat = 420.0
    """seconds of the whole row"""
    settings: dict[str, Any] = {}
    peer_settings: dict[str, Any] = {}
    goals: dict[str, float] = {}
    """measure -> least ratio in our favour"""
    per_target: bool = False
    """compare epochs by the time a training target takes: the two sides' epochs ask for different numbers of them"""
    differences: list[str] = []
    """where settings are not equal, one sentence each"""

    @model_validator(mode="after")
    def _consistent(self) -> Row:
        if wrong := set(self.goals) - set(MEASURES):
            raise ValueError(f'the goal "{wrong.pop()}" is about nothing that is measured: use one of {", ".join(MEASURES)}')
        if self.name.split(".")[0] != self.peer or not self.name.endswith(self.data):
            raise ValueError(f'the name "{self.name}" must be PEER.MODEL.DATA')
        return self


class Plan(Settings):
    """All rows and the data they are on."""

    data: dict[str, dict[str, Any]]
    """name -> how it is ingested, as in a recipe"""
    rows: list[Row]

    def data_of(self, row: Row) -> Data:
        """The data set of a row."""
        return Data.of({"name": row.data, "ingest": self.data[row.data]}, where=f"data set {row.data} in rows.yaml")


class Options(Settings):
    """What the command line asks for."""

    threads: PositiveInt = 2
    seed: NonNegativeInt = 0
    steps: PositiveInt | None = None
    epoch: bool = False
    repeats: PositiveInt | None = None
    cap: PositiveFloat | None = None
    converge: bool = True


def read_plan(path: Path = HERE / "rows.yaml") -> Plan:
    """The rows. Raises SettingError: a key is unknown, a name occurs twice or a data set is not described."""
    plan = Plan.of(read_yaml(path), where=path.name)
    names = [row.name for row in plan.rows]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise SettingError(f'{path.name} has two rows "{double}": rename one.')
    if lost := next((row for row in plan.rows if row.data not in plan.data), None):
        raise SettingError(f'{path.name}: row {lost.name} names the data set "{lost.data}", which is not described: add it under "data".')
    return plan


def choose(plan: Plan, only: Sequence[str]) -> list[Row]:
    """The rows named, or whose name starts with what is named (`recbole`, `recbole.bpr`); none: all. Raises SettingError."""
    if not only:
        return list(plan.rows)
    for name in only:
        if not any(_is(row, name) for row in plan.rows):
            raise unknown("row", name, [row.name for row in plan.rows])
    return [row for row in plan.rows if any(_is(row, name) for name in only)]


def _is(row: Row, name: str) -> bool:
    return row.name == name or row.name.startswith(f"{name}.")


def apply(row: Row, options: Options) -> Row:
    """The row as the command line changes it."""
    changed: dict[str, Any] = {}
    if options.steps is not None:
        changed["steps"] = options.steps
    if options.repeats is not None:
        changed["repeats"] = options.repeats
    if options.cap is not None:
        changed["cap"] = options.cap
    if not options.converge:
        changed["converge"] = 0.0
    return row.but(changed) if changed else row


def code_hash(folder: Path = Path(vitrail.__file__).parent) -> str:
    """Changes with every line of Vitrail's code."""
    return fingerprint({str(file.relative_to(folder)): sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*.py"))})


def identity(row: Row, options: Options, pins: Sequence[str], code: str) -> str:
    """Changes with whatever moves the numbers of a row, `code` among it: a finished row of another identity is measured anew."""
    asked = {"threads": options.threads, "seed": options.seed, "epoch": options.epoch and row.mode == "steps"}
    kept = row.model_dump(mode="json", exclude={"goals", "differences", "cap"})
    return fingerprint({"row": kept, "options": asked, "pins": list(pins), "code": code})


def summary(times: Sequence[dict[str, float]], factor: float = 1.0) -> dict[str, Any]:
    """Turns of one side, each {wall, cpu} seconds -> medians and range, multiplied by `factor`."""
    found: dict[str, Any] = {"n": len(times)}
    for clock in ("wall", "cpu"):
        values = [time[clock] * factor for time in times]
        found[clock] = {"median": round(median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}
    return found


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Theirs over ours: above 1 is in our favour where less is better; none where one is missing or nothing."""
    if not ours or theirs is None:
        return None
    return round(theirs / ours, 3)


def ratios(record: dict[str, Any], per_target: bool) -> dict[str, dict[str, float | None]]:
    """measure -> {wall, cpu} of times, {value} of memory and metrics; each above 1 in our favour."""
    ours, theirs = record["ours"], record["peer"]
    scale = 1.0
    if per_target and ours.get("targets") and theirs.get("targets"):
        scale = ours["targets"] / theirs["targets"]
    found: dict[str, dict[str, float | None]] = {}
    for measure in ("epoch", "fit", "evaluate", "load", "lists"):
        if measure in ours and measure in theirs:
            by = scale if measure == "epoch" else 1.0
            found[measure] = {clock: ratio(ours[measure][clock]["median"] / by, theirs[measure][clock]["median"]) for clock in ("wall", "cpu")}
    found["memory"] = {"value": ratio(ours.get("peak_mb"), theirs.get("peak_mb"))}
    for measure, key in (("ndcg", "metrics"), ("converged", "converged")):
        if key in ours and key in theirs:
            found[measure] = {"value": ratio(theirs[key]["ndcg@10"], ours[key]["ndcg@10"])}
    return found


WORDS = {
    "epoch": "time an epoch", "fit": "time of a fit", "evaluate": "full-ranking evaluation", "load": "data load", "lists": "top 10 for all users",
    "memory": "peak memory", "ndcg": "NDCG@10, the same epochs", "converged": "NDCG@10, stopped by validation",
}  # fmt: skip


def verdicts(row: Row, record: dict[str, Any]) -> list[dict[str, Any]]:
    """A line a goal of the row; where nothing was measured it is missed and says why. For `converged` the bar is lowered by two standard errors."""
    found = []
    for measure, least in row.goals.items():
        values = record.get("ratios", {}).get(measure, {})
        value = values.get("wall", values.get("value"))
        what = f"{row.name}: {WORDS[measure]}, {'Vitrail over peer' if measure in ('ndcg', 'converged') else 'peer over Vitrail'}"
        bar = least
        if measure == "converged" and value is not None:
            peer = record["peer"]["converged"]
            bar = round(least - 2 * peer["ndcg@10 standard error"] / max(peer["ndcg@10"], 1e-9), 3)
        line = {"what": what, "goal": f">= {bar:g}", "measured": value, "met": value is not None and value >= bar}
        found.append(line if value is not None else line | {"why": record.get("why") or "it was not measured in this run"})
    return found
