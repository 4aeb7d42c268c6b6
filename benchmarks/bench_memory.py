"""What a fit is estimated to need against what it takes: each system in a process of its own, on a simulated shop, one epoch of few steps."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SYSTEMS: dict[str, dict[str, Any]] = {
    "popular": {},
    "item-knn": {},
    "ease": {},
    "ials": {"sweeps": 1},
    "bpr-mf": {"batch": 65_536},
    "lightgcn": {"batch": 262_144},
    "ngcf": {"batch": 262_144},
    "sasrec": {"batch": 512},
    "multvae": {},
}


def peak(key: str) -> int:
    """Bytes of VmRSS or VmHWM of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def child(system: str, data: Path, settings: dict[str, Any]) -> None:
    """Fit without a validation part; the peak counts from where the split is made."""
    import torch

    from vitrail.data.dataset import Dataset
    from vitrail.systems import registry
    from vitrail.systems.base import Sizes
    from vitrail.train.fit import Fitter, cut

    dataset = Dataset(data)
    split, _, protocol = cut(dataset, "temporal:valid=0,test=0.05", False)
    cls = registry.find(system)
    config = cls.Config.of(settings | ({"epochs": 1} if cls.trained else {}), where=system)
    sizes = Sizes(len(dataset.users), len(dataset.items))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = peak("VmRSS")
    model, _, _ = Fitter(dataset, split, protocol, 0, torch.device("cpu"), True, None, False).fit(cls, config, sizes)
    taken = peak("VmHWM") - before
    print(json.dumps({"system": model.card.name, "estimate": cls.memory(config, sizes, len(split.train)), "taken": taken}))


def main() -> int:
    """Simulate, fit each, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS))
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=30_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--work", type=Path, default=Path("runs/bench/memory"), help="folder for the data; what is there already is used again")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    data = arguments.work / f"shop-{arguments.users}-{arguments.items}-{arguments.events}"
    if arguments.child:
        child(arguments.systems[0], data, SYSTEMS[arguments.systems[0]])
        return 0
    import _record

    from vitrail.data.simulate import SimulatorSettings, simulate

    before = _record.load()
    if not data.exists():
        sizes = {"users": arguments.users, "items": arguments.items, "events": arguments.events}
        simulate(data, settings=SimulatorSettings(pictures=False, **sizes))
    results, goals = {}, []
    for system in arguments.systems:
        command = [sys.executable, __file__, system, "--child", "--work", str(arguments.work)]
        command += ["--events", str(arguments.events), "--users", str(arguments.users), "--items", str(arguments.items)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{system} failed: {done.stderr.strip().splitlines()[-1]}")
        found = json.loads(done.stdout.splitlines()[-1])
        need, taken = found["estimate"] / 1e6, found["taken"] / 1e6
        # what is small is not refused by anybody, and the libraries' own buffers come to some 50 MB
        apart = max((need + 50) / (taken + 50), (taken + 50) / (need + 50))
        results[system] = {"estimate_mb": round(need), "taken_mb": round(taken), "factor": round(apart, 2), "settings": SYSTEMS[system]}
        goals.append(_record.goal(f"{system}: estimate {need:.0f} MB, taken {taken:.0f} MB, apart by a factor of", round(apart, 2), below=2.0))
        print(f"{system}: estimate {need:.0f} MB, taken {taken:.0f} MB", flush=True)
    sizes = {"events": arguments.events, "users": arguments.users, "items": arguments.items}
    return _record.save("memory", results, goals, before=before, settings=sizes)


if __name__ == "__main__":
    sys.exit(main())
