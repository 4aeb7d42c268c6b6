"""Vectors cut short: nested training against the leading numbers and the principal components of plain training, at each width, on the validation part.

    python benchmarks/bench_nested.py DATA                            matryoshka at 64 numbers, the default split of DATA
    python benchmarks/bench_nested.py DATA --split recbole_rs --epochs 30 --dim 64 --set lr=0.01 --json

The plain run is the same system with `nested=[dim]`, which is plain training to the bit. A width of the plain run is read twice: its first numbers, which is
what cutting without training gives, and its principal components (vectors of items and users turned by the singular directions of the items), which is
the baseline to beat. The card of MRL asks of D = 64: the nested run within 2 % of the plain one at 64, and at 8 at least 15 % over its first numbers and
no less than its principal components. Beside each width stands nested less components over the same users with a 95 % interval: where it holds 0, the
validation part has too few users to tell them apart (at the full width components are the plain run itself).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch

from vitrail.config import parse_assignments
from vitrail.data.batches import Sets
from vitrail.data.dataset import Dataset
from vitrail.evaluation.evaluator import Evaluation, evaluate_part
from vitrail.evaluation.intervals import paired_difference
from vitrail.funnel.recommender import score_or_popular
from vitrail.train.fit import FitResult, cut, fit


def measured(dataset: Dataset, made: FitResult, split: str | None, metric: str, turn: Callable[[torch.Tensor], torch.Tensor]) -> Evaluation:
    """The validation part where vectors are `turn`ed before they are brought to length 1."""
    _, _, protocol = cut(dataset, split, False)
    model: Any = made.recommender.model
    with torch.inference_mode():
        users, items = (model.finish(turn(table)).contiguous() for table in model.tables())
        model._users, model._items = users, items
        found = evaluate_part(
            made.split.valid, lambda histories: scores(model, made, histories), protocol=protocol, item_hashes=dataset.item_ids.hashes,
            train_counts=made.split.train.item_counts, metrics=[metric], intervals=False, slices=False,
        )  # fmt: skip
        model.prepare()
    return found


def scores(model: Any, made: FitResult, histories: Sets) -> torch.Tensor:
    """(B, N)"""
    return score_or_popular(model, made.recommender.popularity, histories)[0]


def run(data: str, split: str | None, dim: int, epochs: int, metric: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """A row a width: nested, first numbers of plain, principal components of plain."""
    dataset = Dataset(data)
    asked = {"dim": dim, "epochs": epochs, "metric": metric, **settings}
    nested, plain = (
        fit("matryoshka", dataset, split=split, seed=seed, settings={**asked, **more}, quiet=True) for more in ({}, {"nested": [dim]})
    )  # fmt: skip
    directions = torch.linalg.svd(plain.recommender.model.tables()[1].detach(), full_matrices=False)[2].T  # type: ignore[operator]
    rows = []
    for width in nested.recommender.model.widths:
        first = (lambda m: lambda table: table[:, :m])(width)
        turned = (lambda m: lambda table: (table @ directions)[:, :m])(width)
        found = [measured(dataset, one, split, metric, turn) for one, turn in ((nested, first), (plain, first), (plain, turned))]
        gain = paired_difference(found[0].values[metric], found[2].values[metric], seed=seed)
        told = {name: one.metrics[metric] for name, one in zip(("nested", "first", "components"), found, strict=True)}
        rows.append({"width": width, **told, "gain": gain["diff"], "ci": gain["ci"]})
    epochs_of = [one.recommender.info["epochs"] for one in (nested, plain)]
    return {"data": dataset.info.name, "metric": metric, "dim": dim, "seed": seed, "epochs": epochs_of, "users": found[0].users, "rows": rows}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--split")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--metric", default="recall@20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = run(asked.data, asked.split, asked.dim, asked.epochs, asked.metric, asked.seed, parse_assignments(asked.assignments))
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{found['metric']} of the validation part of {found['data']}, {found['users']} users, {found['epochs'][0]} and {found['epochs'][1]} epochs")
    print(f"{'width':>6} {'nested':>8} {'first':>8} {'components':>11}   nested less components")
    for row in found["rows"]:
        low, high = row["ci"]
        print(f"{row['width']:>6} {row['nested']:>8.4f} {row['first']:>8.4f} {row['components']:>11.4f}   {row['gain']:+.4f} [{low:+.4f}, {high:+.4f}]")


if __name__ == "__main__":
    main()
