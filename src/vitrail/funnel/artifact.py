"""The saved form of a fitted system: a folder of safetensors, JSON and Parquet that loads without the data set.

manifest.json       format, system, config, data and split, protocol, metrics, versions, memory, checksums
model.safetensors   weights        given.safetensors   the train-only facts and the content it was built on
known.safetensors   histories that may be known when it answers (never the test part), and popularity
items.parquet       the catalogue in code order        users.parquet       user ids in code order
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from vitrail.data.log import Log
from vitrail.errors import ArtifactError, SettingError
from vitrail.files import atomic_folder, check_files, read_json, sha256, write_json
from vitrail.systems import registry
from vitrail.systems.base import Given, Sizes, System
from vitrail.train.checkpoint import load_tensors, save_tensors

FORMAT = 1
MANIFEST = "manifest.json"


def versions() -> dict[str, str]:
    """What made an artifact."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("vitrail", "torch", "numpy", "polars")}


def known_tensors(known: Log, popularity: Tensor) -> dict[str, Tensor]:
    """Histories and popularity as named tensors."""
    tensors = {"indptr": torch.from_numpy(np.array(known.indptr)), "items": torch.from_numpy(np.array(known.items)), "popularity": popularity}
    if known.times is not None:
        tensors["times"] = torch.from_numpy(np.array(known.times))
    if known.weights is not None:
        tensors["weights"] = torch.from_numpy(np.array(known.weights))
    return tensors


def known_log(tensors: dict[str, Tensor], n_items: int) -> Log:
    """What `known_tensors` packed."""
    arrays = {name: tensors[name].numpy() for name in ("times", "weights") if name in tensors}
    return Log(tensors["indptr"].numpy(), tensors["items"].numpy(), n_items, **arrays)


def save_artifact(
    path: str | Path,
    model: System,
    given: Given,
    known: Log,
    popularity: Tensor,
    items: pl.DataFrame,
    users: pl.DataFrame,
    info: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write the folder atomically. `info` is the manifest without format, checksums and memory."""
    with atomic_folder(path, overwrite=overwrite) as folder:
        save_tensors(folder / "model.safetensors", model.state_dict())
        save_tensors(folder / "given.safetensors", given.tensors())
        save_tensors(folder / "known.safetensors", known_tensors(known, popularity))
        items.write_parquet(folder / "items.parquet")
        users.write_parquet(folder / "users.parquet")
        files = sorted(file.name for file in folder.iterdir())
        record = {
            "format": FORMAT,
            **info,
            "sizes": model.sizes.as_json(),
            "memory_bytes": sum((folder / name).stat().st_size for name in files if name.endswith(".safetensors")),
            "versions": versions(),
            "files": {name: sha256(folder / name) for name in files},
        }
        write_json(folder / MANIFEST, record)


def load_artifact(path: str | Path) -> tuple[System, Given, Log, Tensor, pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Read a folder that `save_artifact` wrote; `path` may be a run folder that holds it as `artifact`.

    Raises ArtifactError where it is absent, incomplete, damaged, or written by a newer version.
    """
    folder = Path(path)
    if not (folder / MANIFEST).exists() and (folder / "artifact").is_dir():
        folder = folder / "artifact"
    if not (folder / MANIFEST).exists():
        unfinished = (Path(path) / "run.yaml").exists()
        hint = "its training has not finished; go on with `vitrail fit ... --resume`" if unfinished else "make one with `vitrail fit SYSTEM --data D --out RUN`"
        raise ArtifactError(f"There is no fitted system at {path}: {hint}.")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise ArtifactError(f"{folder / MANIFEST} is damaged: it has no format number; fit again or restore it.")
    if manifest["format"] > FORMAT:
        raise ArtifactError(f"{folder} was written by a newer Vitrail (artifact format {manifest['format']}, this one reads {FORMAT}): upgrade Vitrail.")
    check_files(folder, manifest["files"], "fit again")
    try:
        cls = registry.find(manifest["system"])
    except SettingError:
        raise ArtifactError(
            f'{folder} holds the system "{manifest["system"]}", which is not installed: name its file with --system FILE.py, or install its plug-in.'
        ) from None
    items, users = pl.read_parquet(folder / "items.parquet"), pl.read_parquet(folder / "users.parquet")
    sizes, given = Sizes.of(manifest["sizes"]), Given.from_tensors(load_tensors(folder / "given.safetensors"))
    model = cls(cls.Config.of(manifest["config"], where=str(folder / MANIFEST)), sizes, given)
    model.restore(load_tensors(folder / "model.safetensors"))
    tensors = load_tensors(folder / "known.safetensors")
    return model, given, known_log(tensors, sizes.items), tensors["popularity"], items, users, manifest
