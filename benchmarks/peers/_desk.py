"""What every adapter shares: orders come in on standard input, a JSON line goes out for each, and the trainer waits between epochs.

Runs in the peers' environments, so it needs the standard library and numpy only. Orders, one JSON object a line:
`{"do": "load"}`, `{"do": "build"}`, `{"do": "epochs", "n": 2}`, `{"do": "steps", "n": 3}`, `{"do": "fit"}`, `{"do": "converge", "seconds": 60}`,
`{"do": "evaluate"}`, `{"do": "lists", "path": "lists.npz"}`, `{"do": "quit"}`. Seconds are wall clock and processor time of this process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
KEYS = {"peer": str, "model": str, "data": str, "split": str, "cut": str, "epochs": int, "settings": dict, "threads": int, "seed": int}
"""What a job file must hold, and of which type."""


TRAINING = ("epochs", "steps", "converge")


class JobError(ValueError):
    """A job that cannot be run, in one sentence."""


def read_job(arguments: list[str], models: set[str]) -> dict[str, Any]:
    """The job in the JSON file that is the only argument. Raises JobError where a key is absent, unknown or of another type, or the model is unknown."""
    if len(arguments) != 1:
        raise JobError("Usage: run_PEER.py JOB.json")
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    for key, kind in KEYS.items():
        if not isinstance(job.get(key), kind):
            raise JobError(f'The job must hold "{key}" as {kind.__name__}: see benchmarks/peers/_desk.py.')
    if unknown := sorted(set(job) - set(KEYS)):
        raise JobError(f'The job holds an unknown key "{unknown[0]}".')
    if job["model"] not in models:
        raise JobError(f'There is no model "{job["model"]}" in this adapter: use one of {", ".join(sorted(models))}.')
    return job


def peak_mb() -> int:
    """The most memory that was resident in this process, in MB. Not ru_maxrss, which a child takes over from its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


class Clock:
    """Wall and processor seconds since it was made or last read."""

    def __init__(self) -> None:
        self.read()

    def read(self) -> dict[str, float]:
        """The seconds since the last reading."""
        wall, cpu = time.perf_counter(), time.process_time()
        taken = {"wall": round(wall - getattr(self, "_wall", wall), 5), "cpu": round(cpu - getattr(self, "_cpu", cpu), 5)}
        self._wall, self._cpu = wall, cpu
        return taken


class Leave(Exception):
    """Unwinds a trainer that was told to stop in the middle."""


class Desk:
    """Takes orders one by one. A trainer's own hook calls `epoch_done`, and waits there while the other side has its turn."""

    def __init__(
        self,
        actions: dict[str, Callable[[dict[str, Any]], Answer | None]],
        train: Callable[[], None] | None = None,
        validate: Callable[[], float] | None = None,
        keep: Callable[[], None] | None = None,
        back: Callable[[], None] | None = None,
    ) -> None:
        """`actions`: order -> what answers it; `train` runs the trainer until it is through or Leave is raised; `validate` gives the
        value that convergence watches, higher is better; `keep` remembers the weights that did best, `back` returns to them."""
        self._actions, self._train, self._validate, self._keep, self._back = actions, train, validate, keep, back
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever a library prints goes to standard error
        self._order: dict[str, Any] = {}
        self._epochs: list[dict[str, float]] = []
        self._batches: list[dict[str, float]] = []
        self._batch_clock, self._epoch_clock = Clock(), Clock()
        self._best, self._bad, self._started = float("-inf"), 0, 0.0
        self.epochs_done = 0

    def serve(self) -> None:
        """Until `quit` or the end of input."""
        try:
            while order := self._next():
                self._take(order)
        except Leave:
            pass
        os._exit(0)  # some libraries leave threads behind that would keep the process

    def _next(self) -> dict[str, Any]:
        line = sys.stdin.readline()
        order: dict[str, Any] = json.loads(line) if line.strip() else {"do": "quit"}
        if order["do"] == "quit":
            raise Leave
        return order

    def _take(self, order: dict[str, Any]) -> None:
        try:
            if order["do"] in TRAINING:
                if self._train is None:
                    raise JobError("This adapter fits at once and has no epochs.")
                self._begin(order)
                try:
                    self._train()
                except Leave:
                    if self._order:
                        raise
                if self._order:  # the trainer is through before the order was
                    self._answer(self._finish("the trainer had no epochs left"))
            else:
                self._act(order)
        except Leave:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            self._answer({"failed": f"{type(error).__name__}: {text}"})

    def _act(self, order: dict[str, Any]) -> None:
        if order["do"] not in self._actions:
            raise JobError(f'This adapter does not know the order "{order["do"]}".')
        clock = Clock()
        found = self._actions[order["do"]](order) or {}
        self._answer({**clock.read(), **found})

    def _begin(self, order: dict[str, Any]) -> None:
        self._order, self._epochs, self._batches = order, [], []
        self._best, self._bad, self._started = float("-inf"), 0, time.perf_counter()
        self.epoch_begins()

    def batch_done(self) -> None:
        """A trainer calls it after each batch. With the order `steps`, raises Leave after the last one; the one before them, which
        pays for the start of the trainer and its loader, is not counted."""
        self._batches.append(self._batch_clock.read())
        if self._order.get("do") == "steps" and len(self._batches) > self._order["n"]:
            del self._batches[0]
            self._answer(self._finish("steps"))
            raise Leave

    def epoch_begins(self) -> None:
        """A trainer whose set-up should not count as part of its first epoch calls it before each."""
        self._epoch_clock.read()
        self._batch_clock.read()

    def epoch_done(self) -> None:
        """A trainer calls it after each epoch; returns when the next may start. Raises Leave at the end."""
        self._epochs.append(self._epoch_clock.read())
        self.epochs_done += 1
        if stop := self._over():
            self._answer(self._finish(stop))
            while (order := self._next())["do"] not in TRAINING:
                self._take(order)
            self._begin(order)
        self.epoch_begins()

    def _over(self) -> str:
        """Why the order is fulfilled; empty where it is not."""
        if self._order["do"] == "epochs":
            return "epochs" if len(self._epochs) >= self._order["n"] else ""
        if self._order["do"] != "converge" or self._validate is None:
            return ""
        value = self._validate()
        if value > self._best:
            self._best, self._bad = value, 0
            if self._keep:
                self._keep()
        else:
            self._bad += 1
        if self._bad >= self._order["patience"]:
            return "early stop"
        return "time cap" if time.perf_counter() - self._started > self._order["seconds"] else ""

    def _finish(self, stopped: str) -> Answer:
        found = {"epochs": self._epochs, "batches": self._batches[:2000], "stopped": stopped, "epochs_done": self.epochs_done}
        if self._order["do"] == "converge":
            found |= {"best": round(self._best, 5), "seconds": round(time.perf_counter() - self._started, 2)}
            if self._back:
                self._back()
        self._order = {}
        return found

    def _answer(self, found: Answer) -> None:
        print(json.dumps({**found, "peak_mb": peak_mb()}), file=self._out, flush=True)


def main(prepare: Callable[[dict[str, Any]], Desk], models: set[str]) -> None:
    """The body of an adapter: read the job, then serve; a job that cannot be read is one sentence on standard error and exit code 2."""
    try:
        job = read_job(sys.argv[1:], models)
    except (JobError, OSError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    prepare(job).serve()
