"""Training rows a second of our DIN against FuxiCTR's, at equal settings on the same processor in one run; and what an answer of each ranker costs.

    python benchmarks/bench_rank.py
    python benchmarks/bench_rank.py --serving                       # milliseconds of an answer: see _rank_serving.py
    python benchmarks/bench_rank.py --serving --systems din muse

The peer is FuxiCTR's own DIN class and `train_step` from the package on PyPI, in an environment of its own made on demand under runs/bench/envs/fuxictr. It
gets ready batches, so its feeding is not counted; ours is counted whole: drawing rows, gathering histories, forward, backward, clip, Adam. Feeding alone is
compared with the loader of its DIN. Settings of both: histories of at most 50, batch 1024, two fields of width 16 (item and category), attention MLP [64]
with Dice and raw weights, MLP [512, 128, 64] with ReLU, Adam 1e-3, gradient clip 10. Histories have their natural lengths (7 on average, geometric) or are
all full. The two run in turn, a slice of steps each. The ratio is one of wall time; that of processor time stands beside it, for busy machines.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _one_thread  # noqa: F401
import _rank_serving
import _record
import numpy as np
import torch

from vitrail.config import parse_assignments
from vitrail.data.batches import Batch
from vitrail.data.fields import Catalogue, FeatureSpec, Field
from vitrail.data.impressions import Rows
from vitrail.data.log import Log
from vitrail.systems import registry
from vitrail.systems.base import Given, Sizes

HOME = _record.ROOT / "runs" / "bench" / "envs" / "fuxictr"
PINS = ["fuxictr==2.3.10", "polars<2", "pandas<3", "keras_preprocessing", "scikit-learn", "h5py", "setuptools<81"]
"""What makes it start; torch comes first, the version we have."""
LENGTH, BATCH, DIM = 50, 1024, 16
ATTENTION, HIDDEN = [64], [512, 128, 64]


def peer_python() -> Path:
    """The interpreter of the peer's environment, which is made where it is not there."""
    python = HOME / "bin" / "python"
    if not (HOME / ".ready").exists():
        print(f"installing FuxiCTR in {HOME} (once, some minutes)", flush=True)
        venv.create(HOME, with_pip=True, clear=HOME.exists())
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, f"torch=={torch.__version__.split('+')[0]}"], check=True)
        subprocess.run([*pip, *PINS], check=True)
        (HOME / ".ready").touch()
    return python


def lengths_of(rows: int, full: bool, rng: np.random.Generator) -> np.ndarray:
    """(rows,) lengths of histories: all 50, or geometric with mean 7, from 1 to 50."""
    return np.full(rows, LENGTH) if full else np.minimum(rng.geometric(1 / 7, size=rows), LENGTH)


def world(rows: int, items: int, categories: int, full: bool) -> tuple[Rows, Catalogue]:
    """A user a row, Zipf-like items."""
    rng = np.random.default_rng(0)
    lengths = lengths_of(rows, full, rng)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def draw(n: int) -> np.ndarray:
        return np.minimum((items * rng.random(n) ** 3).astype(np.int64), items - 1)

    log = Log(indptr, draw(int(indptr[-1])).astype(np.int32), items)
    labels = (rng.random(rows) < 0.5).astype(np.float32)
    given = Rows(np.arange(rows), draw(rows), labels, indptr[1:], log, fields=np.zeros((rows, 0), dtype=np.int32))
    codes = np.stack([np.arange(items) + 2, rng.integers(2, categories + 2, items)], axis=1).astype(np.int32)
    return given, Catalogue(codes, np.zeros((rows + 1, 0), dtype=np.int32))


class Ours:
    """DIN in the steps of the training loop, batches gathered as it goes."""

    def __init__(self, rows: Rows, catalogue: Catalogue, categories: int) -> None:
        items = len(catalogue.items)
        spec = FeatureSpec(
            fields=[Field(name="item", whose="item", kind="id", codes=items + 2), Field(name="category", whose="item", kind="category", codes=categories + 2)]
        )
        cls = registry.find("din")
        config = cls.Config(
            dim=DIM, length=LENGTH, batch=BATCH, attention_hidden=ATTENTION, hidden=HIDDEN, activation="relu", product=False, item_bias=False, scale=1e-4
        )
        tables = {name: torch.from_numpy(array) for name, array in catalogue.arrays().items()} | {"occurrences": torch.ones(items, dtype=torch.int64)}
        torch.manual_seed(0)
        self.model = cls(config, Sizes(len(catalogue.users) - 1, items, features=spec), Given(tables=tables)).train()
        from vitrail.blocks.activation import Dice

        self.model.attention.score.act = Dice(ATTENTION[0])  # Dice in the attention, ReLU on top, as the peer's defaults
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, weight_decay=0.0, fused=True)
        self.batches = self._forever(rows)

    def _forever(self, rows: Rows) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from self.model.batcher(rows, 0, 0, 1).epoch(epoch)
            epoch += 1

    def run(self, steps: int) -> tuple[int, float, float]:
        """Rows done, seconds taken, and seconds of the processor."""
        done, started, cpu = 0, time.perf_counter(), time.process_time()
        for _ in range(steps):
            batch = next(self.batches)
            loss = self.model.loss(batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 10.0)
            self.optimizer.step()
            done += len(batch.items)
        return done, time.perf_counter() - started, time.process_time() - cpu

    def feed(self, steps: int) -> float:
        """Rows a second of feeding alone."""
        done, started = 0, time.perf_counter()
        for _ in range(steps):
            done += len(next(self.batches).items)
        return done / (time.perf_counter() - started)


class Peer:
    """FuxiCTR's DIN in a process of its own, told over pipes when to run."""

    def __init__(self, python: Path, rows: int, items: int, categories: int, full: bool) -> None:
        told = {"rows": rows, "items": items, "categories": categories, "full": full, "length": LENGTH, "batch": BATCH, "dim": DIM}
        told |= {"attention": ATTENTION, "hidden": HIDDEN}
        command = [str(python), str(Path(__file__).with_name("_fuxictr_din.py")), json.dumps(told)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise SystemExit("FuxiCTR's process ended: see its message above.")

    def run(self, steps: int) -> tuple[int, float, float]:
        """Rows done, seconds taken, and seconds of the processor."""
        assert self.process.stdin
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self._answer()
        return answer["rows"], answer["seconds"], answer["cpu"]

    def feed(self, steps: int) -> float:
        """Rows a second of its loader alone."""
        assert self.process.stdin
        self.process.stdin.write(f"feed {steps}\n")
        self.process.stdin.flush()
        answer = self._answer()
        return float(answer["rows"] / answer["seconds"])

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=30)


def main() -> int:
    """Medians over slices that the two take in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--categories", type=int, default=800)
    parser.add_argument("--slices", type=int, default=7)
    parser.add_argument("--steps", type=int, default=25, help="training steps in a slice; batches differ in length, so few are noisy")
    parser.add_argument("--peer", type=Path, help="interpreter of an environment that has FuxiCTR (default: one is made)")
    parser.add_argument("--no-peer", action="store_true", help="only ours")
    parser.add_argument("--serving", action="store_true", help="not training: milliseconds of an answer of each ranker")
    parser.add_argument("--systems", nargs="*", default=[], help="rankers whose answers are timed (default: all)")
    parser.add_argument("--calls", type=int, default=60, help="answers that are timed")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of all whose answers are timed")
    options = parser.parse_args()
    if options.serving:
        return _rank_serving.measure(options.systems, options.calls, parse_assignments(options.set))
    before = _record.load()
    results: dict[str, Any] = {}
    goals = []
    for name, full, least in (("natural lengths", False, 5.0), ("all full", True, 1.3)):
        ours = Ours(*world(options.rows, options.items, options.categories, full), options.categories)
        peer = None if options.no_peer else Peer(options.peer or peer_python(), options.rows, options.items, options.categories, full)
        rates: dict[str, list[float]] = {"ours": [], "FuxiCTR": []}
        work: dict[str, list[float]] = {"ours": [], "FuxiCTR": []}
        for turn in range(options.slices + 1):  # the first turn warms up
            for who, runner in (("ours", ours), ("FuxiCTR", peer)):
                if runner is None:
                    continue
                rows, seconds, cpu = runner.run(options.steps)
                if turn:
                    rates[who].append(rows / seconds)
                    work[who].append(rows / cpu)
        results[name] = {who: _record.spread(values, 0) for who, values in rates.items() if values} | {"feeding alone": round(ours.feed(options.steps))}
        for who, row in results[name].items():
            print(f"{name:16} {who:14} {row['median'] if isinstance(row, dict) else row:>10,.0f} rows/s")
        if peer is not None:
            fed = [(ours.feed(options.steps), peer.feed(options.steps)) for _ in range(3)]
            peer.close()
            results[name]["feeding alone, FuxiCTR"] = _record.spread([theirs for _, theirs in fed], 0)
            results[name]["feeding, ratio"] = _record.spread([mine / theirs for mine, theirs in fed])
            print(f"{name:16} feeding, ratio {results[name]['feeding, ratio']['median']:.1f}")
            goals.append(_record.goal(f"feeding rows/s over FuxiCTR's, {name}", results[name]["feeding, ratio"]["median"], least=10))
            ratio = np.array(rates["ours"]) / np.array(rates["FuxiCTR"])
            results[name]["ratio"] = _record.spread(ratio)
            results[name]["ratio by processor time"] = _record.spread(np.array(work["ours"]) / np.array(work["FuxiCTR"]))
            print(f"{name:16} ratio {results[name]['ratio']['median']:.2f}, by processor time {results[name]['ratio by processor time']['median']:.2f}")
            goals.append(_record.goal(f"DIN rows/s over FuxiCTR's, {name}", results[name]["ratio"]["median"], least=least))
    return _record.save("rank", results, goals, before=before, settings={key: str(value) for key, value in vars(options).items()})


if __name__ == "__main__":
    sys.exit(main())
