"""Memory and AUC of each way to store vectors of fields, at shares of what a row a code takes: DNN on the pair protocol over Amazon Beauty.

    python benchmarks/bench_embedding.py                                       # shares 1/2, 1/8, 1/32, three seeds
    python benchmarks/bench_embedding.py --seeds 0 --epochs 1 --data shop --split shown    # a look, on a data set of yours

The user's and the item's id and the item's attributes are fields, so that the tables are large; a share counts all numbers by which fields are stored,
the small fields, which stay whole, among them. Epochs are chosen on the validation rows. Beside results/bench_embedding.json it writes a plot, .svg.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

import _one_thread  # noqa: F401
import _record
import numpy as np
from rank_pairs import beauty

from vitrail.blocks.compress import Kind
from vitrail.data.dataset import Dataset
from vitrail.plotstyle import figure, save
from vitrail.train.fit import evaluate_run, fit

SHARES = (1 / 2, 1 / 8, 1 / 32)
KINDS = tuple(kind for kind in get_args(Kind) if kind != "full")
SETTINGS: dict[str, Any] = {"user_id": True, "past": False, "dim": 16, "batch": 1024, "lr": 1e-3, "epochs": 10, "patience": 2, "metric": "auc"}


def measured(system: str, dataset: Dataset, split: str, seeds: list[int], settings: dict[str, Any], quiet: bool) -> dict[str, Any]:
    """Numbers and bytes stored, and the test's AUC and log loss of each seed."""
    rows: dict[str, list[float]] = {"auc": [], "gauc": [], "logloss": [], "seconds": []}
    stored: dict[str, Any] = {}
    for seed in seeds:
        recommender = fit(system, dataset, split=split, seed=seed, settings=settings, quiet=quiet).recommender
        features: Any = recommender.model.features
        stored = {"numbers": features.numbers(), "bytes": 4 * features.numbers(), "share": features.numbers() / features.whole_numbers}
        found = evaluate_run(recommender, data=dataset)
        for name in ("auc", "gauc", "logloss"):
            if name in found.metrics:
                rows[name].append(found.metrics[name])
        rows["seconds"].append(recommender.info["seconds"])
    return stored | {name: values for name, values in rows.items() if values}


def plot(results: dict[str, Any], path: Path) -> Path:
    """AUC against the share of memory, a line a way."""
    drawn, axes = figure("Embedding memory and AUC", subtitle="mean over seeds; dashed: a row a code", x="share of the numbers of a row a code", y="test AUC")
    axes.axhline(float(np.mean(results["full"]["auc"])), linestyle="--", linewidth=1.0, color="#718096")
    for kind in KINDS:
        points = sorted((row["share"], float(np.mean(row["auc"]))) for name, row in results.items() if name.partition(" ")[0] == kind)
        if points:
            axes.plot([x for x, _ in points], [y for _, y in points], "o-", label=kind, linewidth=1.6, markersize=5)
    axes.set_xscale("log", base=2)
    axes.legend(fontsize=9)
    return save(drawn, path)


def main() -> int:
    """Fit every way at every share, and write the numbers and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a data set; none: Amazon Beauty from VITRAIL_DATA")
    parser.add_argument("--split", default="pairs")
    parser.add_argument("--system", default="dnn", help="any ranker with tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--epochs", type=int, default=SETTINGS["epochs"])
    parser.add_argument("--out", type=Path, default=_record.RESULTS / "bench_embedding.svg", help="where the plot goes")
    options = parser.parse_args()
    before, quiet = _record.load(), not sys.stderr.isatty()
    dataset = Dataset(options.data) if options.data else beauty(_record.ROOT / "runs" / "rank_pairs" / "beauty")
    told = SETTINGS | {"epochs": options.epochs}
    results = {"full": measured(options.system, dataset, options.split, options.seeds, told, quiet)}
    for kind in options.kinds:
        for share in options.shares:
            row = measured(options.system, dataset, options.split, options.seeds, told | {"tables": kind, "budget": share}, quiet)
            results[f"{kind} {share:g}"] = row
            print(f"{kind:10} budget {share:<8g} {row['bytes'] / 1e6:6.2f} MB ({row['share']:.4f}): AUC {np.mean(row['auc']):.4f}", flush=True)
    print(f"written: {plot(results, options.out)}")
    over = max((row["share"] / float(name.split()[1]) for name, row in results.items() if name != "full"), default=0.0)
    goals = [_record.goal("numbers stored over the budget", round(over, 4), below=1.01)]
    return _record.save("bench_embedding", results, goals, before=before, settings={"system": options.system, "seeds": options.seeds, "settings": told})


if __name__ == "__main__":
    sys.exit(main())
