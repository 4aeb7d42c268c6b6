"""Refreshing a run: the same system on a log that has grown, from the weights it had.

Users and items are matched by their outside ids, so vocabularies may have grown, shrunk and changed order. Which rows of which weights belong
to users and items is found by building the system thrice: as it was, with a user more, and with an item more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from vitrail.data.dataset import Dataset
from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import SettingError
from vitrail.funnel.recommender import Recommender, load
from vitrail.systems.base import Given, Sizes, System
from vitrail.train.fit import FitResult, fit, recorded_split

OVERLAP = 10
"""Length of the lists that are compared."""


@dataclass(frozen=True)
class Moves:
    """Where users and items were: old codes (U,) and (N,) by new code, -1 for who is new."""

    users: Tensor
    items: Tensor


def moves(old: Recommender, data: Dataset) -> Moves:
    """The old code of every user and item of `data`."""
    return Moves(torch.from_numpy(old.user_ids.encode(data.user_ids.ids)), torch.from_numpy(old.item_ids.encode(data.item_ids.ids)))


def warm(old: Recommender, data: Dataset) -> Callable[[System], None]:
    """A function that fills the weights of a fresh system over `data` with those of `old`; who is new keeps the fresh ones."""
    moved, roles = moves(old, data), _roles(old)
    weights = old.model.state_dict()

    def fill(model: System) -> None:
        fresh = model.state_dict()
        for name, role in roles.items():
            if name in fresh and name in weights:
                fresh[name] = _moved(weights[name], fresh[name], role, moved)
        model.load_state_dict(fresh)

    return fill


def _roles(old: Recommender) -> dict[str, tuple[str | None, ...]]:
    """Weight -> for each of its axes "users", "items" or none; weights whose shape tells more than that are left out."""
    model, sizes = old.model, old.model.sizes
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()}]
    for more in (Sizes(sizes.users + 1, sizes.items, sizes.vectors), Sizes(sizes.users, sizes.items + 1, sizes.vectors)):
        other = type(model)(model.config, more, _wider(old.given, more, sizes.items))
        shapes.append({name: tensor.shape for name, tensor in other.state_dict().items()})
    found = {}
    for name, shape in shapes[0].items():
        if not all(name in other and len(other[name]) == len(shape) for other in shapes):
            continue
        axes = [(a, b - a, c - a) for a, b, c in zip(shape, shapes[1][name], shapes[2][name], strict=True)]
        kinds = {(0, 0): None, (1, 0): "users", (0, 1): "items"}
        if all((user, item) in kinds for _, user, item in axes):
            found[name] = tuple(kinds[user, item] for _, user, item in axes)
    return found


def _wider(given: Given, sizes: Sizes, before: int) -> Given:
    """`given` of `before` items with users and items that have no events and no content, up to `sizes`."""

    def longer(rows: Tensor) -> Tensor:
        return torch.cat([rows, rows.new_zeros(sizes.items - len(rows), *rows.shape[1:])])

    changed: dict[str, Any] = {kind: {name: longer(rows) for name, rows in getattr(given, kind, {}).items()} for kind in ("vectors", "masks")}
    changed = {kind: rows for kind, rows in changed.items() if rows}
    changed["tables"] = given.longer_tables(pl.DataFrame({"item": [""] * max(sizes.items - before, 0)}, schema={"item": pl.String}))
    if given.indptr is not None:
        changed["indptr"] = torch.cat([given.indptr, given.indptr[-1:].expand(sizes.users + 1 - len(given.indptr))])
    if given.item_counts is not None:
        changed["item_counts"] = longer(given.item_counts)
    return replace(given, **changed)


def _moved(old: Tensor, fresh: Tensor, role: tuple[str | None, ...], moved: Moves) -> Tensor:
    """`fresh` with the entries of `old` whose users and items are still there; rows after the last of them (padding, mask) are counted from the end."""
    picked, known = old, torch.ones(fresh.shape, dtype=torch.bool)
    for axis, kind in enumerate(role):
        if kind is None:
            continue
        codes = moved.users if kind == "users" else moved.items
        extra = fresh.shape[axis] - len(codes)
        where = torch.cat([codes, torch.arange(old.shape[axis] - extra, old.shape[axis])])
        picked = picked.index_select(axis, where.clamp(min=0))
        known &= (where >= 0).view([-1 if place == axis else 1 for place in range(fresh.dim())])
    return torch.where(known, picked, fresh)


def update(
    run: str | Path,
    data: str | Path | Dataset,
    out: str | Path,
    *,
    epochs: int | None = None,
    check: bool = True,
    overwrite: bool = False,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Fit the system of `run` on `data`, the whole log as it is now, from the weights of `run`, and save it in `out`.

    Settings, split and seed are those of the run, cut anew from the data; `epochs` at most. `check` fits from nothing too and measures both on
    the same validation part. -> {system, users and items: {kept, new, gone}, metric, fits: [{fit, epochs, seconds, value}], overlap@10, weights, run}
    Raises SettingError where `out` is the run itself, and as `fit`.
    """
    if Path(out).resolve() == Path(run).resolve():
        raise SettingError(f"{out} is the run itself: write the updated one beside it, and switch the service to it when it is good.")
    old = load(run)
    dataset = data if isinstance(data, Dataset) else Dataset(data)
    info, trained = old.info, old.model.trained
    settings = dict(info["config"])
    shorter = settings | ({"epochs": epochs} if epochs is not None and trained else {})
    asked: dict[str, Any] = {
        "split": recorded_split(info["split"]), "protocol": info["protocol"]["name"], "seed": info["seed"], "refit": bool(info["protocol"].get("refit")),
    }  # fmt: skip
    name = info["system"]
    start = warm(old, dataset) if trained else None
    new = fit(name, dataset, out=out, overwrite=overwrite, settings=shorter, device=device, quiet=quiet, start=start, **asked)
    metric = str(settings.get("metric", "ndcg@10"))
    fits, overlap = [_row("updated", new, metric)], None
    if check:
        full = fit(name, dataset, settings=settings, device=device, quiet=quiet, **asked)
        fits.append(_row("from nothing", full, metric))
        overlap = overlap_of(new.recommender, full.recommender)
    told = "It went on from the weights of the old run." if trained else f'System "{name}" is learned at once, so there were no weights to go on from.'
    counts = {"users": _counts(old.user_ids, dataset.user_ids), "items": _counts(old.item_ids, dataset.item_ids)}
    return {"system": name, **counts, "metric": metric, "fits": fits, "overlap@10": overlap, "weights": told, "run": str(out)}


def _row(fit: str, result: FitResult, metric: str) -> dict[str, Any]:
    validation = result.recommender.info.get("validation") or {"metrics": {}}
    value = validation["metrics"].get(metric)
    return {"fit": fit, "epochs": result.recommender.info["epochs"], "seconds": result.recommender.info["seconds"], "value": value}


def _counts(old: Vocabulary, new: Vocabulary) -> dict[str, int]:
    kept = int((old.encode(new.ids) >= 0).sum())
    return {"kept": kept, "new": len(new) - kept, "gone": len(old) - kept}


def overlap_of(a: Recommender, b: Recommender, most: int = 2000) -> float | None:
    """Mean share that the top-10 lists of two systems over the same data have in common, over up to `most` users with events; none without any."""
    users = [user for user, length in zip(a.user_ids.ids, a.known.lengths, strict=True) if length][:most]
    if not users:
        return None
    lists = [one.recommend(users=users, k=OVERLAP).select("query", "item") for one in (a, b)]
    longest = max(len(one) for one in lists)
    return len(lists[0].join(lists[1], on=["query", "item"])) / longest if longest else None
