"""Vectors that were made elsewhere, put beside the tables of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vitrail.data.dataset import Dataset
from vitrail.data.vectors import ContentKind, write_vectors
from vitrail.errors import DataError


def bring(
    data: str | Path | Dataset,
    name: str,
    file: str | Path,
    *,
    ids: str | Path | None = None,
    kind: ContentKind = "other",
    encoder: str = "import",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Take the rows of a `.npy` file (M, D) as vectors `name`. `ids`: a file with the item id of each row, one a line (or a Parquet file's first
    column); none: row n is of the item "n", as in MMRec's `image_feat.npy` and `text_feat.npy`. Rows of zeros are items without content.

    Returns name, encoder, dim, kind, items, without (items without a row), zeros and strangers (rows left out). Raises DataError where a file is
    absent or no array of finite numbers, or where rows and ids or items do not match.
    """
    dataset = data if isinstance(data, Dataset) else Dataset(data)
    try:
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"There is no file {file}.") from None
    except (OSError, ValueError, EOFError):
        raise DataError(f"{file} is no array of numpy (.npy, without pickled objects): save it with numpy.save.") from None
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise DataError(f"{file} holds {values.dtype} of the shape {values.shape}: vectors are floats (rows, width).")
    outside = pl.Series([str(n) for n in range(len(values))], dtype=pl.String) if ids is None else read_ids(ids)
    if len(outside) != len(values):
        raise DataError(f"{ids} names {len(outside):,} items, and {file} has {len(values):,} rows: there must be an id a row.")
    known = dataset.item_ids.encode(outside) >= 0
    if not known.any():
        hint = "say with --ids FILE which item each row is of" if ids is None else "the ids must be those of items.parquet"
        raise DataError(f'No row of {file} is of an item of data set "{dataset.info.name}": {hint}.')
    zero = ~np.asarray(values != 0).any(1)
    keep = np.flatnonzero(known & ~zero)
    info = write_vectors(dataset.path, name, values[keep], outside.gather(keep), encoder=encoder, kind=kind, overwrite=overwrite)
    return {
        "name": name, "encoder": info.encoder, "dim": info.dim, "kind": info.kind, "items": info.rows, "without": len(dataset.items) - info.rows,
        "zeros": int((known & zero).sum()), "strangers": int((~known).sum()),
    }  # fmt: skip


def read_ids(file: str | Path) -> pl.Series:
    """(M,) ids of rows: the lines of a text file, or the first column of a Parquet file. Raises DataError where it cannot be read."""
    path = Path(file)
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path).to_series(0).cast(pl.String)
        return pl.Series(path.read_text(encoding="utf-8-sig").splitlines(), dtype=pl.String).str.strip_chars()
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError):
        raise DataError(f"{path} is no list of ids: write one id a line, or a Parquet file.") from None
