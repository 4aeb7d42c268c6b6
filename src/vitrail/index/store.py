"""An index on disk: a folder with a manifest, vectors that are memory-mapped, rows and attributes; no pickle.

manifest.json    format, kind, metric, dim, count, number type, source, the recall measured, SHA-256 of each file
vectors.npy      (n, D), the dead rows too          rows.parquet     id, birth, alive, hash of each row
attributes.parquet   what conditions are tested on   structure.faiss  the engine of the approximate kinds
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from vitrail.errors import ArtifactError, unknown
from vitrail.files import atomic_folder, check_files, read_json, sha256, write_json
from vitrail.index.base import Index
from vitrail.index.rows import Rows

FORMAT = 1
MANIFEST = "manifest.json"
E = TypeVar("E")


def save_index(index: Any, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a local index as a folder, atomically. Raises DataError where `path` is taken, ResourceError where the disk is full."""
    rows = index.rows
    n = rows.n
    with atomic_folder(path, overwrite=overwrite) as folder:
        np.save(folder / "vectors.npy", index._vectors[:n])
        table = {"id": pl.Series(rows.names[:n].tolist(), dtype=pl.String), "birth": rows.births[:n], "alive": rows.alive[:n], "hash": rows.hashes[:n]}
        pl.DataFrame(table).write_parquet(folder / "rows.parquet")
        if index.attributes is not None:
            index.attributes.write_parquet(folder / "attributes.parquet")
        index._write(folder)
        write_manifest(folder, index.stats())


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """The manifest over the files that lie in `folder`."""
    files = {file.name: sha256(file) for file in sorted(folder.iterdir())}
    write_json(folder / MANIFEST, {"format": FORMAT, **facts, "versions": {"vitrail": version("vitrail"), "numpy": version("numpy")}, "files": files})


def read_manifest(path: str | Path, *, verify: bool = True) -> dict[str, Any]:
    """The manifest of an index folder, its files checked. Raises ArtifactError where it is absent, incomplete, damaged or newer."""
    folder = Path(path)
    if not (folder / MANIFEST).exists():
        raise ArtifactError(f"There is no index at {folder}: make one with `vitrail index build RUN --out {folder}`.")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int) or not isinstance(manifest.get("files"), dict) or "kind" not in manifest:
        raise ArtifactError(f"{folder / MANIFEST} is damaged, or no manifest of an index: build the index again.")
    if manifest["format"] > FORMAT:
        raise ArtifactError(f"{folder} was written by a newer Vitrail (index format {manifest['format']}, this one reads {FORMAT}): upgrade Vitrail.")
    check_files(folder, manifest["files"], "build the index again", verify=verify)
    return manifest


def open_index(path: str | Path, *, verify: bool = True) -> Index:
    """Open an index of any kind; vectors and structure are memory-mapped. `verify=False` skips the checksums.

    Raises ArtifactError where it is absent, incomplete, damaged, newer, or of an unknown kind.
    """
    from vitrail.index.ann import AnnIndex
    from vitrail.index.exact import ExactIndex
    from vitrail.index.remote import MilvusIndex

    manifest = read_manifest(path, verify=verify)
    kind = manifest["kind"]
    if kind in MilvusIndex.kinds:
        return MilvusIndex.of(manifest, _attributes(Path(path)), os.environ.get("VITRAIL_MILVUS_TOKEN", ""))
    engines: tuple[type[ExactIndex], ...] = (ExactIndex, AnnIndex)
    engine = next((engine for engine in engines if kind in engine.kinds), None)
    if engine is None:
        raise ArtifactError(f"{Path(path) / MANIFEST}: {unknown('kind of index', kind, [k for e in engines for k in e.kinds])}")
    return _local(engine, Path(path), manifest)


def open_index_as(engine: type[E], path: str | Path) -> E:
    """The index at `path`, which must be of this engine. Raises ArtifactError."""
    index = open_index(path)
    if type(index) is not engine:
        raise ArtifactError(f"{path} holds an index of the kind {index.kind}: open it with vitrail.index.store.open_index.")
    return index


def _attributes(folder: Path) -> pl.DataFrame | None:
    file = folder / "attributes.parquet"
    return pl.read_parquet(file) if file.exists() else None


def _local(engine: Any, folder: Path, manifest: dict[str, Any]) -> Index:
    try:
        # copy on write: what is changed stays in memory, the file is never touched
        vectors = np.load(folder / "vectors.npy", mmap_mode="c" if manifest["count"] else None, allow_pickle=False)
        table = pl.read_parquet(folder / "rows.parquet")
        arrays = {"births": table["birth"].to_numpy().copy(), "alive": table["alive"].to_numpy().copy(), "hashes": table["hash"].to_numpy().copy()}
        rows = Rows(table["id"].to_list(), **arrays)
        if vectors.shape != (rows.n, manifest["dim"]) or str(vectors.dtype) != manifest["dtype"] or len(rows) != manifest["count"]:
            raise ValueError
        return engine._read(folder, manifest, rows, vectors, _attributes(folder))  # type: ignore[no-any-return]
    except (ValueError, KeyError, OSError, EOFError, RuntimeError, pl.exceptions.PolarsError):
        raise ArtifactError(f"{folder} is damaged: its files do not belong together; build the index again or restore it.") from None
