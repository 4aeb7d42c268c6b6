"""Logs of the service: one JSON object a line, with request ids, without users, items, queries, addresses or messages that may hold them."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import Literal

Amount = Literal["errors", "requests", "none"]
"""What is written: failures; every request too; nothing."""


class JsonLines(logging.Formatter):
    """A record as one line. `extra={"facts": {...}}` adds names; an exception adds its type and where it rose, not what it said."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        facts = {"time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"), "level": record.levelname.lower()}
        facts |= {"what": record.getMessage()} | getattr(record, "facts", {})
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)
            facts["error"] = type(error).__name__
            facts["where"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]  # type: ignore[assignment]
            if os.environ.get("VITRAIL_DEBUG"):
                facts["said"] = str(error)
        return json.dumps(facts, ensure_ascii=False, default=str)


def set_up(amount: Amount) -> None:
    """Send the service's log to standard error as JSON lines; again: only the amount changes."""
    logger = logging.getLogger("vitrail.serve")
    logger.setLevel({"errors": logging.WARNING, "requests": logging.INFO, "none": logging.CRITICAL + 1}[amount])
    logger.propagate = False
    if not any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        logger.addHandler(handler)
