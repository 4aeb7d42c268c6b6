"""One side of a row: an adapter in a process of its own, asked one order at a time."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vitrail.errors import VitrailError
from vitrail.files import write_json

HERE = Path(__file__).resolve().parent


class SideFailed(VitrailError):
    """A side could not do what it was asked; one sentence."""


class Side:
    """Starts when entered, ends when left; while one side has its turn, the other waits on its input and uses no processor."""

    def __init__(self, name: str, python: Path, script: str, job: Mapping[str, Any], work: Path, variables: Mapping[str, str], deadline: float) -> None:
        """`name` is for people; `script` a file beside this one; `deadline` on the monotonic clock, after which every order fails."""
        self.name, self._deadline, self.peak_mb = name, deadline, 0
        self._job = work / f"{name}.job.json"
        write_json(self._job, dict(job))
        self._log = work / f"{name}.log"
        threads = str(job["threads"])
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" or script == "run_vitrail.py"}
        self._environment = kept | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        self._environment |= {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1", **variables}
        self._command = [str(python), str(HERE / script), str(self._job)]
        self._rest = b""

    def __enter__(self) -> Self:
        self._told = self._log.open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._told, env=self._environment, cwd=self._job.parent
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(5 if kind is None else 0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._told.close()

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """The answer to an order. Raises SideFailed where it failed, ended, or the row's time is over."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((json.dumps({"do": do, **order}) + "\n").encode())
            self._process.stdin.flush()
        except OSError:
            raise self._ended(do) from None
        answer: dict[str, Any] = json.loads(self._line(do))
        self.peak_mb = int(answer.pop("peak_mb", self.peak_mb))
        if "failed" in answer:
            raise SideFailed(f"{self.name} failed at {do}: {answer['failed']}")
        return answer

    def _line(self, do: str) -> bytes:
        assert self._process.stdout is not None
        file = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([file], [], [], left)[0]:
                raise SideFailed(f"{self.name} was still at {do} when the time of the row was over: raise --cap, or ask for fewer steps or epochs.")
            piece = os.read(file, 1 << 16)
            if not piece:
                raise self._ended(do)
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _ended(self, do: str) -> SideFailed:
        self._told.flush()
        lines = [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return SideFailed(f"{self.name} ended at {do}: {(lines or ['no word'])[-1][:300]}")
