"""Latency of one recommendation from a loaded artifact: a large catalogue, random weights, no training.

    python benchmarks/bench_recommend.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _record
import numpy as np
import polars as pl
import torch

from vitrail.data.log import Log
from vitrail.funnel.recommender import Recommender, load
from vitrail.systems import registry
from vitrail.systems.base import Given, Sizes

SYSTEMS = ("sasrec", "bpr-mf")


def artifact(system: str, folder: Path, users: int, items: int, dim: int, length: int) -> Recommender:
    """A system of random weights over random histories of `length` items, saved to `folder` and loaded again."""
    rng = np.random.default_rng(0)
    log = Log(np.arange(users + 1) * length, rng.integers(items, size=users * length).astype(np.int32), items)
    cls = registry.find(system)
    config, given = cls.Config.of({"dim": dim}), Given.of(log, cls.needs)
    torch.manual_seed(0)
    model = cls(config, Sizes(users, items), given)
    catalogue = pl.DataFrame({"item": [f"i{number}" for number in range(items)], "price": rng.random(items) * 100})
    people = pl.DataFrame({"user": [f"u{number}" for number in range(users)]})
    info = {"system": system, "config": config.model_dump(mode="json"), "columns": {"price": "number"}}
    Recommender(model, given, log, torch.from_numpy(log.item_counts), catalogue, people, info).save(folder)
    return load(folder)


def milliseconds(ask: Callable[[int], Any], calls: int) -> list[float]:
    """Time of each of `calls` calls, after ten that are not counted."""
    for number in range(10):
        ask(number)
    taken = []
    for number in range(calls):
        started = time.perf_counter()
        ask(number)
        taken.append((time.perf_counter() - started) * 1e3)
    return taken


def main() -> int:
    """Median and p99 of each way to ask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--length", type=int, default=20, help="events of a history")
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    before, results, goals = _record.load(), {}, []
    for system in SYSTEMS:
        with tempfile.TemporaryDirectory() as folder:
            fitted = artifact(system, Path(folder) / "artifact", options.users, options.items, options.dim, options.length)
        ways: dict[str, Callable[[int], Any]] = {
            "answer, user": lambda n, r=fitted: r.answer(f"u{n}", None, 10),
            "recommend, user": lambda n, r=fitted: r.recommend(users=[f"u{n}"], k=10),
            "answer, user, filter price < 30": lambda n, r=fitted: r.answer(f"u{n}", None, 10, filter="price < 30"),
        }
        if fitted.model.can.new_users:
            ways["recommend, history"] = lambda n, r=fitted: r.recommend(histories=[[f"i{n + step}" for step in range(options.length)]], k=10)
        results[system] = {name: _record.spread(milliseconds(ask, options.calls)) for name, ask in ways.items()}
        for name, row in results[system].items():
            print(f"{system:8} {name:34} median {row['median']:.2f} ms, p99 {row['p99']:.2f} ms")
        goals.append(_record.goal(f"{system}: recommend for one user, ms, median", results[system]["recommend, user"]["median"], below=5.0))
    return _record.save("recommend", {"milliseconds": results}, goals, before=before, settings=vars(options))


if __name__ == "__main__":
    sys.exit(main())
