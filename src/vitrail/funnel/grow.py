"""Items added to a fitted system without training it again, where it answers with items that nobody has met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.errors import DataError, SettingError
from vitrail.systems.base import Given, System

if TYPE_CHECKING:
    from vitrail.funnel.recommender import Recommender
    from vitrail.index.base import Index


def with_items(recommender: Recommender, items: pl.DataFrame, vectors: Mapping[str, npt.NDArray[np.floating]]) -> Recommender:
    """A recommender whose catalogue ends with the rows of `items` (the column `item`, and attributes); codes of the old items stay.

    vectors: name -> (n, D), the content of the new items in the order of their rows, by the encoder of the old ones; a row of zeros or of numbers
    that are not finite is an item without that content, as are all where a name is left out. The old recommender is not changed; an index it answers
    through takes the new vectors. Raises SettingError where the system cannot answer with items it never met, DataError where ids or widths do not fit.
    """
    from vitrail.funnel.recommender import Recommender

    model = recommender.model
    if not model.can.cold_items:
        raise SettingError(f'System "{recommender.name}" knows items from training alone and cannot take new ones: fit again, or use one with can.cold_items.')
    strangers = sorted(set(vectors) - set(model.sizes.vectors))
    if strangers:
        raise SettingError(f'System "{recommender.name}" reads no vectors "{strangers[0]}": it reads {", ".join(model.sizes.vectors)}.')
    catalogue = longer_catalogue(recommender, items)
    before, count = model.sizes.items, items.height
    grown, given = grown_model(model, recommender.given, items, vectors)
    log = replace(recommender.known, n_items=before + count)
    made = Recommender(grown, given, log, F.pad(recommender.popularity, (0, count)), catalogue, recommender._users, recommender.info)
    if recommender._through is None:
        return made
    index = recommender._through.index
    add_to_index(index, made, catalogue["item"][before:].to_list())
    return made.with_index(index)


def longer_catalogue(recommender: Recommender, items: pl.DataFrame) -> pl.DataFrame:
    """The catalogue of `recommender` with the rows of `items` behind, as far as it has their columns. Raises DataError for ids that do not fit."""
    added = items.with_columns(pl.col("item").cast(pl.String)) if "item" in items.columns else items
    if "item" not in added.columns or added["item"].is_duplicated().any() or (recommender.item_ids.encode(added["item"]) >= 0).any():
        raise DataError("New items need a column `item` with ids that are not in the catalogue yet, each once.")
    known = [column for column in added.columns if column in recommender.items.columns]
    return pl.concat([recommender.items, added.select(pl.col(c).cast(recommender.items[c].dtype) for c in known)], how="diagonal")


def grown_model(model: System, given: Given, items: pl.DataFrame, vectors: Mapping[str, npt.NDArray[np.floating]]) -> tuple[System, Given]:
    """A system that knows the rows of `items` too, with the weights it has, and what it was given, as long. Raises DataError where widths do not fit."""
    before, count = model.sizes.items, items.height
    given = grown_given(given, before, count, {name: _checked(name, vectors[name], count, model.sizes.vectors[name]) for name in vectors})
    given = replace(given, tables=given.longer_tables(items))
    return model.grown(replace(model.sizes, items=before + count), given), given


def add_to_index(index: Index, grown: Recommender, ids: list[str]) -> None:
    """Put the vectors of the items `ids` into the index of a system that has taken them in."""
    from vitrail.index.exact import ExactIndex

    model, table = grown.model, grown.model.item_vectors()
    assert table is not None
    table = model.finish(table[:, : index.dim]) if index.dim < table.shape[1] else table  # type: ignore[operator]
    there = set(index.ids) if isinstance(index, ExactIndex) else set()
    for put, some in ((index.add, [i for i in ids if i not in there]), (index.replace, [i for i in ids if i in there])):
        if some:
            put(some, table[torch.from_numpy(grown.item_ids.encode(some))].cpu())


def _checked(name: str, values: npt.NDArray[np.floating], count: int, width: int) -> Tensor:
    if values.shape != (count, width):
        raise DataError(f'Vectors "{name}" of the new items have the shape {values.shape}, and {(count, width)} is wanted: encode them as the old ones.')
    return torch.from_numpy(np.array(values, dtype=np.float32))


def grown_given(given: Given, before: int, count: int, fresh: Mapping[str, Tensor]) -> Given:
    """What a system was given, with `count` more items that nobody has met."""
    vectors, masks = {}, {}
    for name, old in given.vectors.items():
        rows = fresh.get(name, torch.zeros(count, old.shape[1]))
        has = rows.isfinite().all(1) & (rows != 0).any(1)
        vectors[name] = torch.cat([old, torch.where(has[:, None], rows, 0.0)])
        masks[name] = torch.cat([given.masks[name], has])
    counts = None if given.item_counts is None else F.pad(given.item_counts, (0, count))
    return replace(given, item_counts=counts, vectors=vectors, masks=masks)
