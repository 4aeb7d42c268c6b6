"""DIN against mean pooling on the pair protocol over Amazon Beauty: GAUC of both, and its difference with a paired bootstrap over users.

    python benchmarks/rank_pairs.py                          # three seeds, the full run
    python benchmarks/rank_pairs.py --seeds 0 --epochs 2     # a look

Rows: each event of a user but the first and one uniform item the user never had; a user's last event is the test, the last but one the validation (the
three-way cut of TIN), by which epochs are chosen. Brand and categories are fields. Both systems are `din`, with `attention` mlp and mean; all else is equal.
A user's AUC is averaged over seeds, then users are drawn anew.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import _record
import numpy as np

from vitrail.data.dataset import Dataset
from vitrail.data.ingest import IngestSettings, ingest
from vitrail.evaluation import binary
from vitrail.funnel.recommender import load
from vitrail.systems.ranker import Ranker
from vitrail.train.fit import evaluate_run, fit
from vitrail.train.rank import part_rows

BASE: dict[str, Any] = {"attributes": ["attributes"], "past": False, "dim": 32, "batch": 1024, "lr": 1e-3, "epochs": 20, "patience": 2, "dropout": 0.2}
SYSTEMS: dict[str, dict[str, Any]] = {"din": {"attention": "mlp", "weights": "softmax"}, "mean pooling": {"attention": "mean"}}


def beauty(folder: Path) -> Dataset:
    """Amazon Beauty in `folder`, ingested once from VITRAIL_DATA."""
    if not (folder / "dataset.yaml").exists():
        source = Path(os.environ.get("VITRAIL_DATA", _record.ROOT.parent / "shared" / "data")) / "amazon-beauty-2014"
        ingest([source / "sequences.txt"], items=[source / "items.tsv"], out=folder, settings=IngestSettings(ordered=True))
    return Dataset(folder)


def main() -> int:
    """Fit both with each seed and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=_record.ROOT / "runs" / "rank_pairs" / "beauty", help="where the data set is, or is made")
    parser.add_argument("--out", type=Path, default=_record.ROOT / "runs" / "rank_pairs", help="where runs go; a finished one is not fitted again")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="epochs at most")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of both")
    options = parser.parse_args()
    before = _record.load()
    from vitrail.config import parse_assignments

    told = BASE | ({"epochs": options.epochs} if options.epochs else {}) | parse_assignments(options.set)
    dataset = beauty(options.data)
    scores: dict[str, list[np.ndarray]] = {name: [] for name in SYSTEMS}
    results: dict[str, Any] = {}
    rows = None
    for seed in options.seeds:
        for name, own in SYSTEMS.items():
            out = options.out / f"{name.replace(' ', '-')}-{seed}"
            fit("din", dataset, split="pairs", out=out, seed=seed, resume=True, settings=told | own, quiet=not sys.stderr.isatty())
            recommender = load(out)
            evaluation = evaluate_run(recommender, data=dataset)
            assert isinstance(recommender.model, Ranker)
            rows, _ = part_rows(recommender.model, recommender.info, dataset)
            scores[name].append(recommender.model.predict(rows).numpy())
            info = recommender.info
            valid, test = info["validation"]["metrics"], evaluation.metrics
            results.setdefault(name, {})[f"seed {seed}"] = {"epochs": info["epochs"], "seconds": info["seconds"], "validation": valid, "test": test}
            print(
                f"seed {seed} {name:14} epoch {info['epochs']:>2}: GAUC valid {valid['gauc']:.4f}, test {test['gauc']:.4f}; AUC {test['auc']:.4f}", flush=True
            )
    assert rows is not None
    for average in ("metric", "score"):
        found = binary.paired_gauc(rows.labels, scores["din"], scores["mean pooling"], rows.users, average=average)  # type: ignore[arg-type]
        results[f"difference, {average} averaged"] = dict(found)
        low, high = found["ci"]
        told_low = f"{found['diff']:+.4f} ({low:+.4f} to {high:+.4f}), p {found['p']:.4f}"
        print(f"din - mean pooling, GAUC, {average} averaged over {len(options.seeds)} seeds: {told_low}")
    low = round(results["difference, metric averaged"]["ci"][0], 5)
    goals = [_record.goal("low end of the GAUC difference, each user's AUC averaged over seeds", low, least=0.0)]
    return _record.save("rank_pairs", results, goals, before=before, settings={"seeds": options.seeds, "settings": told})


if __name__ == "__main__":
    sys.exit(main())
