"""Features beside events, as MMRec's folders have them: `text_feat.npy`, `image_feat.npy`, whose row n is of the item n.

They become vectors of the data set, in the order of its items and with the number format they came in, so that float32 is memory-mapped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.data.vectors import ContentKind, write_vectors
from vitrail.errors import DataError

FEATURES = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_-]*)_feat\.npy$")
KINDS: dict[str, ContentKind] = {"text": "text", "image": "image"}


def open_features(path: Path) -> npt.NDArray[np.generic]:
    """The rows (M, D) of numbers in a `.npy` file, memory-mapped. Raises DataError where it holds anything else."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise DataError(f"{path} is no array of numpy (.npy, without pickled objects): save it with numpy.save, or take it out of the folder.") from None
    numbers = np.issubdtype(values.dtype, np.floating) or np.issubdtype(values.dtype, np.integer)
    if values.ndim != 2 or not numbers or not values.shape[1]:
        raise DataError(f"{path} holds {values.dtype} of the shape {values.shape}: features are numbers (rows, width); take it out of the folder.")
    return values


def check_features(features: Mapping[str, Path], items: pl.Series) -> None:
    """Raises DataError where `items`, outside ids of all events, are no whole numbers from 0, or a file has not a row for each of them."""
    if not features:
        return
    codes = items.unique().cast(pl.Int64, strict=False)
    file = next(iter(features.values()))
    if codes.null_count() or int(codes.min()) < 0:  # type: ignore[arg-type]
        raise DataError(
            f'{file} has a row for each item by its number, and the item "{items.filter(items.cast(pl.Int64, strict=False).fill_null(-1) < 0)[0]}" has none: '
            "take it out of the folder and bring it with `vitrail content import DATA --ids FILE`."
        )
    wanted = int(codes.max()) + 1  # type: ignore[arg-type]
    for path in features.values():
        rows = len(open_features(path))
        if rows != wanted:
            raise DataError(f"{path} has {rows:,} rows, and the items of the events are numbered 0 to {wanted - 1:,}: there must be {wanted:,} rows.")


def write_features(features: Mapping[str, Path], folder: Path, item_ids: pl.Series) -> None:
    """Put the rows of the items `item_ids` (N,), in this order, into the data set in `folder`. A row of zeros is an item without content.

    Raises DataError where a number is not finite.
    """
    for name, path in features.items():
        values, rows = open_features(path), item_ids.cast(pl.Int64, strict=False)
        there = (rows.is_not_null() & (rows >= 0) & (rows < len(values))).fill_null(False)
        places = rows.filter(there).to_numpy()
        has = np.concatenate([(values[part] != 0).any(1) for part in np.array_split(places, len(places) // 4096 + 1)])
        kept = values[places[has]]
        kept = kept if np.issubdtype(kept.dtype, np.floating) else kept.astype(np.float32)
        ids = item_ids.filter(there).filter(pl.Series(has))
        write_vectors(folder, name, kept, ids, encoder="import", kind=KINDS.get(name, "other"), overwrite=True)
