"""Logs as JSON lines: what is in them, what is not, and how much."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from vitrail.serve.logs import JsonLines, set_up


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("vitrail.serve")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    logger.handlers.clear()
    yield logger
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.mark.parametrize(("amount", "heard"), [("errors", ["bad"]), ("requests", ["request", "bad"]), ("none", [])])
def test_how_much_is_written(amount: str, heard: list[str], logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(amount)  # type: ignore[arg-type]
    set_up(amount)  # type: ignore[arg-type]
    logger.handlers[0].setStream(sys.stderr)  # type: ignore[attr-defined]
    logger.info("request", extra={"facts": {"status": 200}})
    logger.error("bad", extra={"facts": {"request_id": "r1"}})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["what"] for line in lines] == heard
    assert all({"time", "level", "what"} <= set(line) for line in lines)


def test_what_an_exception_said_is_not_written_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        raise ValueError("user u1 of town X")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "it failed", None, sys.exc_info())
    line = json.loads(JsonLines().format(record))
    assert (line["error"], line["what"]) == ("ValueError", "it failed")
    assert "test_logs.py" in line["where"][0]
    assert "u1" not in JsonLines().format(record)
    monkeypatch.setenv("VITRAIL_DEBUG", "1")
    assert json.loads(JsonLines().format(record))["said"] == "user u1 of town X"
