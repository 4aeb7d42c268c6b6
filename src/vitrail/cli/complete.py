"""Names for shell completion, found without importing what they name."""

from __future__ import annotations

import re
from pathlib import Path

SPLITS = (
    "temporal", "leave-last-out", "ratio", "cold-items", "predefined", "none",
    "recbole_rs", "mmrec_random", "lattice_random", "ngcf_80_20", "pairs", "rated", "shown",
)  # fmt: skip
"""The splits of data.splits."""


def systems(incomplete: str) -> list[str]:
    """Names of the package's own systems that begin with `incomplete`."""
    folder = Path(__file__).parent.parent / "systems"
    names = [name for file in folder.glob("*/*.py") for name in re.findall(r'@system\(\s*"([^"]+)"', file.read_text(encoding="utf-8"))]
    return sorted(name for name in names if name.startswith(incomplete))


def splits(incomplete: str) -> list[str]:
    """Names of splits that begin with `incomplete`."""
    return [name for name in SPLITS if name.startswith(incomplete)]
