"""The end of the demo: a funnel over what was fitted, the service over it, and the studio in it, with a screenshot where there is a browser."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.errors import ResourceError
from vitrail.files import write_json

if TYPE_CHECKING:
    from vitrail.evaluation.compare import Comparison

FUNNEL = "window"
"""The folder of the funnel beside the runs."""
LOG, SHOT = "service.log", "studio.png"
"""What the service says, and the picture of the page, in the demo's folder."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS_TO_START = 90.0
SECONDS_TO_DRAW = 90.0


def keep_comparison(folder: Path, compared: Comparison, sentences: Sequence[str], seed: int) -> None:
    """Write what the comparison found where the runs page of the studio finds it, in the form of `vitrail compare`."""
    told = compared.as_json()
    systems = [{"system": row["system"], "seeds": [seed], "mean": row["metrics"], "sd": {}, "ci": row["ci"]} for row in told["rows"]]
    write_json(folder / "result.json", {**told, "systems": systems, "sentences": list(sentences)})


def build(runs: Path, data: Path, names: Sequence[str], floor: str) -> Path:
    """A funnel over the fitted systems `names`: every one is a source, the page is arranged by maximal marginal relevance. -> its folder."""
    from vitrail.funnel.build import run_funnel
    from vitrail.funnel.file import FunnelFile

    sources = [{"run": str((runs / name).resolve()), "k": 100 if name != floor else 30, "weight": 1.0 if name != floor else 0.2} for name in names]
    stages = {"arrange": {"system": "mmr", "settings": {"weight": 0.7}}, "explore": {"policy": "epsilon-greedy", "settings": {"epsilon": 0.0}}}
    run_funnel(FunnelFile.of({"funnel": "shop", "data": str(data.resolve()), "retrieve": sources, "fuse": {"k": 150}, **stages}), runs / FUNNEL)
    return runs / FUNNEL


class Service:
    """`vitrail serve` in a process of its own, on a free port of this machine."""

    def __init__(self, path: Path, log: Path) -> None:
        """Starts it and waits until it answers. Raises ResourceError where it does not."""
        command = [sys.executable, "-c", "from vitrail.cli import main; main()", "serve", str(path), "--port", "0"]
        # without the tokens and the store of whoever runs the demo: it is a shop of its own
        own = {name: value for name, value in os.environ.items() if name not in ("VITRAIL_TOKEN", "VITRAIL_TOKENS", "VITRAIL_STORE")}
        with log.open("w") as told:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, stderr=told, env=own)
        self.address = self._wait(log)

    def _wait(self, log: Path) -> str:
        until = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < until and self.process.poll() is None:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8", errors="replace"))
            if found is not None and _answers(int(found.group(1))):  # the address is told a moment before it is listened at
                return found.group()
            time.sleep(0.1)
        self.stop()
        raise ResourceError(f"The service of the demo did not start: {log} says why.")

    def stop(self) -> None:
        """Stops it; requests under way are finished first."""
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def screenshot(address: str, place: Path) -> Path | None:
    """A picture of the page at `address`, taken by a browser of this machine; none where there is no such browser, or it fails."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        return None
    place.unlink(missing_ok=True)
    flags = ["--headless", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--window-size=1360,1000", "--virtual-time-budget=20000"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # the browser's sandbox refuses the superuser
    try:
        subprocess.run([browser, *flags, f"--screenshot={place.resolve()}", address], capture_output=True, timeout=SECONDS_TO_DRAW, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return place if place.is_file() else None


def show(folder: Path, funnel: Path, say: Callable[[str], None], *, stay: bool) -> dict[str, Any]:
    """Start the service over `funnel`, take a picture of the studio, say where both are; with `stay` go on until Ctrl-C. -> {address, screenshot}."""
    service = Service(funnel, folder / LOG)
    try:
        address = f"{service.address}/studio/"
        shot = screenshot(address, folder / SHOT)
        say(f"the studio: {address}")
        say(f"a picture of it: {shot}" if shot is not None else "no picture of it was taken: there is no Chromium on this machine that can draw one")
        if stay:
            say("it answers until Ctrl-C")
            service.process.wait()
        else:
            say(f"without a terminal it is stopped again: vitrail serve {funnel}")
    except KeyboardInterrupt:
        say("stopped")
    finally:
        service.stop()
    return {"address": address, "screenshot": None if shot is None else str(shot)}
