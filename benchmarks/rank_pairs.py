"""Rankers on the pair protocol over Amazon Beauty or Sports: GAUC of each, and its difference from a base with a paired bootstrap over users.

    python benchmarks/rank_pairs.py                                                  # din against mean pooling, three seeds, the full run
    python benchmarks/rank_pairs.py --systems din dien tin dare --data-set sports
    python benchmarks/rank_pairs.py --systems tin tin:time=none --seeds 0 --epochs 2  # a look; settings of a system's own after a colon, with commas

Rows: each event of a user but the first and one uniform item the user never had; a user's last event is the test, the last but one the validation (the
three-way cut of TIN), by which epochs are chosen. Brand and categories are fields. `mean pooling` is `din` with `attention: mean`; all that systems have in
common is equal. Beside them what popularity alone gives (training events of the item) and the length of the history alone. A user's AUC is averaged over
seeds, then users are drawn anew.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import _record
import numpy as np

from vitrail.config import parse_assignments
from vitrail.data.dataset import Dataset
from vitrail.data.impressions import ImpressionSplit, Rows
from vitrail.data.ingest import IngestSettings, ingest
from vitrail.evaluation import binary
from vitrail.files import read_json, write_text
from vitrail.funnel.recommender import load
from vitrail.lab.markdown import table
from vitrail.systems import registry
from vitrail.systems.ranker import Ranker
from vitrail.train.fit import evaluate_run, fit
from vitrail.train.rank import part_rows

BASE: dict[str, Any] = {"attributes": ["attributes"], "past": False, "dim": 32, "batch": 1024, "lr": 1e-3, "epochs": 20, "patience": 2, "dropout": 0.2}
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "din": ("din", {"attention": "mlp", "weights": "softmax"}),
    "mean pooling": ("din", {"attention": "mean"}),
    "dien": ("dien", {"hidden": [80, 40]}),
    "dare": ("dare", {"hidden": [80, 40], "long": 50}),
    "sim": ("sim", {"long": 50}),
    "muse": ("muse", {"hidden": [80, 40], "long": 50}),
}
"""Names that mean more than a system; any other name is that of a system, as it is but for what all have in common."""
FOLDERS = {"beauty": "amazon-beauty-2014", "sports": "amazon-sports-2014"}


def told(name: str) -> tuple[str, dict[str, Any]]:
    """`din`, `mean pooling`, `tin:time=none` -> the system and its own settings."""
    first, _, rest = name.partition(":")
    system, own = SYSTEMS.get(first, (first, {}))
    return system, own | parse_assignments(rest.split(",") if rest else [])


def amazon(name: str, folder: Path) -> Dataset:
    """Amazon Beauty or Sports in `folder`, ingested once from VITRAIL_DATA."""
    if not (folder / "dataset.yaml").exists():
        source = Path(os.environ.get("VITRAIL_DATA", _record.ROOT.parent / "shared" / "data")) / FOLDERS[name]
        ingest([source / "sequences.txt"], items=[source / "items.tsv"], out=folder, settings=IngestSettings(ordered=True))
    return Dataset(folder)


def baselines(rows: Rows, split: ImpressionSplit) -> dict[str, dict[str, float]]:
    """AUC and GAUC of popularity in training alone, and of the length of the history alone."""
    taken = split.train.items[split.train.labels > 0.5]
    scores = {"popularity": np.bincount(taken, minlength=rows.log.n_items)[rows.items], "length of history": rows.stops - rows.starts}
    labels = rows.labels > 0.5
    return {name: {"auc": binary.auc(labels, s.astype(float)), "gauc": binary.gauc(labels, s.astype(float), rows.users)[0]} for name, s in scores.items()}


def main() -> int:
    """Fit all with each seed and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-set", choices=list(FOLDERS), default="beauty")
    parser.add_argument("--data", type=Path, help="where the data set is, or is made; another one than Amazon's may stand there")
    parser.add_argument("--out", type=Path, default=_record.ROOT / "runs" / "rank_pairs", help="where runs go; a finished one is not fitted again")
    parser.add_argument("--systems", nargs="+", default=["din"], metavar="NAME", help=f"systems, or one of {', '.join(SYSTEMS)}")
    parser.add_argument("--base", default="mean pooling", metavar="NAME", help="what the others are compared with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="epochs at most")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of all that have them")
    options = parser.parse_args()
    before = _record.load()
    common = BASE | ({"epochs": options.epochs} if options.epochs else {}) | parse_assignments(options.set)
    dataset = amazon(options.data_set, options.data or _record.ROOT / "runs" / "rank_pairs" / options.data_set)
    names = list(dict.fromkeys([*options.systems, options.base]))
    scores: dict[str, list[np.ndarray]] = {name: [] for name in names}
    results: dict[str, Any] = {}
    for seed in options.seeds:
        for name in names:
            system, own = told(name)
            settings = {key: value for key, value in common.items() if key in registry.find(system).Config.model_fields} | own
            out = options.out / f"{dataset.info.name}-{name.translate(str.maketrans(' :=,', '----'))}-{seed}"
            fit(system, dataset, split="pairs", out=out, seed=seed, resume=True, settings=settings, quiet=not sys.stderr.isatty())
            recommender = load(out)
            evaluation = evaluate_run(recommender, data=dataset)
            assert isinstance(recommender.model, Ranker)
            rows, split = part_rows(recommender.model, recommender.info, dataset)
            scores[name].append(recommender.model.predict(rows).numpy())
            results.setdefault("baselines", baselines(rows, split))
            info = recommender.info
            valid, test = info["validation"]["metrics"], evaluation.metrics
            found = {"epochs": info["epochs"], "seconds": info["seconds"], "parameters": info["parameters"], "validation": valid, "test": test}
            results.setdefault(name, {})[f"seed {seed}"] = found
            print(
                f"seed {seed} {name:14} epoch {info['epochs']:>2}: GAUC valid {valid['gauc']:.4f}, test {test['gauc']:.4f}; AUC {test['auc']:.4f}", flush=True
            )
    goals = []
    for name in [name for name in names if name != options.base]:
        for average in ("metric", "score"):
            found = dict(binary.paired_gauc(rows.labels, scores[name], scores[options.base], rows.users, average=average))  # type: ignore[arg-type]
            results.setdefault("differences", {}).setdefault(name, {})[average] = found
            low, high = found["ci"]
            print(f"{name} - {options.base}, GAUC, {average} averaged over {len(options.seeds)} seeds: {found['diff']:+.4f} ({low:+.4f} to {high:+.4f}), "
                  f"p {found['p']:.4f}")  # fmt: skip
        low = round(results["differences"][name]["metric"]["ci"][0], 5)
        goals.append(_record.goal(f"{name} - {options.base}: low end of the GAUC difference, each user's AUC averaged over seeds", low, least=0.0))
    for name, found in results["baselines"].items():
        print(f"{name} alone: GAUC {found['gauc']:.4f}, AUC {found['auc']:.4f}")
    record = f"rank_pairs_{dataset.info.name}"
    code = _record.save(record, results, goals, before=before, settings={"data set": dataset.info.name, "seeds": options.seeds, "settings": common})
    page = _record.ROOT / "docs" / "results" / f"pairs.{dataset.info.name}.md"
    write_text(page, told_as_text(results, names, options.base, dataset, len(np.unique(rows.users)), read_json(_record.RESULTS / f"{record}.json")["command"]))
    print(f"written: {page.relative_to(_record.ROOT)}")
    return code


def told_as_text(results: dict[str, Any], names: list[str], base: str, dataset: Dataset, users: int, command: str) -> str:
    """The results as a Markdown page: a row a system, best first, then what knows neither the user nor the item."""
    rows = []
    for name in names:
        seeds = [found for key, found in results[name].items() if key.startswith("seed")]
        valid, test, auc = ([found[part][key] for found in seeds] for part, key in (("validation", "gauc"), ("test", "gauc"), ("test", "auc")))
        gap = results["differences"].get(name, {}).get("metric")
        beside = "" if gap is None else f"{gap['diff']:+.4f} [{gap['ci'][0]:+.4f}, {gap['ci'][1]:+.4f}]"
        epochs, seconds = ", ".join(str(found["epochs"]) for found in seeds), float(np.median([found["seconds"] for found in seeds]))
        sd = f" ± {np.std(test, ddof=1):.4f}" if len(test) > 1 else ""
        cells = [
            name, f"{np.mean(test):.4f}{sd}", beside, f"{np.mean(auc):.4f}", f"{np.mean(valid):.4f}", epochs, f"{seeds[0]['parameters']:,}", f"{seconds:.0f}",
        ]  # fmt: skip
        rows.append((float(np.mean(test)), cells))
    for name, found in results["baselines"].items():
        rows.append((found["gauc"], [f"{name} alone", f"{found['gauc']:.4f}", "", f"{found['auc']:.4f}", "", "", "", ""]))
    head = ["system", "GAUC", f"less that of {base}, 95 %", "AUC", "GAUC, validation", "epochs", "parameters", "seconds a fit"]
    return "\n\n".join([
        f"# Rankers on pairs over {dataset.info.name}",
        f"Written by `{command}`; do not edit. {users:,} users of the test part; each row is an event or an item drawn for it that the user never had, split "
        "by position into train, validation and test. GAUC is the mean of users' AUC (± the standard deviation over seeds). Differences: a user's AUC averaged "
        "over seeds, then users drawn anew. Epochs were chosen on validation; nothing else was tuned, and all that systems have in common is equal. Seconds "
        "tell more of what else ran on the machine than of the systems.",
        table(head, [cells for _, cells in sorted(rows, key=lambda row: -row[0])]),
    ]) + "\n"  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
