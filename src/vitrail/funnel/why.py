"""Why an item is on the page: which items of the history carried it, which part of the system, and which items beside it. Each labelled by the system
that tells it.

`attention`: what a sequence system or ranker read of each event when it answered, shares that sum to 1 over the whole history. `history`: the items of
the history that are most like the recommended one by a system's own similarity, which says what is close, not what was used. `parts`: what behaviour and
each kind of content added to the score; they sum to it. `neighbours`: the items of alike content through which the score came, with what each added.
Letters: B histories, K items, T events, M neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import polars as pl
import torch
from torch import Tensor

from vitrail.data.batches import Sets

TOLD = 3
"""Items of the history that are told for each recommended one."""


@runtime_checkable
class Attends(Protocol):
    """A system whose answer to everything reads the history with one set of weights."""

    def attention(self, histories: Sets) -> tuple[Tensor, Tensor] | None:
        """B histories -> (B, T) events, -1 where none is, and (B, T) weights that sum to 1; none where it has no attention."""
        ...


@runtime_checkable
class AttendsItems(Protocol):
    """A ranker that reads the history anew for each candidate."""

    def attention_to(self, histories: Sets, items: Tensor) -> tuple[Tensor, Tensor] | None:
        """B histories, items (B, K) -> (B, T) events, -1 where none is, and (B, K, T) weights."""
        ...


@runtime_checkable
class Adds(Protocol):
    """A system whose score is a sum of what behaviour and each kind of content add."""

    def parts(self, histories: Sets, items: Tensor) -> dict[str, Tensor]:
        """B histories, items (B, K) -> part -> (B, K) what it adds; they sum to the scores."""
        ...


@runtime_checkable
class Leans(Protocol):
    """A system in which an item leans on others, as on a graph of alike items."""

    def leant_on(self, histories: Sets, items: Tensor) -> tuple[Tensor, Tensor]:
        """One history, items (1, K) -> (K, M) the items each leans on, -1 where there is none, and (K, M) what each of them adds to the score."""
        ...


def carried(rows: Sequence[dict[str, Any]], codes: Tensor, history: Sets, ids: pl.Series, models: Iterable[tuple[str, Any]]) -> None:
    """Adds to the `why` of each of K `rows` (items `codes`, (K,)) what carried it: `attention` and `attention_by`, `history` and `history_by`, and of
    systems that can tell `parts` and `parts_by`, `neighbours` and `neighbours_by`.

    `history`: one history, as it was answered. `models`: name and system, the first that is able gives each of the two. Without events nothing is added.
    """
    if not len(history.items) or not len(codes):
        return
    models = list(models)
    for name, model in models:
        if (found := _attention(model, history, codes)) is not None:
            _tell(rows, "attention", "weight", name, *found, ids)
            break
    for name, model in models:
        if getattr(getattr(model, "can", None), "similar", False):
            unique = history.items.unique()
            _tell(rows, "history", "similarity", name, unique, model.similarity(codes).cpu()[:, unique], ids)
            break
    for name, model in models:
        if isinstance(model, Adds):
            values = {part: added[0].tolist() for part, added in model.parts(history, codes[None]).items()}
            for place, row in enumerate(rows):
                told = [{"part": part, "score": added[place]} for part, added in values.items()]
                row["why"] = {**(row["why"] or {}), "parts": sorted(told, key=lambda one: -one["score"]), "parts_by": name}
            break
    for name, model in models:
        if isinstance(model, Leans):
            _tell_neighbours(rows, name, *model.leant_on(history, codes[None]), ids)
            break


def _attention(model: Any, history: Sets, codes: Tensor) -> tuple[Tensor, Tensor] | None:
    """(T',) distinct items of the history, and (K, T') what was read of each for each item."""
    if isinstance(model, AttendsItems):
        found = model.attention_to(history, codes[None])
        if found is None:
            return None
        events, weights = found[0][0], found[1][0]
    elif isinstance(model, Attends):
        found = model.attention(history) if bool(model.answerable(history).all()) else None  # type: ignore[attr-defined]
        if found is None:
            return None
        events, weights = found[0][0], found[1][0].expand(len(codes), -1)
    else:
        return None
    there = events >= 0
    unique, place = events[there].unique(return_inverse=True)
    return unique, torch.zeros(len(codes), len(unique)).index_add_(1, place, weights[:, there].float().cpu())


def _tell(rows: Sequence[dict[str, Any]], key: str, measure: str, by: str, items: Tensor, values: Tensor, ids: pl.Series) -> None:
    best, places = values.topk(min(TOLD, len(items)), dim=1)
    for row, value, place in zip(rows, best.tolist(), items[places].tolist(), strict=True):
        told = [{"item": ids[code], measure: one} for code, one in zip(place, value, strict=True)]
        row["why"] = {**(row["why"] or {}), key: told, f"{key}_by": by}


def _tell_neighbours(rows: Sequence[dict[str, Any]], by: str, items: Tensor, values: Tensor, ids: pl.Series) -> None:
    best, places = values.masked_fill(items < 0, -torch.inf).topk(min(TOLD, items.shape[1]), dim=1)
    for row, value, place in zip(rows, best.tolist(), items.gather(1, places).tolist(), strict=True):
        told = [{"item": ids[code], "score": one} for code, one in zip(place, value, strict=True) if code >= 0]
        row["why"] = {**(row["why"] or {}), "neighbours": told, "neighbours_by": by}
