"""What each field is worth to a fitted ranker: what AUC and GAUC lose when its values change places (Breiman, 2001; permutation importance)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vitrail.blocks.features import ContentFields, FeatureEmbedding
from vitrail.blocks.modality import UnitStore
from vitrail.data.batchers_rows import in_order
from vitrail.data.fields import Catalogue, Field
from vitrail.data.impressions import Rows
from vitrail.evaluation import binary
from vitrail.systems.ranker import Ranker

MOST = 50_000
"""Rows on which importance is measured; of more, so many are drawn."""
HISTORY = "history"


def importance(model: Ranker, rows: Rows, *, seed: int = 0, repeats: int = 1, most: int = MOST) -> dict[str, dict[str, float]]:
    """Field -> {auc, gauc} lost, the mean of `repeats` drawings, for `rows` with their fields and a model in evaluation mode.

    Fields of the impression change places among rows, attributes and content among items or users, and the histories, as `history`, among rows.
    """
    rng = np.random.default_rng(seed)
    if len(rows) > most:
        chosen = np.zeros(len(rows), dtype=bool)
        chosen[rng.choice(len(rows), most, replace=False)] = True
        rows = rows.where(chosen)
    whole = _measured(model, rows)
    losses: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeats):
        for name, found in _changed(model, rows, rng):
            losses.setdefault(name, []).append({key: whole[key] - found[key] for key in whole if key in found})
    return {name: {key: round(float(np.mean([one[key] for one in drawn if key in one])), 6) for key in drawn[0]} for name, drawn in losses.items()}


def _measured(model: Ranker, rows: Rows, logits: Any = None) -> dict[str, float]:
    scores = (model.predict(rows) if logits is None else logits).numpy()
    found = {name: binary.chosen_by(name, rows.labels > 0.5, scores, rows.users) for name in ("auc", "gauc")}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _changed(model: Ranker, rows: Rows, rng: np.random.Generator) -> Iterator[tuple[str, dict[str, float]]]:
    """Field after field: its name, and the metrics with its values in other places."""
    assert rows.fields is not None
    for place, f in enumerate(model.spec.owned("event")):
        fields = rows.fields.copy()
        fields[:, place] = fields[rng.permutation(len(rows)), place]
        yield f.name, _measured(model, replace(rows, fields=fields))
    for f in (*model.spec.owned("item"), *model.spec.owned("user")):
        with _moved(model, f, rng):
            yield f.name, _measured(model, rows)
    for name in model.sizes.vectors:
        with _moved_content(model, name, rng):
            yield name, _measured(model, rows)
    yield HISTORY, _measured(model, rows, _other_histories(model, rows, rng.permutation(len(rows))))


@torch.no_grad()
def _other_histories(model: Ranker, rows: Rows, order: Any) -> torch.Tensor:
    """(R,) logits where each row has the history of another; who asks stays."""
    logits = torch.empty(len(rows))
    for chosen, batch in in_order(replace(rows, users=rows.users[order], stops=rows.stops[order]), model.config.length):
        batch = replace(batch, users=torch.from_numpy(rows.users[chosen]))
        logits[torch.from_numpy(chosen)] = model.logit(batch.to(model.device)).float().cpu()
    return logits


@contextmanager
def _moved(model: Ranker, f: Field, rng: np.random.Generator) -> Iterator[None]:
    """The values of an attribute among items, or users, in other places; the ranker as it was afterwards."""
    source, catalogue = model.source, model.source.catalogue
    buffers: dict[str, torch.Tensor] = {}
    if f.kind == "categories":
        lists = {**catalogue.lists, f.name: catalogue.lists[f.name][rng.permutation(len(catalogue.items))]}
        moved = replace(catalogue, lists=lists)
        buffers[f"list_{list(catalogue.lists).index(f.name)}"] = torch.from_numpy(lists[f.name])
    else:
        table = (catalogue.items if f.whose == "item" else catalogue.users).copy()
        n = len(table) - (f.whose == "user")  # the stranger stays one
        place = [own.name for own in model.spec.owned(f.whose) if own.kind != "categories"].index(f.name)
        table[:n, place] = table[rng.permutation(n), place]
        moved = replace(catalogue, items=table) if f.whose == "item" else replace(catalogue, users=table)
        buffers["item_codes" if f.whose == "item" else "user_codes"] = torch.from_numpy(table)
    with _exchanged(model, FeatureEmbedding, buffers):
        _show(model, source, moved)
        try:
            yield
        finally:
            model.source = source


def _show(model: Ranker, source: Any, catalogue: Catalogue) -> None:
    model.source = replace(source, catalogue=catalogue)


@contextmanager
def _moved_content(model: Ranker, name: str, rng: np.random.Generator) -> Iterator[None]:
    """The content vectors of a name among items in other places."""
    order = torch.from_numpy(rng.permutation(model.sizes.items))
    kept = getattr(model, "content", None)  # of a ranker that reads them itself
    if isinstance(kept, dict) and name in kept:
        before = kept[name]
        kept[name] = (before[0][order], before[1][order])
        try:
            yield
        finally:
            kept[name] = before
        return
    for kind, parts in ((ContentFields, ("values", "mask")), (UnitStore, ("values", "scale"))):
        part = next((part for part in model.modules() if isinstance(part, kind) and name in part.names), None)
        if part is not None:
            keys = [f"{key}_{part.names.index(name)}" for key in parts]
            with _exchanged(model, kind, {key: part.get_buffer(key)[order.to(model.device)] for key in keys}):
                yield
            return
    yield


@contextmanager
def _exchanged(model: Ranker, kind: type, buffers: dict[str, torch.Tensor]) -> Iterator[None]:
    """The buffers of every part of that kind replaced, and put back."""
    parts = [part for part in model.modules() if isinstance(part, kind)]
    before = [{name: part.get_buffer(name) for name in buffers} for part in parts]
    try:
        for part, old in zip(parts, before, strict=True):
            for name, value in buffers.items():
                setattr(part, name, value.to(old[name].device))
        yield
    finally:
        for part, old in zip(parts, before, strict=True):
            for name, value in old.items():
                setattr(part, name, value)
