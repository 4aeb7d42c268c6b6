"""Users a second of the evaluator at the size of Amazon Beauty, against plain numpy.

    python benchmarks/bench_evaluate.py

The scores of all come from the same random vectors, each way has one thread, and all must give the same recall and NDCG. The plain ways are a loop
over users with a full argsort, as much published evaluation code does it, and blocks of users with argpartition. Beside it GAUC of 3 million rows of
100,000 users, with ties, beside a loop over users that compares every success with every failure.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import _one_thread  # noqa: F401
import _record
import numpy as np
import torch

from vitrail.data.batches import Sets
from vitrail.data.split import Part
from vitrail.data.vocabulary import Vocabulary
from vitrail.evaluation.binary import gauc
from vitrail.evaluation.evaluator import evaluate_part
from vitrail.evaluation.protocol import protocol_for

METRICS = ["recall@10", "ndcg@10"]
BLOCK = 256


def world(users: int, items: int, dim: int) -> tuple[Part, np.ndarray, np.ndarray]:
    """One target a user and histories of 4 to 13 distinct items (9 on average, as on Beauty); vectors of users and items."""
    rng = np.random.default_rng(0)
    drawn = [rng.choice(items, size=size + 1, replace=False) for size in rng.integers(4, 14, size=users)]
    histories = [row[:-1] for row in drawn]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in histories])]).astype(np.int64)
    flat = np.concatenate(histories).astype(np.int64)
    sets = Sets(torch.arange(users), torch.from_numpy(indptr), torch.from_numpy(flat))
    part = Part("test", sets, indptr, flat, np.arange(users + 1, dtype=np.int64), np.array([row[-1] for row in drawn], dtype=np.int64))
    return part, rng.normal(size=(users, dim)).astype(np.float32), rng.normal(size=(items, dim)).astype(np.float32)


def by_argsort(part: Part, U: np.ndarray, V: np.ndarray, users: int) -> dict[str, float]:
    """The plain loop over the first `users`."""
    recall = ndcg = 0.0
    for user in range(users):
        scores = V @ U[user]
        scores[part.mask_items[part.mask_indptr[user] : part.mask_indptr[user + 1]]] = -np.inf
        best = np.argsort(-scores)[:10]
        place = np.flatnonzero(best == part.target_items[user])
        if len(place):
            recall += 1
            ndcg += 1 / np.log2(place[0] + 2)
    return {"recall@10": recall / users, "ndcg@10": ndcg / users}


def by_argpartition(part: Part, U: np.ndarray, V: np.ndarray, users: int) -> dict[str, float]:
    """Blocks of users, a partial sort of each row."""
    recall = ndcg = 0.0
    for start in range(0, users, BLOCK):
        stop = min(start + BLOCK, users)
        scores = U[start:stop] @ V.T
        for row in range(start, stop):
            scores[row - start, part.mask_items[part.mask_indptr[row] : part.mask_indptr[row + 1]]] = -np.inf
        best = np.argpartition(-scores, 10, axis=1)[:, :10]
        order = np.take_along_axis(-scores, best, 1).argsort(1)
        best = np.take_along_axis(best, order, 1)
        places = best == part.target_items[start:stop, None]
        recall += float(places.sum())
        ndcg += float((places / np.log2(np.arange(2, 12))).sum())
    return {"recall@10": recall / users, "ndcg@10": ndcg / users}


def of_rows(rows: int, users: int, passes: int, loop_users: int) -> dict[str, Any]:
    """Seconds of GAUC over rows with ties, by the clock and by the processor; the same number by a loop over users, of which `loop_users` are timed."""
    rng = np.random.default_rng(0)
    whose, scores = rng.integers(0, users, rows), np.round(rng.normal(size=rows), 2).astype(np.float32)
    labels = (rng.random(rows) < 1 / (1 + np.exp(2 - scores))).astype(np.float32)
    gauc(labels, scores, whose)
    wall, work = [], []
    for _ in range(passes):
        clock, cpu = time.perf_counter(), time.process_time()
        value = gauc(labels, scores, whose)[0]
        wall.append(time.perf_counter() - clock)
        work.append(time.process_time() - cpu)
    few = whose < loop_users
    order = np.argsort(whose, kind="stable")
    ends = np.cumsum(np.bincount(whose, minlength=users))
    started = time.perf_counter()
    total = asked = 0.0
    for user in range(loop_users):
        mine = order[ends[user - 1] if user else 0 : ends[user]]
        y, s = labels[mine] > 0.5, scores[mine]
        if y.all() or not y.any():
            continue
        higher = (s[y][:, None] > s[~y]).mean() + (s[y][:, None] == s[~y]).mean() / 2
        total, asked = total + higher * len(mine), asked + len(mine)
    looped = (time.perf_counter() - started) * users / loop_users
    assert abs(gauc(labels[few], scores[few], whose[few])[0] - total / asked) < 1e-9, "the two give different numbers"
    return {"value": value, "seconds": _record.spread(wall), "processor seconds": _record.spread(work), "loop over users, seconds": round(looped, 1)}


def main() -> int:
    """Medians over so many passes of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=22_363)
    parser.add_argument("--items", type=int, default=12_101)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--loop-users", type=int, default=3_000, help="users that the argsort loop takes a pass")
    parser.add_argument("--rows", type=int, default=3_000_000, help="rows whose GAUC is taken")
    options = parser.parse_args()
    before = _record.load()
    part, U, V = world(options.users, options.items, options.dim)
    ids = Vocabulary.of([str(number) for number in range(options.items)])
    T, W = torch.from_numpy(U), torch.from_numpy(V)
    counts = np.bincount(part.mask_items, minlength=options.items)

    def house(metrics: list[str] | None, rest: bool) -> Any:
        return evaluate_part(
            part, lambda h: T[h.users] @ W.T, protocol=protocol_for("leave_one_out"), item_hashes=ids.hashes, train_counts=counts,
            metrics=metrics, intervals=rest, slices=rest,
        )  # fmt: skip

    ways = {
        "evaluator": (lambda: house(METRICS, False).metrics, options.users),
        "evaluator, all metrics, intervals and slices": (lambda: house(None, True).metrics, options.users),
        "numpy argpartition in blocks": (lambda: by_argpartition(part, U, V, options.users), options.users),
        "numpy argsort loop": (lambda: by_argsort(part, U, V, options.loop_users), options.loop_users),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, dict[str, float]] = {}
    for name, (run, _) in ways.items():
        found[name] = run()
    for _ in range(options.passes):  # in turn, so that a busy moment of the machine hits all alike
        for name, (run, users) in ways.items():
            started = time.perf_counter()
            run()
            rates[name].append(users / (time.perf_counter() - started))
    exact = by_argpartition(part, U, V, options.loop_users)
    assert all(abs(found["evaluator"][m] - found["numpy argpartition in blocks"][m]) < 1e-6 for m in METRICS), "the two give different numbers"
    assert all(abs(exact[m] - found["numpy argsort loop"][m]) < 1e-6 for m in METRICS), "the two give different numbers"
    results: dict[str, Any] = {"users_per_second": {name: _record.spread(values, 0) for name, values in rates.items()}}
    own = np.array(rates["evaluator"])
    results["ratio"] = {f"evaluator / {name}": _record.spread(own / np.array(rates[name])) for name in list(ways)[2:]}
    for name, row in results["users_per_second"].items():
        print(f"{name:46} {row['median']:>9,.0f} users/s")
    for name, row in results["ratio"].items():
        print(f"{name:46} {row['median']:>9.1f} times")
    results["gauc"] = of_rows(options.rows, max(options.rows // 30, 1), options.passes, min(options.loop_users, options.rows // 30))
    print(f"GAUC of {options.rows:,} rows: {results['gauc']['seconds']['median']:.2f} s, a loop over users {results['gauc']['loop over users, seconds']:.1f} s")
    goals = [_record.goal("evaluator / numpy argsort loop, times, median", results["ratio"]["evaluator / numpy argsort loop"]["median"], least=1.0)]
    goals.append(_record.goal(f"GAUC of {options.rows:,} rows, seconds, median", results["gauc"]["seconds"]["median"], below=2))
    return _record.save("evaluate", results, goals, before=before, settings=vars(options))


if __name__ == "__main__":
    sys.exit(main())
