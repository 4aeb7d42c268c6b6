"""A virtual environment for each peer, made when it is first needed; an interrupted one is finished by the next run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vitrail.config import Settings, read_yaml
from vitrail.errors import ResourceError, unknown
from vitrail.files import fingerprint, write_text

HERE = Path(__file__).resolve().parent


class Pin(Settings):
    """A requirement, and why it is fixed."""

    pin: str
    why: str


class Environment(Settings):
    """What a peer is installed from."""

    home: str
    evaluates: bool
    """has a full-ranking evaluation of its own that honours the split's masks"""
    variables: dict[str, str] = {}
    """environment variables it needs"""
    install: list[Pin]

    @property
    def pins(self) -> list[str]:
        """The requirements in order."""
        return [row.pin for row in self.install]


def read_environments(path: Path = HERE / "environments.yaml") -> dict[str, Environment]:
    """Peer -> its environment. Raises SettingError."""
    return {name: Environment.of(values, where=f"{path.name}, {name}") for name, values in read_yaml(path).items()}


def make(peer: str, environments: dict[str, Environment], home: Path) -> Path:
    """The interpreter of a peer's environment under `home`, made or finished first. Raises ResourceError where pip fails."""
    if peer not in environments:
        raise unknown("peer", peer, environments)
    folder, pins = home / peer, environments[peer].pins
    python, mark = folder / "bin" / "python", folder / ".made"
    if mark.exists() and mark.read_text(encoding="utf-8") == fingerprint(pins):
        return python
    print(f"making the environment of {peer} in {folder} (once; minutes)", flush=True)
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(folder)], peer)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    _run([*pip, pins[0]], peer)  # the largest first: what follows must not choose another
    _run([*pip, *pins], peer)
    write_text(mark, fingerprint(pins))
    return python


def _run(command: list[str], peer: str) -> None:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word from pip"])[-1]
        raise ResourceError(f"The environment of {peer} could not be made: {last[:300]}")


def versions(python: Path) -> dict[str, str]:
    """Package -> version of what decides the numbers in an environment."""
    named = ("recbole", "rectools", "implicit", "cornac", "torch", "numpy", "scipy")
    code = (
        "import importlib.metadata as m, json, platform, sys; found = {d.metadata['Name'].lower(): d.version for d in m.distributions() if d.metadata['Name']};"
        f"print(json.dumps({{'python': platform.python_version()}} | {{n: found[n] for n in {named!r} if n in found}}))"
    )
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, env=clean, check=False)
    if done.returncode:
        return {}
    import json

    return dict(json.loads(done.stdout))
