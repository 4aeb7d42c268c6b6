"""The log of test evaluations, kept with the data set: how often the test part was looked at is part of what a number means."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAME = "evaluations.jsonl"


def append(dataset_path: str | Path, record: Mapping[str, Any]) -> str | None:
    """Add `record` (Evaluation.as_json()) with the time as one line: one write to a file opened for appending, then fsync, so several
    processes may do it at once. Returns none, or one sentence where the folder cannot be written: an evaluation does not fail for that.
    """
    path = Path(dataset_path) / NAME
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **record}, ensure_ascii=False, default=str) + "\n"
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"  # a writer was killed, or is at work: at worst the line end is doubled
            os.write(handle, (("\n" if torn else "") + line).encode())
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        return f"This evaluation is not in the log {path} ({error.strerror}): make the folder writable to keep count of test evaluations."
    return None


def read(dataset_path: str | Path) -> Iterator[dict[str, Any]]:
    """The records, oldest first; a damaged or blank line is passed over."""
    path = Path(dataset_path) / NAME
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict):
                yield record


def count(dataset_path: str | Path, fingerprint: str | None = None) -> int:
    """How many test evaluations the data set has seen, of one `fingerprint` or of any."""
    return sum(1 for record in read(dataset_path) if fingerprint is None or record.get("fingerprint") == fingerprint)
