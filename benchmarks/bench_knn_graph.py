"""The graph of alike items at 100,000 x 384: the ten of largest cosine of every row, exact, and never a dense (N, N) matrix.

    python benchmarks/bench_knn_graph.py
    python benchmarks/bench_knn_graph.py --vectors titles.npy

Vectors are synthetic (clusters with noise), or the rows of a .npy file. Recall is against float64 products of a few rows with all.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path
from typing import Any

import _record
import numpy as np
import torch

from vitrail.blocks.item_graph import ItemGraph, directed, largest, nearest


def clustered(items: int, dim: int, clusters: int = 1000) -> torch.Tensor:
    """(items, dim) float32: a centre and noise of its size."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((clusters, dim), dtype=np.float32)
    values = centres[rng.integers(clusters, size=items)]
    for start in range(0, items, 10_000):
        part = values[start : start + 10_000]
        part += rng.standard_normal(part.shape, dtype=np.float32)
    return torch.from_numpy(values)


def recall(values: torch.Tensor, ids: torch.Tensor, asked: int) -> float:
    """Mean share of the true neighbours of `asked` rows that are among `ids` (N, K), by products in float64."""
    rows = np.random.default_rng(1).choice(len(values), size=min(asked, len(values)), replace=False)
    unit = torch.nn.functional.normalize(values.double(), dim=1)
    cosines = unit[rows] @ unit.T
    cosines[torch.arange(len(rows)), rows] = 2.0
    truth = cosines.topk(ids.shape[1], dim=1).indices
    return float(np.mean([len(np.intersect1d(a, b)) / ids.shape[1] for a, b in zip(ids[rows].numpy(), truth.numpy(), strict=True)]))


def parts(values: torch.Tensor, k: int, block: int = 1024) -> dict[str, float]:
    """Seconds that all blocks would take in the product alone and in the choice alone, from one block each."""
    unit = torch.nn.functional.normalize(values[: len(values) // 128 * 128], dim=1)
    blocks = len(values) / min(block, len(unit))
    started = time.perf_counter()
    cosines = unit[:block] @ unit.T
    product = time.perf_counter() - started
    started = time.perf_counter()
    largest(cosines, k)
    chosen = time.perf_counter() - started
    started = time.perf_counter()
    cosines.topk(k, dim=1)
    return {"product": round(product * blocks, 1), "choice": round(chosen * blocks, 1), "torch_topk": round((time.perf_counter() - started) * blocks, 1)}


def main() -> int:
    """Everything, once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--asked", type=int, default=1000, help="rows whose neighbours are looked at")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vectors", type=Path, help="a .npy file (N, D) instead of synthetic vectors")
    parser.add_argument("--name", default="knn_graph", help="results/<name>.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    before = _record.load()
    if options.vectors is None:
        values = clustered(options.items, options.dim)
    else:
        values = torch.from_numpy(np.load(options.vectors, allow_pickle=False).astype(np.float32))
    n, mask = len(values), torch.ones(len(values), dtype=torch.bool)
    nearest(values[:2000], mask[:2000], options.k)  # libraries wake up
    resting = _peak()
    clock, cpu = time.perf_counter(), time.process_time()
    ids, cosines = nearest(values, mask, options.k)
    seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
    peak = _peak() - resting
    clock = time.perf_counter()
    graph = directed(ids, cosines)
    joined = time.perf_counter() - clock
    found = recall(values, ids, options.asked)
    whole = ItemGraph({"a": values}, {"a": mask}, (1.0,), options.k)
    whole.load_state_dict(dict(zip(("ids_0", "cosines_0", "key"), (ids.int(), cosines, torch.tensor(whole._hash)), strict=True)))
    clock = time.perf_counter()
    whole(torch.ones(n, 8))
    loaded = time.perf_counter() - clock
    results: dict[str, Any] = {
        "items": n,
        "dim": values.shape[1],
        "k": options.k,
        "seconds": round(seconds, 1),
        "processor_seconds": round(cpu, 1),
        "recall": round(found, 5),
        "peak_mib_above_the_vectors": round(peak / 2**20),
        "dense_mib": round(4 * n * n / 2**20),
        "seconds_by_part": parts(values, options.k),
        "seconds_to_a_sparse_matrix": round(joined, 2),
        "seconds_from_an_artifact": round(loaded, 2),
        "stored": int(graph.nnz),
    }
    print(results)
    size = f"{n:,} x {values.shape[1]}"
    goals = [
        _record.goal(f"{size}: seconds to all neighbours, exact", results["seconds"], below=120),
        _record.goal(f"{size}: recall@{options.k}", results["recall"], least=0.9999),
        _record.goal(f"{size}: memory over that of a dense matrix", round(peak / (4 * n * n), 4), below=0.1 if n >= 50_000 else 10),
    ]
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    return _record.save(options.name, results, goals, before=before, settings=settings)


def _peak() -> int:
    """The most memory this process has held, in bytes: before the work that is the vectors, which are made in place."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
