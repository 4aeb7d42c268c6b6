"""Every flow of the studio in a real headless Chromium, driven by studio/e2e/flows.mjs; skipped where node, its packages or Chromium are not there.

Screenshots go to studio/shots, which git ignores.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STUDIO = Path(__file__).parents[2] / "studio"
TOKEN = "a-token-of-the-tests"
FLOWS = ("person", "slate", "dials", "compare", "funnel", "map", "data", "runs", "add", "keyboard", "phone", "dark", "accessible", "token", "load")

NODE = shutil.which("node")
CHROMIUM = os.environ.get("CHROMIUM") or next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
MISSING = (
    "node is not installed" if NODE is None
    else "Chromium is not installed (apt install chromium, or name one in CHROMIUM)" if CHROMIUM is None
    else "the packages of the studio are not installed (npm ci in studio/)" if not (STUDIO / "node_modules" / "playwright-core").is_dir()
    else None
)  # fmt: skip

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


def start(*words: str) -> tuple[subprocess.Popen[str], str]:
    """A service on a free port, and its address."""
    command = [sys.executable, "-c", "from vitrail.cli import main; main()", "serve", *words, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = process.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", told)
    assert found, told + process.stderr.read()
    for _ in range(200):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", int(found.group().rpartition(":")[2])), timeout=5).close()
            break
        time.sleep(0.05)
    return process, found.group()


@pytest.fixture(scope="module")
def told(shop: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """What the browser says of each flow."""
    runs = str(shop / "runs" / "window")
    services = [start(runs), start(runs, "--store", "none", "--token", TOKEN)]
    try:
        (_, plain), (_, guarded) = services
        began = time.monotonic()
        command = [str(NODE), "e2e/flows.mjs", plain, str(CHROMIUM), str(STUDIO / "shots"), guarded, TOKEN]
        done = subprocess.run(command, cwd=STUDIO, capture_output=True, text=True, timeout=420)
        flows = {one["flow"]: one for line in done.stdout.splitlines() if line.startswith("{") for one in [json.loads(line)]}
        print(f"{len(flows)} flows in {time.monotonic() - began:.0f} s", {name: one["ms"] for name, one in flows.items()}, flows.get("load", {}).get("facts"))
        yield flows or {"error": {"stderr": done.stderr[-3000:]}}
    finally:
        for process, _ in services:
            process.terminate()
            process.wait(timeout=30)


@pytest.mark.parametrize("name", FLOWS)
def test_flow(told: dict[str, dict[str, Any]], name: str) -> None:
    assert name in told, told
    assert told[name]["ok"], told[name]["error"]
