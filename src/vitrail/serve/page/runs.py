"""The runs page: what a folder of runs and comparisons says of itself. Only files with these names, at most three folders deep, are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vitrail.errors import VitrailError
from vitrail.files import read_json

DEPTH = 3
INSIDE = ("artifact", "cache", "data", "pictures", "early", "tune")
"""Folders that hold no run of their own to show."""
MOST = 200
"""Runs, and comparisons, that are shown; the newest ones."""
POINTS = 300
"""Points of a curve that are sent."""
LARGEST = 20 * 2**20
"""Bytes of a file that is read."""


def read_runs(folder: Path | None) -> dict[str, Any]:
    """{runs: [{name, system, seed, metrics, curve, ...}], comparisons: [{name, rows, tests, ...}], funnels: [...]}; what cannot be read is left out."""
    found: dict[str, list[dict[str, Any]]] = {"runs": [], "comparisons": [], "funnels": []}
    for place in _folders(folder):
        name = place.name if place == folder else place.relative_to(folder).as_posix()  # type: ignore[arg-type]
        for key, read in (("runs", _run), ("comparisons", _comparison), ("funnels", _funnel)):
            try:
                one = read(place)
            except (VitrailError, OSError, ValueError, KeyError, TypeError, AttributeError):  # half-written, or of another make
                continue
            if one is not None and len(found[key]) < MOST:
                found[key].append({"name": name, **one})
    return found


def _folders(folder: Path | None) -> list[Path]:
    """`folder` and what is in it, the newest first; links are not followed."""
    found: list[Path] = []
    level = [] if folder is None or not folder.is_dir() else [folder]
    for _ in range(DEPTH + 1):
        found += level
        level = [entry for place in level for entry in place.iterdir() if entry.is_dir() and not entry.is_symlink() and entry.name not in INSIDE]
        level = level[: 10 * MOST]
    return sorted(found, key=lambda place: (-place.stat().st_mtime, place.as_posix()))


def _json(file: Path) -> Any:
    return read_json(file) if file.is_file() and file.stat().st_size <= LARGEST else None


def _run(place: Path) -> dict[str, Any] | None:
    manifest = _json(place / "artifact" / "manifest.json")
    if manifest is None:
        return None
    kept = {key: manifest.get(key) for key in ("system", "family", "config", "protocol", "fingerprint", "seconds", "epochs")}
    split = manifest.get("split")
    measured = next((_json(file) for file in (place / "evaluation.json", place / "artifact" / "evaluation.json") if file.is_file()), None)
    measured = measured.get("evaluation", measured) if isinstance(measured, dict) else None
    return {
        **kept,
        "data": Path(str((manifest.get("data") or {}).get("path", ""))).name,
        "split": split.get("name") if isinstance(split, dict) else split,
        "validation": (manifest.get("validation") or {}).get("metrics"),
        "test": None if measured is None else {"metrics": measured.get("metrics"), "ci": measured.get("ci"), "users": measured.get("users")},
        "curve": _curve(place / "curves.jsonl"),
    }


def _curve(file: Path) -> list[dict[str, Any]]:
    if not file.is_file() or file.stat().st_size > LARGEST:
        return []
    lines = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines() if text.strip()]
    step = max(1, -(-len(lines) // POINTS))
    return lines[::step] + (lines[-1:] if lines and (len(lines) - 1) % step else [])


def _comparison(place: Path) -> dict[str, Any] | None:
    result = _json(place / "result.json")
    if not isinstance(result, dict) or "systems" not in result:
        return None
    kept = ("data", "part", "protocol", "users", "metric", "tests", "sentences", "warnings", "seeds")
    systems = [{key: one.get(key) for key in ("system", "seeds", "mean", "sd", "ci")} for one in result["systems"]]
    return {**{key: result.get(key) for key in kept}, "systems": systems}


def _funnel(place: Path) -> dict[str, Any] | None:
    measured = _json(place / "evaluation.json")
    if not isinstance(measured, dict) or "asked" not in measured:
        return None
    asked = {
        name: {"queries": one["queries"], "stages": [{key: stage.get(key) for key in ("stage", "candidates", "ceiling", "metrics")} for stage in one["stages"]],
               "steps": one.get("steps", [])}
        for name, one in measured["asked"].items()
    }  # fmt: skip
    return {"asked": asked, **{key: measured.get(key) for key in ("funnel", "data", "k", "milliseconds")}}
