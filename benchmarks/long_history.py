"""Long histories: AUC and cost of a prediction against the events that are searched, beside DIN over the newest 50.

    python benchmarks/long_history.py                                             # 300 people with 1,000 events each
    python benchmarks/long_history.py --history 10000 --users 200 --items 20000 --lengths 50 1000 10000
    python benchmarks/long_history.py --users 60 --epochs 2 --lengths 50 1000     # a look

The shop is simulated with planted long-range interest: in the first half of a person's events one interest follows another, in the second half every other
visit returns to one of them, which the newest 50 events mostly do not show. Rows are the newest events of each person, each beside an item drawn uniformly
from those the person never had; of a person's rows the last fifth is the test, the fifth before it the validation, by which epochs are chosen. All systems
have the same fields, width, tower, optimiser and rows; attention, where a system leaves it open, is DIN's MLP with a softmax. Content is TF-IDF of titles
and descriptions. The cost is that of `score`, from the history in codes to calibrated chances, for one person and 200 candidates on one core; histories
are stored once and no candidate copies one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import _one_thread  # noqa: F401
import _record
import numpy as np
import polars as pl
import torch

from vitrail import plotstyle
from vitrail.config import parse_assignments
from vitrail.content.encode import encode
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.simulate import SimulatorSettings, simulate
from vitrail.funnel.recommender import load
from vitrail.systems import registry
from vitrail.systems.ranker import Ranker
from vitrail.train.fit import evaluate_run, fit
from vitrail.train.rank import part_rows

BASE: dict[str, Any] = {
    "attributes": ["category", "subcategory", "colour"], "past": False, "dim": 16, "length": 50, "batch": 256, "lr": 5e-3, "scale": 0.1, "metric": "auc",
    "patience": 2, "hidden": [80, 40], "attention": "mlp",
}  # fmt: skip
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "DIN, newest 50": ("din", {"weights": "softmax"}),
    "SIM hard": ("sim", {"search": "hard", "category": "subcategory"}),
    "SIM soft": ("sim", {}),
    "ETA": ("eta", {}),
    "SDIM": ("sdim", {}),
    "DARE": ("dare", {}),
    "MUSE": ("muse", {"vectors": ["text"]}),
}
FIRST = "DIN, newest 50"
CANDIDATES = 200


def planted(folder: Path, options: argparse.Namespace) -> Dataset:
    """The shop and its rows in `folder`, made once."""
    if (folder / "rows" / "dataset.yaml").exists():
        return Dataset(folder / "rows")
    settings = SimulatorSettings(
        users=options.users, items=options.items, events=options.users * options.history, categories=options.categories, activity_spread=0.0,
        long_range=options.returns, old_interests=options.old, pictures=False, cold_items=0.0, popularity_skew=0.5, seed=options.data_seed,
    )  # fmt: skip
    shop = simulate(folder / "shop", settings=settings, overwrite=True)
    rows = impressions(shop, options.rows)
    data = write_dataset(folder / "rows", shop.info, shop.interactions, shop.items, shop.users, overwrite=True, impressions=rows)
    encode(data, text="tfidf", columns=["title", "description"])
    return data


def impressions(shop: Dataset, newest: int) -> pl.DataFrame:
    """Rows of the `newest` events of each person, each with an item beside it that the person never had: user, item, timestamp, clicked, part."""
    log, rng = shop.log(), np.random.default_rng(0)
    n = len(shop.items)
    keys = np.unique(log.users * n + log.items)
    age = np.repeat(log.indptr[1:], log.lengths) - np.arange(len(log))  # 1 is the newest
    chosen = np.flatnonzero(age <= newest)
    users, drawn = log.users[chosen], rng.integers(n, size=len(chosen))
    for _ in range(50):
        had = np.isin(users * n + drawn, keys)
        drawn = np.where(had, rng.integers(n, size=len(drawn)), drawn)
    part = np.select([age[chosen] <= newest // 5, age[chosen] <= 2 * newest // 5], ["test", "valid"], "train")
    assert log.times is not None
    told = {"user": shop.user_ids.ids.gather(users), "timestamp": pl.Series(log.times[chosen]).cast(pl.Datetime("us", "UTC")), "part": pl.Series(part)}
    sides = [(np.asarray(log.items[chosen]), 1.0), (drawn, 0.0)]
    return pl.concat([pl.DataFrame(told | {"item": shop.item_ids.ids.gather(items), "clicked": np.full(len(items), y)}) for items, y in sides])


def cost(model: Ranker, dataset: Dataset, repeats: int = 7) -> dict[str, float]:
    """Milliseconds of answering one person with CANDIDATES items, over `repeats` people."""
    model.eval()
    log, rng, spent = dataset.log(), np.random.default_rng(0), []
    for turn in range(repeats + 2):
        histories = log.histories(np.array([turn % log.n_users]))
        asked = torch.from_numpy(rng.integers(len(dataset.items), size=(1, CANDIDATES)))
        started = time.process_time()
        model.score(histories, asked)
        spent.append(1e3 * (time.process_time() - started))
    return _record.spread(spent[2:])


def measured(name: str, length: int, dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Fit with each seed, or take up a finished run: AUC of the test part, and the cost."""
    system, own = SYSTEMS[name]
    told = BASE | own | {"epochs": options.epochs} | parse_assignments(options.set)
    told = {key: value for key, value in told.items() if key in registry.find(system).Config.model_fields}
    if name != FIRST:
        told["long"] = length
    found: dict[str, Any] = {"auc": [], "valid": [], "epochs": [], "seconds": []}
    for seed in options.seeds:
        out = options.out / f"{name.replace(',', '').replace(' ', '-').lower()}-{length}-{seed}"
        fit(system, dataset, split="shown", out=out, seed=seed, resume=True, settings=told, quiet=not sys.stderr.isatty())
        recommender = load(out)
        evaluation, info = evaluate_run(recommender, data=dataset), recommender.info
        found["auc"].append(evaluation.metrics["auc"])
        found["valid"].append(info["validation"]["metrics"]["auc"])
        found["epochs"].append(info["epochs"])
        found["seconds"].append(info["seconds"])
        assert isinstance(recommender.model, Ranker)
        if seed == options.seeds[0]:
            found["ms"] = cost(recommender.model, dataset)
            found["rows"] = len(part_rows(recommender.model, info, dataset)[0])
    mean = float(np.mean(found["auc"]))
    print(f"{name:16} {length:>6,} events: AUC {mean:.4f} over {len(options.seeds)} seeds, {found['ms']['median']:8.2f} ms an answer", flush=True)
    return found | {"mean": mean}


def plots(results: dict[str, dict[str, Any]], folder: Path, options: argparse.Namespace) -> None:
    """AUC and cost against the events searched."""
    for what, title, unit in (("auc", "Ranking quality and what is searched", "AUC"), ("ms", "Cost of an answer and what is searched", "milliseconds")):
        about = f"{options.users:,} people with {options.history:,} events each; half of late visits return to interests of long ago"
        drawn, axes = plotstyle.figure(title, subtitle=about, x="newest events that are searched", y=unit)
        for name, by_length in results.items():
            lengths = [int(length) for length in by_length]
            values = [row["mean"] if what == "auc" else row["ms"]["median"] for row in by_length.values()]
            if name == FIRST:
                axes.axhline(values[0], color=plotstyle.GREY, linestyle="--", label=name)
            else:
                axes.plot(lengths, values, marker="o", label=name)
        plotstyle.logarithmic(axes, x=True, y=what == "ms")
        plotstyle.plain_numbers(axes, x=True, y=what == "ms")
        axes.legend(fontsize=8)
        print(f"written: {plotstyle.save(drawn, folder / f'long_history.{what}.svg')}")


def main() -> int:
    """Fit and measure all, write the record and the plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--items", type=int, default=8_000)
    parser.add_argument("--categories", type=int, default=48)
    parser.add_argument("--history", type=int, default=1_000, help="events of each person")
    parser.add_argument("--old", type=int, default=40, help="interests of long ago")
    parser.add_argument("--returns", type=float, default=0.5, help="share of late visits that return to them")
    parser.add_argument("--rows", type=int, default=40, help="newest events of each person that become rows")
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200, 1_000], help="newest events that are searched")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--epochs", type=int, default=8, help="epochs at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of all that have them")
    parser.add_argument("--out", type=Path, help="where data and runs go; a finished run is not fitted again")
    options = parser.parse_args()
    shop = f"{options.users}-{options.items}-{options.categories}-{options.history}-{options.old}-{options.returns}-{options.rows}-{options.data_seed}"
    options.out = (options.out or _record.ROOT / "runs" / "long_history") / shop
    before = _record.load()
    dataset = planted(options.out, options)
    results: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys([FIRST, *options.systems]):
        for length in [50] if name == FIRST else options.lengths:
            results.setdefault(name, {})[str(length)] = measured(name, length, dataset, options)
    base, longest = results[FIRST]["50"]["mean"], str(max(options.lengths))
    goals = []
    for name in [name for name in results if name != FIRST]:
        row = results[name]
        goals.append(_record.goal(f"AUC of {name} over {longest} events less that of DIN over 50", round(row[longest]["mean"] - base, 4), least=0.01))
        goals.append(_record.goal(f"{name} over {longest} events, {CANDIDATES} candidates, ms", row[longest]["ms"]["median"], below=25))
        if len(row) > 1 and (shortest := min(options.lengths)) < int(longest):
            growth = row[longest]["ms"]["median"] / row[str(shortest)]["ms"]["median"]
            goals.append(_record.goal(f"cost of {name} over {longest} events / over {shortest}", round(growth, 2), below=int(longest) / shortest))
    plots(results, _record.RESULTS, options)
    told = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    return _record.save("long_history", results, goals, before=before, settings=told | {"base": BASE})


if __name__ == "__main__":
    sys.exit(main())
