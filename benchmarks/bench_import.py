"""How long `import vitrail` and `vitrail --help` take, in processes of their own, interpreter start included.

    python benchmarks/bench_import.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import _record

COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import vitrail": [sys.executable, "-c", "import vitrail"],
    "import all that fit needs": [sys.executable, "-c", "from vitrail.train.fit import fit"],
    "vitrail --help": [str(Path(sys.executable).parent / "vitrail"), "--help"],
    "vitrail systems --json": [str(Path(sys.executable).parent / "vitrail"), "systems", "--json"],
}


def main() -> int:
    """Median of so many processes of each command, the first of each left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    before = _record.load()
    results = {}
    for name, command in COMMANDS.items():
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # byte code and the disk cache
        seconds = []
        for _ in range(options.runs):
            started = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            seconds.append(time.perf_counter() - started)
        results[name] = _record.spread(seconds)
        print(f"{name:40} {results[name]['median']:.3f} s")
    goals = [
        _record.goal("import vitrail, s, median", results["import vitrail"]["median"], below=1.0),
        _record.goal("vitrail --help, s, median", results["vitrail --help"]["median"], below=0.5),
    ]
    return _record.save("import", {"seconds": results}, goals, before=before, settings={"runs": options.runs})


if __name__ == "__main__":
    sys.exit(main())
