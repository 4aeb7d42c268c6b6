"""Content vectors of items: files beside the tables of a data set, aligned to items by outside ids.

vectors/<name>.npy (M, D) floats, vectors/<name>.ids.parquet the outside id of each row, vectors/<name>.json what made them.
An item without content has no row: it is told by a mask, never by a zero row that passes for content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.config import PositiveInt, Settings
from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import ArtifactError, DataError, SettingError, did_you_mean
from vitrail.files import atomic_file, fingerprint, read_json, sha256, write_json

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
ContentKind = Literal["text", "image", "other"]

FOLDER = "vectors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class VectorsInfo(Settings):
    """`vectors/<name>.json`: what made the vectors, and the checksums of their two files."""

    encoder: str
    """name of what made them; `import` where a user brought them"""
    revision: str = ""
    """version of the encoder, down to its weights"""
    dim: PositiveInt
    kind: ContentKind = "other"
    columns: list[str] = []
    """item attributes that were read"""
    settings: dict[str, Any] = {}
    """of the encoder"""
    rows: int
    sha256: str
    """of <name>.npy"""
    ids_sha256: str
    """of <name>.ids.parquet"""

    @property
    def identity(self) -> str:
        """Changes with any value and with any alignment."""
        return fingerprint([self.sha256, self.ids_sha256])


@dataclass(frozen=True)
class Vectors:
    """Content vectors in item-code order. N items, D width."""

    name: str
    values: Float32
    """(N, D); rows without content are 0 and mean nothing. Memory-mapped where the file has this order"""
    mask: Bool
    """(N,) true where the item has content"""
    info: VectorsInfo


def check_name(name: str) -> str:
    """The name itself. Raises SettingError where it is no plain word."""
    if not _NAME.fullmatch(name):
        raise SettingError(f'"{name}" is no name for vectors: use letters, digits, _ and -.')
    return name


def vector_names(folder: Path) -> list[str]:
    """Names of the vectors of the data set in `folder`."""
    return sorted(file.stem for file in (folder / FOLDER).glob("*.json"))


def read_info(folder: Path, name: str) -> VectorsInfo:
    """What made the vectors `name`. Raises DataError where there are none of that name, ArtifactError where the record is damaged."""
    names = vector_names(folder)
    if name not in names:
        hint = did_you_mean(name, names) if names else " Make some with `vitrail content encode`."
        raise DataError(f'{folder} has no vectors "{name}".{hint}')
    file = folder / FOLDER / f"{name}.json"
    try:
        return VectorsInfo.of(read_json(file), where=str(file))
    except (SettingError, TypeError, ValueError):
        raise ArtifactError(f"{file} is damaged: it does not say what made the vectors; encode or import them again.") from None


def read_vectors(folder: Path, name: str, item_ids: Vocabulary) -> Vectors:
    """The vectors `name` in the order of `item_ids`. Raises DataError where they are absent or belong to other items,
    ArtifactError where their files do not belong together."""
    info = read_info(folder, name)
    file, ids_file = folder / FOLDER / f"{name}.npy", folder / FOLDER / f"{name}.ids.parquet"
    try:
        values = np.load(file, mmap_mode="c", allow_pickle=False)  # torch reads such a map where it lies, and nothing is written back
        ids = pl.read_parquet(ids_file).to_series(0)
    except (OSError, ValueError, EOFError, pl.exceptions.PolarsError):
        raise ArtifactError(f"The vectors {file} or their ids are missing or damaged: encode or import them again.") from None
    if values.ndim != 2 or values.shape != (len(ids), info.dim) or not np.issubdtype(values.dtype, np.floating):
        raise ArtifactError(f"{file} does not hold {len(ids)} rows of {info.dim} numbers, as its record says: encode or import the vectors again.")
    codes = item_ids.encode(ids)
    known = codes >= 0
    if len(ids) and not known.any():
        raise DataError(f"{ids_file} names none of the items of this data set: encode or import the vectors again.")
    mask = np.zeros(len(item_ids), dtype=bool)
    mask[codes[known]] = True
    if values.dtype == np.float32 and len(codes) == len(item_ids) and np.array_equal(codes, np.arange(len(codes))):
        return Vectors(name, values, mask, info)
    placed = np.zeros((len(item_ids), info.dim), dtype=np.float32)
    placed[codes[known]] = values[known]
    return Vectors(name, placed, mask, info)


def verify_vectors(folder: Path, name: str) -> VectorsInfo:
    """Raises ArtifactError where a file of the vectors `name` does not have its recorded checksum."""
    info = read_info(folder, name)
    for file, digest in ((f"{name}.npy", info.sha256), (f"{name}.ids.parquet", info.ids_sha256)):
        path = folder / FOLDER / file
        if not path.exists() or sha256(path) != digest:
            raise ArtifactError(f"{path} does not have its recorded checksum: it was changed or damaged; encode or import the vectors again.")
    return info


def write_vectors(
    folder: Path,
    name: str,
    values: npt.NDArray[np.floating],
    ids: Sequence[str] | pl.Series,
    *,
    encoder: str,
    revision: str = "",
    kind: ContentKind = "other",
    columns: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> VectorsInfo:
    """Put vectors (M, D) of the items `ids` (M,) into the data set in `folder`; the record is written last, so half-written ones do not exist.

    Raises SettingError for a bad name, DataError where rows and ids disagree, an id comes twice, a number is not finite, or
    vectors of another encoder have that name already (`overwrite` replaces them).
    """
    check_name(name)
    series = (ids if isinstance(ids, pl.Series) else pl.Series(list(ids), dtype=pl.String)).cast(pl.String).rename("item")
    if values.ndim != 2 or len(values) != len(series) or not values.shape[1]:
        raise DataError(f'Vectors "{name}" have the shape {values.shape}, and there are {len(series)} ids: there must be a row an id.')
    if series.is_duplicated().any() or series.null_count():
        twice = series.filter(series.is_duplicated())
        raise DataError(f'The ids of vectors "{name}" name {twice[0] if len(twice) else "an empty id"} more than once: there must be a row an item.')
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise DataError(f'Vectors "{name}" hold a number that is not finite, first for the item {series[row]}: leave out items without content.')
    if not overwrite and name in vector_names(folder):
        same_encoder(read_info(folder, name), name, encoder, revision, values.shape[1])
    target = folder / FOLDER
    (target / f"{name}.json").unlink(missing_ok=True)
    with atomic_file(target / f"{name}.npy") as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(values))
    with atomic_file(target / f"{name}.ids.parquet") as temporary:
        series.to_frame().write_parquet(temporary)
    info = VectorsInfo(
        encoder=encoder, revision=revision, dim=values.shape[1], kind=kind, columns=list(columns), settings=dict(settings or {}),
        rows=len(values), sha256=sha256(target / f"{name}.npy"), ids_sha256=sha256(target / f"{name}.ids.parquet"),
    )  # fmt: skip
    write_json(target / f"{name}.json", info.model_dump(mode="json"))
    return info


def same_encoder(info: VectorsInfo, name: str, encoder: str, revision: str, dim: int) -> None:
    """Raises DataError where the vectors `name` were made by another encoder: vectors of two spaces must not mix."""
    theirs, ours = (info.encoder, info.revision, info.dim), (encoder, revision, dim)
    if theirs != ours:
        told = " and ".join(f"{e} ({r or 'no revision'}, {d} wide)" for e, r, d in (theirs, ours))
        raise DataError(f'Vectors "{name}" are there from another encoder ({told}): choose another --name, or replace them with --overwrite.')
