"""The data-set folder: written once by ingest or the simulator, read lazily ever after."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from vitrail.data.arrange import Arranger, ArrayFile
from vitrail.data.declare import read_features
from vitrail.data.log import Log, indptr_of
from vitrail.data.schema import FORMAT, DatasetInfo, FileRecord
from vitrail.data.tables import Rows
from vitrail.data.vectors import Vectors, read_vectors, vector_names, verify_vectors
from vitrail.data.vocabulary import Vocabulary, mix
from vitrail.errors import ArtifactError, DataError, ResourceError, SettingError
from vitrail.files import atomic_folder, fingerprint, sha256

TABLES = ("interactions", "items", "users", "rejects", "impressions")


class Dataset:
    """A data set on disk. Tables are read when asked for; event arrays are memory-mapped.

    `interactions`: user, item (String), then as roles exist: timestamp (Datetime us UTC), position (Int64),
    event (String), value (Float64), part (String), and context columns. `items`: item and attributes, one row per item
    in code order. `users`: user and attributes likewise. `rejects`: file, line, reason, text.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises DataError where `path` is no data-set folder, ArtifactError where it is newer or damaged, SettingError for features that cannot be."""
        self.path = Path(path)
        file = self.path / "dataset.yaml"
        if not self.path.exists():
            raise DataError(f"There is no data set at {self.path}: make one with `vitrail data ingest FILES --out {self.path}`.")
        if not file.exists():
            raise DataError(f"{self.path} is not a data set (no dataset.yaml in it): make one with `vitrail data ingest FILES --out FOLDER`.")
        try:
            values = yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # eight times as fast where it is there
        except (yaml.YAMLError, UnicodeDecodeError):
            raise ArtifactError(f"{file} is damaged: it is not YAML; ingest the data again.") from None
        if not isinstance(values, dict):
            raise ArtifactError(f"{file} is damaged: it holds no mapping; ingest the data again.")
        if isinstance(values.get("format"), int) and values["format"] > FORMAT:
            raise ArtifactError(f"{self.path} was written by a newer Vitrail (data format {values['format']}, this one reads {FORMAT}): upgrade Vitrail.")
        read_features(values.get("features") or {}, file.name)  # a person wrote them: what is wrong is told, and the data are sound
        try:
            self.info = DatasetInfo.of(values, where=str(file))
        except SettingError as error:
            raise ArtifactError(f"{str(error).rstrip('.')}: the file is damaged; ingest the data again.") from None

    def __repr__(self) -> str:
        counts = self.info.counts
        return f"Dataset({self.info.name!r}: {counts.get('users', 0):,} users, {counts.get('items', 0):,} items, {counts.get('events', 0):,} events)"

    def _table(self, name: str, columns: list[str] | None = None) -> pl.DataFrame:
        path = self.path / f"{name}.parquet"
        if not path.exists():
            raise ArtifactError(f"{path} is missing: the data set is incomplete; ingest the data again.")
        try:
            return pl.read_parquet(path, columns=columns)
        except (pl.exceptions.PolarsError, OSError):
            raise ArtifactError(f"{path} is damaged: it is not readable Parquet; ingest the data again.") from None

    @cached_property
    def interactions(self) -> pl.DataFrame:
        """(E rows) the events as they came, in file order."""
        return self._table("interactions")

    @cached_property
    def items(self) -> pl.DataFrame:
        """(N rows) the catalogue in code order."""
        return self._table("items")

    @cached_property
    def users(self) -> pl.DataFrame:
        """(U rows) the users in code order."""
        return self._table("users")

    @property
    def has_impressions(self) -> bool:
        """Whether it is known what was shown."""
        return "impressions.parquet" in self.info.files

    @cached_property
    def impressions(self) -> pl.DataFrame:
        """What was shown: user, item, clicked (Float64 in [0, 1]), timestamp or before (how many of the user's events came first), and as they exist
        request, position, weight, part and columns of context. Raises DataError where that is not known."""
        if not self.has_impressions:
            raise DataError(f'Data set "{self.info.name}" does not say what was shown (it has no impressions.parquet): use --split pairs or --split rated.')
        return self._table("impressions")

    @cached_property
    def item_ids(self) -> Vocabulary:
        """Outside item ids."""
        return Vocabulary(self.items["item"])

    @cached_property
    def user_ids(self) -> Vocabulary:
        """Outside user ids."""
        return Vocabulary(self.users["user"])

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content: the checksums of its tables and what is declared to count."""
        info = self.info
        return fingerprint(
            {
                "files": {name: record.sha256 for name, record in info.files.items() if name != "rejects.parquet"},
                "declared": [info.positive, info.weights, info.repeats],
            }
        )

    def verify(self) -> None:
        """Raises ArtifactError where a file does not have its recorded checksum."""
        for name, record in self.info.files.items():
            if not (self.path / name).exists() or sha256(self.path / name) != record.sha256:
                raise ArtifactError(f"{self.path / name} does not have its recorded checksum: it was changed or damaged; ingest the data again.")
        for name in self.vector_names():
            verify_vectors(self.path, name)

    def vector_names(self) -> list[str]:
        """Names of the content vectors that are there."""
        return vector_names(self.path)

    def vectors(self, name: str) -> Vectors:
        """Content vectors (N, D) in item-code order, and which items have content. They are no part of the fingerprint of the data.

        Raises DataError where there are none of that name, ArtifactError where they are damaged.
        """
        return read_vectors(self.path, name, self.item_ids)

    @cached_property
    def image_root(self) -> Path:
        """Where relative picture paths start; an absolute path, wherever the data set was opened from."""
        return (self.path / (self.info.image_root or "")).absolute()

    def parts(self) -> pl.Series:
        """(E,) part of each row of `interactions`. Raises DataError where the files did not come split."""
        if not self.info.predefined:
            raise DataError(f'Data set "{self.info.name}" did not come split: ingest with --train, --valid and --test files, or choose another split.')
        if "interactions" in self.__dict__:
            return self.interactions["part"]
        return self._table("interactions", ["part"])["part"]  # a column alone: the rest would stay in memory

    def log(self, *, ties: str = "seeded", seed: int = 0) -> Log:
        """The events that count, as CSR arrays sorted by user and time or position; what these leave open is ordered by a
        hash of the item under `seed` (`ties="seeded"`) or as in the file (`ties="file"`). Cached on disk beside the tables.

        Raises ArtifactError where the tables do not belong together.
        """
        key = fingerprint([self.fingerprint, ties, seed, "log-3"])
        folder = self.path / "cache" / f"log-{key}"
        names = {"indptr", "items", "rows"} | ({"weights"} if self.info.weights is not None else set())
        if self.info.order == "timestamp" and not self.info.timed_parts:
            names.add("times")
        if (arrays := _cached(folder, names)) is None:
            with suppress(ResourceError):  # a cache that cannot be written (read-only folder, full disk) costs time and memory, not the answer
                self._write_log(folder, ties, seed, names)
            arrays = _cached(folder, names) or self._build_log(ties, seed, names)
        return Log(n_items=len(self.items), **arrays)

    def _arranger(self, ties: str, seed: int) -> Arranger:
        drawn = mix(self.item_ids.hashes, seed) if ties == "seeded" else None
        return Arranger(self.path, self.info, self.user_ids, self.item_ids, drawn)

    def _write_log(self, folder: Path, ties: str, seed: int, names: set[str]) -> None:
        arranger = self._arranger(ties, seed)
        with atomic_folder(folder, overwrite=True) as temporary:
            files = {name: ArrayFile(temporary / f"{name}.npy", arranger.types[name]) for name in names - {"indptr"}}
            for arrays in arranger.buckets():
                for name, file in files.items():
                    file.append(arrays[name])
            for file in files.values():
                file.close()
            np.save(temporary / "indptr.npy", indptr_of(arranger.lengths))

    def _build_log(self, ties: str, seed: int, names: set[str]) -> dict[str, Any]:
        arranger = self._arranger(ties, seed)
        pieces = list(arranger.buckets())
        found = {name: np.concatenate([np.zeros(0, arranger.types[name]), *(piece[name] for piece in pieces)]) for name in names - {"indptr"}}
        return found | {"indptr": indptr_of(arranger.lengths)}


def _cached(folder: Path, names: set[str]) -> dict[str, Any] | None:
    """The arrays of a cached log, memory-mapped; none where one is absent or damaged."""
    try:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
    except (OSError, ValueError, EOFError):
        return None
    return arrays if len({len(array) for name, array in arrays.items() if name != "indptr"} | {int(arrays["indptr"][-1])}) == 1 else None


def complete(table: pl.DataFrame | None, role: str, seen: pl.Series) -> tuple[pl.DataFrame, Vocabulary]:
    """The `items` or `users` table with a row for every id of it and of `seen`, in code order (hash order)."""
    known = table[role] if table is not None else pl.Series(role, [], dtype=pl.String)
    vocabulary = Vocabulary.of(pl.concat([known.cast(pl.String), seen.cast(pl.String).rename(role)]))
    frame = vocabulary.ids.rename(role).to_frame()
    return (frame if table is None else frame.join(table, on=role, how="left", maintain_order="left")), vocabulary


def write_dataset(
    path: str | Path,
    info: DatasetInfo,
    interactions: pl.DataFrame | Rows,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    rejects: pl.DataFrame | None = None,
    *,
    overwrite: bool = False,
    extra: dict[str, bytes] | None = None,
    impressions: pl.DataFrame | None = None,
    beside: Callable[[Path, pl.Series], None] | None = None,
) -> Dataset:
    """Write a data-set folder atomically and open it. `items` and `users` are completed with the ids of `interactions` and `impressions`
    and put in code order (`Rows` are written as they are made); checksums and counts are filled in; `extra` maps relative names to further files' bytes;
    `beside` is told the folder and the item ids in code order, and may write more into it.

    Raises DataError where `path` is taken, ResourceError where the disk is full.
    """
    rows = interactions if isinstance(interactions, Rows) else Rows.of(interactions)
    shown = {role: [] if impressions is None else [impressions[role]] for role in ("user", "item")}
    item_table, _ = complete(items, "item", pl.concat([rows.seen["item"], *shown["item"]]))
    user_table, _ = complete(users, "user", pl.concat([rows.seen["user"], *shown["user"]]))
    if rejects is None:
        rejects = pl.DataFrame(schema={"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String})
    tables: dict[str, pl.DataFrame | Rows] = {"interactions": rows, "items": item_table, "users": user_table, "rejects": rejects}
    if impressions is not None:
        tables["impressions"] = impressions
    with atomic_folder(path, overwrite=overwrite) as folder:
        files = {}
        for name, table in tables.items():
            file = folder / f"{name}.parquet"
            table.write(file) if isinstance(table, Rows) else table.write_parquet(file)
            files[file.name] = FileRecord(sha256=sha256(file), rows=table.height)
        for relative, content in (extra or {}).items():
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if beside is not None:
            beside(folder, item_table["item"])
        counts = {"users": user_table.height, "items": item_table.height, "events": rows.height} | {"rejected": rejects.height} | info.counts
        record = info.model_copy(update={"files": files, "counts": counts})
        text = yaml.safe_dump(record.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
        (folder / "dataset.yaml").write_text(text, encoding="utf-8")
    return Dataset(path)


def data_home() -> Path:
    """Where named data sets are looked for: the variable VITRAIL_DATA, else the current folder."""
    return Path(os.environ.get("VITRAIL_DATA", "."))
