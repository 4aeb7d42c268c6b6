"""Public data sets by name: `get("ml-100k", out="data/ml-100k")` downloads, verifies, unpacks and ingests."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.data.sources.fetch import fetch, mismatch
from vitrail.data.sources.record import Member, SourceFile, SourceRecord, find, records
from vitrail.errors import DataError

if TYPE_CHECKING:
    from vitrail.data.ingest import IngestReport
    from vitrail.train.progress import Bar

__all__ = ["GetReport", "Member", "SourceFile", "SourceRecord", "cache_home", "fetch", "find", "get", "records"]


@dataclass(frozen=True)
class GetReport:
    """What was had, and what became of its rows."""

    record: SourceRecord
    checksums: dict[str, str]
    """file -> SHA-256"""
    ingest: IngestReport

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and mappings, for JSON."""
        record = self.record
        told = {"licence": record.licence, "citation": record.citation, "homepage": record.homepage, "verified": record.verified, "note": record.note}
        return {"source": record.name, **told, "files": self.checksums, **self.ingest.to_dict()}


def cache_home() -> Path:
    """Where downloads are kept: `vitrail/sources` in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitrail" / "sources"


def get(
    name: str | SourceRecord,
    *,
    out: Path | str,
    cache: Path | str | None = None,
    source: Path | str | None = None,
    overwrite: bool = False,
    bar: Callable[[str], Bar] | None = None,
) -> GetReport:
    """Write the data-set folder `out` of the public data set `name`; its files are downloaded into `cache` where they are not there yet.

    `source`: a file, or a folder of files, placed by hand; then nothing is downloaded. `bar`: title -> a progress bar.
    Raises SettingError for an unknown name; DataError where a file cannot be had, is not the right one or cannot be read; ResourceError
    for a full disk. Then `out` is as it was.
    """
    from vitrail.data.dataset import Dataset
    from vitrail.data.ingest import ingest
    from vitrail.data.sources.unpack import unpack
    from vitrail.files import atomic_folder, full_disk_as_sentence, sha256, under_way

    record = find(name) if isinstance(name, str) else name
    target = Path(out)
    folder = Path(cache) if cache is not None else cache_home()
    if target.exists() and not overwrite and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} exists already: choose another place, or pass --overwrite.")
    files = _placed(record, Path(source)) if source is not None else {file.file: fetch(file, folder, bar=bar) for file in record.files}
    checksums = {file: sha256(path) for file, path in files.items()}
    with atomic_folder(target, overwrite=overwrite) as place:
        with under_way(target) as work:
            with full_disk_as_sentence(target):
                work.mkdir()
            tables = unpack(record, files, work)
            parts = {part: tables[part][0] for part in ("train", "valid", "test") if part in tables}
            told = record.ingest.but({"name": record.name.replace(":", "-"), "licence": record.licence}, where=f"the record of {record.name}")
            report = ingest(
                tables.get("events", []),
                out=place,
                train=parts.get("train"),
                valid=parts.get("valid"),
                test=parts.get("test"),
                items=tables.get("items", []),
                users=tables.get("users", []),
                settings=told,
            )
            guess = replace(report.guess, files=tuple(replace(shown, path=Path(shown.path).name) for shown in report.guess.files))
        _provenance(place, record, checksums)
    return GetReport(record, checksums, replace(report, guess=guess, dataset=Dataset(target)))


def _placed(record: SourceRecord, source: Path) -> dict[str, Path]:
    """The files of the record where a person put them. Raises DataError: one is absent or is not the right one; it is left as it is."""
    if not source.exists():
        raise DataError(f"There is no file or folder {source}: place {_names(record)} there.")
    found: dict[str, Path] = {}
    for file in record.files:
        path = source / file.file if source.is_dir() else source
        if not path.is_file() or (not source.is_dir() and len(record.files) > 1):
            raise DataError(f"{record.name} needs {_names(record)}: place {file.file} (from {file.urls[0]}) in one folder and pass --from FOLDER.")
        wrong = mismatch(file, path, None)
        if wrong is not None:
            raise DataError(f"{path} is not the file it should be ({wrong}): download {file.urls[0]} again.")
        found[file.file] = path
    return found


def _names(record: SourceRecord) -> str:
    return " and ".join(file.file for file in record.files)


def _provenance(place: Path, record: SourceRecord, checksums: dict[str, str]) -> None:
    """Say in `dataset.yaml` where the rows came from: addresses and checksums rather than tables that are gone."""
    import yaml

    from vitrail.data.dataset import Dataset
    from vitrail.files import write_text

    info = Dataset(place).info
    facts = {"name": record.name, "homepage": record.homepage, "citation": record.citation, "sha256": checksums}
    info = info.model_copy(update={"source": [file.urls[0] for file in record.files], "origin": {**info.origin, "record": facts}})
    write_text(place / "dataset.yaml", yaml.safe_dump(info.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True))
