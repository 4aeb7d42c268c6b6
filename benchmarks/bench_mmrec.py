"""BM3, FREEDOM and LightGCN beside MMRec's own code on the same folder: seconds an epoch, turn about, and memory.

    python benchmarks/bench_mmrec.py --mmrec CHECKOUT                       a simulated log of Baby's size, made-up vectors
    python benchmarks/bench_mmrec.py --mmrec CHECKOUT --data FOLDER         a folder that comes split: MMRec's, or train.tsv, valid.tsv, test.tsv
    python benchmarks/bench_mmrec.py --mmrec CHECKOUT --small               seconds: does it run

Nothing is fetched: CHECKOUT (or the variable MMREC) is a copy of github.com/enoche/MMRec. It is not changed: what keeps it from starting today is mended
in its own process, and the results say how. Vectors that the folder lacks are made up, of the widths of the published ones.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import _record
import numpy as np
import polars as pl
from peers.plan import summary
from peers.side import Side

from vitrail.data.dataset import Dataset
from vitrail.data.ingest import ingest
from vitrail.errors import DataError, VitrailError
from vitrail.train.fit import cut

SHARED = {"dim": 64, "batch": 2048, "lr": 1e-3, "init": "xavier"}
ROWS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "lightgcn": ("LightGCN", {"layers": 2, "l2": 1e-4}, {"n_layers": 2, "reg_weight": 1e-4}),
    "bm3": ("BM3", {"layers": 1, "dropout": 0.3, "reg": 0.1}, {"n_layers": 1, "dropout": 0.3, "reg_weight": 0.1}),
    "freedom": ("FREEDOM", {"drop": 0.8, "aux": 1e-3}, {"dropout": 0.8, "reg_weight": 1e-3}),
}
"""Our name -> MMRec's, our settings, its settings."""
SIZES, SMALL = {"users": 19_445, "items": 7_050, "events": 160_792}, {"users": 400, "items": 200, "events": 4_000}
WIDTHS, NARROW = {"text": 384, "image": 4096}, {"text": 16, "image": 32}


def simulated(users: int, items: int, events: int) -> pl.DataFrame:
    """Distinct events user, item, part; items by a long tail, every user and every item met in training."""
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, items + 1) ** 0.8
    u = np.concatenate([np.arange(users), rng.integers(0, users, max(users, items)), rng.integers(0, users, 2 * events)])
    i = np.concatenate([rng.integers(0, items, users), np.arange(max(users, items)) % items, rng.choice(items, 2 * events, p=chance / chance.sum())])
    parts = np.where(np.arange(len(u)) < users + max(users, items), 0, rng.choice(3, len(u), p=[0.4, 0.3, 0.3]))
    frame = pl.DataFrame({"user": u, "item": i, "part": parts}).unique(["user", "item"], keep="first", maintain_order=True)
    return frame.head(max(events, users + max(users, items)))


def of_dataset(dataset: Dataset) -> pl.DataFrame:
    """The events of a data set that came split, users and items numbered by the order of their codes."""
    events = dataset.interactions.select("user", "item", part=dataset.parts().replace_strict({"train": 0, "valid": 1, "test": 2}, return_dtype=pl.Int64))
    codes = {role: pl.Series(ids.encode(events[role])) for role, ids in (("user", dataset.user_ids), ("item", dataset.item_ids))}
    return events.with_columns((found.rank("dense") - 1).cast(pl.Int64).alias(role) for role, found in codes.items())


def folder(asked: argparse.Namespace) -> Path:
    """A folder that both sides read as it is, under `--work`; made once."""
    widths = NARROW if asked.small else WIDTHS
    widths = {"text": asked.text or widths["text"], "image": asked.image or widths["image"]}
    source = "small" if asked.small else "baby-like" if asked.data is None else asked.data.resolve().name
    name = f"{source}-{widths['text']}-{widths['image']}"
    home = (asked.work / "folders" / name).resolve()
    if (home / f"{name}.inter").exists():
        return home
    home.mkdir(parents=True, exist_ok=True)
    frame, features = simulated(**(SMALL if asked.small else SIZES)), {}
    if asked.data is not None:
        dataset = ingest([asked.data], out=asked.work / "read" / name, overwrite=True).dataset
        frame = of_dataset(dataset)
        met = dataset.item_ids.encode(dataset.interactions["item"].unique())
        features = {name: dataset.vectors(name).values[np.sort(met)] for name in dataset.vector_names() if name in WIDTHS}
    rng = np.random.default_rng(1)
    for kind, width in widths.items():
        made = rng.normal(size=(int(frame["item"].max()) + 1, width)).astype(np.float32)  # type: ignore[arg-type]
        np.save(home / f"{kind}_feat.npy", features.get(kind, made))
    frame = frame.select(userID="user", itemID="item", rating=pl.lit(1.0), timestamp=pl.int_range(pl.len()) + 1_400_000_000, x_label="part")
    frame.write_csv(home / f"{name}.inter", separator="\t")
    return home


def row(system: str, asked: argparse.Namespace, home: Path, data: Path) -> dict[str, Any]:
    """Both sides in turns: first an epoch that is not counted, then `--epochs`."""
    model, settings, theirs = ROWS[system]
    places = asked.work / "sides" / system
    places.mkdir(parents=True, exist_ok=True)
    shared = {"threads": asked.threads, "seed": 0, "cut": "predefined", "epochs": 1}
    a = shared | {"peer": "vitrail", "model": system, "data": str(data.resolve()), "split": "", "settings": SHARED | settings}
    b = shared | {"peer": "mmrec", "model": model, "data": str(home), "split": str(asked.mmrec.resolve()), "settings": theirs}
    deadline = time.monotonic() + asked.cap
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        sides = {
            "ours": stack.enter_context(Side("vitrail", Path(sys.executable), "run_vitrail.py", a, places, {}, deadline)),
            "peer": stack.enter_context(Side("mmrec", asked.python, "run_mmrec.py", b, places, {}, deadline)),
        }
        for who, side in sides.items():
            side.ask("load")
            made = side.ask("build")
            found[who] = {"build": made["wall"]} | {key: made[key] for key in ("batches", "targets", "parameters", "repairs") if key in made}
            side.ask("epochs", n=1)
        times: dict[str, list[dict[str, float]]] = {who: [] for who in sides}
        for _ in range(asked.epochs):
            for who, side in sides.items():
                times[who] += side.ask("epochs", n=1)["epochs"]
        for who, side in sides.items():
            found[who] |= {"epoch": summary(times[who]), "peak_mb": side.peak_mb}
    wall, cpu = ({who: found[who]["epoch"][key]["median"] for who in sides} for key in ("wall", "cpu"))
    found["ratios"] = {
        "seconds": round(wall["peer"] / wall["ours"], 2),
        "processor_seconds": round(cpu["peer"] / cpu["ours"], 2),
        "memory": round(found["ours"]["peak_mb"] / found["peer"]["peak_mb"], 4),
    }
    return found


def parser() -> argparse.ArgumentParser:
    """The flags."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("systems", nargs="*", default=list(ROWS), help=f"out of {', '.join(ROWS)} (default: all)")
    found.add_argument("--mmrec", type=Path, default=os.environ.get("MMREC"), help="a checkout of MMRec (default: the variable MMREC)")
    found.add_argument("--python", type=Path, default=Path(sys.executable), help="the interpreter that runs MMRec (default: this one)")
    found.add_argument("--data", type=Path, help="a folder that comes split; none: a simulated log")
    found.add_argument("--text", type=int, help=f"width of made-up text vectors (default: {WIDTHS['text']})")
    found.add_argument("--image", type=int, help=f"width of made-up image vectors (default: {WIDTHS['image']})")
    found.add_argument("--epochs", type=int, default=5, help="counted epochs of each side (default: 5)")
    found.add_argument("--threads", type=int, default=2, help="of each side (default: 2)")
    found.add_argument("--cap", type=float, default=3600.0, help="seconds a system may take (default: 3600)")
    found.add_argument("--small", action="store_true", help="a tiny log and narrow vectors")
    found.add_argument("--work", type=Path, default=_record.ROOT / "runs" / "bench" / "mmrec", help="where folders and logs are kept")
    return found


def main() -> int:
    """0: every goal is met; 1: one is missed; 2: the request cannot be run."""
    asked = parser().parse_args()
    before = _record.load()
    try:
        if asked.mmrec is None:
            raise DataError("Name a checkout of MMRec by --mmrec FOLDER or the variable MMREC: git clone https://github.com/enoche/MMRec.")
        if unknown := sorted(set(asked.systems) - set(ROWS)):
            raise DataError(f'There is no row "{unknown[0]}": use {", ".join(ROWS)}.')
        home = folder(asked)
        data = ingest([home], out=asked.work / "data" / home.name, overwrite=True).dataset
        cut(data, "predefined", False)  # at its first use a data set puts its events in order, once: that is no part of a fit
        results, goals = {}, []
        for system in asked.systems:
            results[system] = found = row(system, asked, home, data.path)
            told = [f"{found[who]['epoch']['wall']['median']:.2f} s an epoch, {found[who]['peak_mb']:,} MB" for who in ("ours", "peer")]
            print(f"{system}: {told[0]}; MMRec {told[1]}", flush=True)
            goals.append(_record.goal(f"{system}: MMRec's seconds an epoch over ours", found["ratios"]["seconds"], least=2.0))
            goals.append(_record.goal(f"{system}: our peak memory over MMRec's", found["ratios"]["memory"], below=0.7))
    except (VitrailError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    settings = {"folder": home.name, "counts": data.info.counts, "epochs": asked.epochs, "threads": asked.threads}
    settings |= {"rows": {name: {"ours": SHARED | ROWS[name][1], "peer": ROWS[name][2]} for name in results}}
    return _record.save("mmrec" + ("-small" if asked.small else ""), results, goals, before=before, settings=settings)


if __name__ == "__main__":
    sys.exit(main())
