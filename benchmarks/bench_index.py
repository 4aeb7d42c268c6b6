"""An index at a million vectors: recall and queries a second beside faiss called directly, filters beside brute force, exact beside a product.

    python benchmarks/bench_index.py
    python benchmarks/bench_index.py --vectors titles.npy

Vectors are synthetic (clusters with noise), or the rows of a .npy file, of which 2,000 are held out to ask.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import _one_thread  # noqa: F401
import _record
import numpy as np
import torch

from vitrail.index.ann import AnnIndex
from vitrail.index.base import Filter, unit
from vitrail.index.build import build_index
from vitrail.index.exact import ExactIndex
from vitrail.index.store import open_index

SHARES = (1.0, 0.5, 0.1, 0.01, 0.001, 0.0)


def clustered(items: int, dim: int, asked: int, clusters: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(items, dim) and (asked, dim) unit vectors: a centre and noise of its size; and the cluster of each item."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((clusters, dim), dtype=np.float32)
    of = rng.integers(clusters, size=items + asked)
    vectors = np.empty((items + asked, dim), dtype=np.float32)
    for start in range(0, items + asked, 100_000):
        part = slice(start, min(start + 100_000, items + asked))
        vectors[part] = unit(centres[of[part]] + rng.standard_normal((len(of[part]), dim), dtype=np.float32))
    return vectors[:items], vectors[items:], of[:items]


def interleaved(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds (one thread: other programs count little) of each way in each of `rounds` rounds, in turn, after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.process_time()
            way()
            if number:
                taken[name].append(time.process_time() - started)
    return taken


def overlap(found: list[list[str]], truth: list[list[str]]) -> float:
    """Mean share of the true lists that was found."""
    return float(np.mean([len(set(a) & set(b)) / max(len(b), 1) if b else 1.0 for a, b in zip(found, truth, strict=True)]))


def searched(index: AnnIndex, exact: ExactIndex, Q: np.ndarray, rounds: int, folder: Path) -> dict[str, Any]:
    """Recall on queries never seen; queries a second, in a batch and one by one, of ours, of faiss with the same structure, of ours from disk."""
    index.save(folder / "index")
    opened, raw = open_index(folder / "index"), index._structure
    single = Q[:200]
    ways = {
        "ours, batch": lambda: index.search(Q, 10),
        "faiss, batch": lambda: raw.search(Q, 10),
        "ours from disk, batch": lambda: opened.search(Q, 10),
        "ours, one by one": lambda: [index.search(q, 10) for q in single],
        "faiss, one by one": lambda: [raw.search(q[None], 10) for q in single],
    }
    taken = interleaved(ways, rounds)
    rates = {name: _record.spread([(len(Q) if "batch" in name else len(single)) / second for second in seconds], 0) for name, seconds in taken.items()}
    size = sum(file.stat().st_size for file in (folder / "index").iterdir())
    return {
        "recall@10": round(overlap(index.search(Q, 10).lists(), exact.search(Q, 10).lists()), 4),
        "queries_a_second": rates,
        "batch_to_faiss": round(float(np.median(np.divide(taken["faiss, batch"], taken["ours, batch"]))), 3),
        "single_to_faiss": round(float(np.median(np.divide(taken["faiss, one by one"], taken["ours, one by one"]))), 3),
        "gib_on_disk": round(size / 2**30, 2),
        "stats": index.stats(),
    }


def filtered(index: AnnIndex, exact: ExactIndex, Q: np.ndarray, groups: np.ndarray | None) -> dict[str, Any]:
    """At every share of items that pass: recall to a product over those items alone, wrong and missing answers, milliseconds a query."""
    rng, results = np.random.default_rng(1), {}
    n = len(exact)
    masks = {f"{share:g}": rng.random(n) < share for share in SHARES}
    if groups is not None:
        masks["10 clusters, which most queries are far from"] = groups < 10
    names = np.array(exact.ids, dtype=object)
    X = torch.from_numpy(exact.vectors())
    for label, mask in masks.items():
        passing = np.flatnonzero(mask)
        started = time.process_time()
        first = index.search(Q, 10, Filter(mask=mask)).lists()
        cold = time.process_time() - started
        started = time.process_time()
        found = index.search(Q, 10, Filter(mask=mask)).lists()
        warm = time.process_time() - started
        best = (torch.from_numpy(Q) @ X[passing].T).topk(min(10, len(passing)), dim=1).indices.numpy()
        truth = names[passing[best]].tolist()
        allowed = set(names[passing].tolist())
        results[label] = {
            "passing": len(passing),
            "recall@10": round(min(overlap(first, truth), overlap(found, truth)), 4),
            "not_passing": sum(name not in allowed for row in found for name in row),
            "missing": sum(min(10, len(passing)) - len(row) for row in found),
            "ms_a_query": round(warm / len(Q) * 1e3, 3),
            "ms_a_query_first": round(cold / len(Q) * 1e3, 3),
        }
        print(f"  filter {label}: {results[label]}")
    return results


def scanned(exact: ExactIndex, Q: np.ndarray, rounds: int) -> dict[str, Any]:
    """The exact search beside a product into memory that is there, and beside a product and topk, in blocks of 64 queries."""
    X, blocks = torch.from_numpy(exact._vectors), [torch.from_numpy(Q[start : start + 64]) for start in range(0, len(Q), 64)]
    space = torch.empty(64, len(X))
    ways = {
        "ours": lambda: exact.search(Q, 10),
        "product": lambda: [torch.matmul(block, X.T, out=space[: len(block)]) for block in blocks],
        "product and topk": lambda: [torch.matmul(block, X.T, out=space[: len(block)]).topk(10, dim=1) for block in blocks],
    }
    taken = interleaved(ways, rounds)
    return {
        "seconds": {name: _record.spread(seconds) for name, seconds in taken.items()},
        "to_product": round(float(np.median(np.divide(taken["ours"], taken["product"]))), 3),
        "to_product_and_topk": round(float(np.median(np.divide(taken["ours"], taken["product and topk"]))), 3),
    }


def main() -> int:
    """Everything, once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--asked", type=int, default=2000, help="queries")
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--vectors", type=Path, help="a .npy file (N, D) instead of synthetic vectors")
    parser.add_argument("--name", default="index", help="results/<name>.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    before = _record.load()
    groups = None
    if options.vectors is None:
        X, Q, groups = clustered(options.items, options.dim, options.asked)
    else:
        every = unit(np.load(options.vectors, allow_pickle=False).astype(np.float32))
        order = np.random.default_rng(0).permutation(len(every))
        Q, X = every[order[: options.asked]], every[order[options.asked :]]
    ids = [f"i{number}" for number in range(len(X))]
    started, clock = time.process_time(), time.perf_counter()
    index = build_index(ids, X, kind=options.kind, recall=options.recall, say=print)
    built, clock = time.process_time() - started, time.perf_counter() - clock
    exact = ExactIndex(ids, X)
    print(f"{index}: built in {built:.0f} processor seconds ({clock:.0f} s by the clock)")
    with tempfile.TemporaryDirectory() as folder:
        found = searched(index, exact, Q, options.rounds, Path(folder)) if isinstance(index, AnnIndex) else {"stats": index.stats()}
    print({name: value for name, value in found.items() if name != "stats"})
    narrow = filtered(index, exact, Q[:100], groups)
    products = scanned(exact, Q[:256], max(3, options.rounds // 3))
    print(products)
    size = f"{len(X):,} x {X.shape[1]}"
    goals = [_record.goal(f"{size}: exact search, seconds over those of a product", products["to_product"], below=1.3)]
    if isinstance(index, AnnIndex):
        goals += [
            _record.goal(f"{size}: recall@10 on queries never seen", found["recall@10"], least=options.recall),
            _record.goal(f"{size}: queries a second over those of faiss, batch", found["batch_to_faiss"], least=0.9),
            _record.goal(f"{size}: queries a second over those of faiss, one by one", found["single_to_faiss"], least=0.9),
        ]
    goals.append(_record.goal(f"{size}: least recall@10 under a filter", min(row["recall@10"] for row in narrow.values()), least=options.recall))
    goals.append(_record.goal(f"{size}: answers under a filter wrong or missing", sum(row["not_passing"] + row["missing"] for row in narrow.values()), below=1))
    settings = {name: value.name if isinstance(value, Path) else value for name, value in vars(options).items()}
    results = {"build_processor_seconds": round(built, 1), "build_seconds": round(clock, 1), "search": found, "filters": narrow, "exact": products}
    return _record.save(options.name, results, goals, before=before, settings=settings)


if __name__ == "__main__":
    sys.exit(main())
