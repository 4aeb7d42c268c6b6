"""Atomic files and folders: a reader sees the old content or the new, never half of either."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitrail.errors import ArtifactError, DataError, ResourceError, VitrailError
from vitrail.interrupt import UNDER_WAY, exchange, remove

_FULL = re.compile(r"No space left|[Dd]isk quota|os error 28\b|\d+ requested and \d+ written")
"""How numpy, polars and safetensors tell of a full disk: in words, with no error number."""


@contextmanager
def full_disk_as_sentence(where: Path) -> Iterator[None]:
    """Turns 'no space left', 'permission denied' and an impossible place into one sentence about `where`, whichever library met it."""
    try:
        yield
    except VitrailError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(str(error)):
            raise ResourceError(f"The disk is full while writing {where}: free some space and run again; nothing was left half-written.") from None
        if number in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise ResourceError(f"{where} cannot be written: check its permissions.") from None
        if number in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG):
            raise ResourceError(f"{where} cannot be written ({os.strerror(number).lower()}): choose another place.") from None
        raise


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it replaces `path`, on any failure it is removed."""
    target = Path(path)
    with full_disk_as_sentence(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with under_way(target) as temporary:
            temporary.touch(0o600, exist_ok=False)
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; on success it takes the name `path`, on any failure it is removed.

    Raises DataError where `path` exists and `overwrite` is false.
    """
    target = Path(path)
    refuse_taken(target, overwrite=overwrite)
    with full_disk_as_sentence(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with under_way(target) as temporary:
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            if target.exists():
                _exchange(temporary, target)
            else:
                temporary.replace(target)


def _exchange(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of the folder `target`, which goes."""
    old = target.parent / f".{target.name}.old.{secrets.token_hex(4)}"
    with exchange():
        target.replace(old)
        try:
            new.replace(target)
        except BaseException:
            old.replace(target)
            raise
        UNDER_WAY.add(old)
    remove(old)
    UNDER_WAY.discard(old)


@contextmanager
def under_way(target: Path) -> Iterator[Path]:
    """A name beside `target`, known to be temporary before there is anything of it; what has that name in the end is removed."""
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    UNDER_WAY.add(temporary)
    try:
        yield temporary
    finally:
        remove(temporary)
        UNDER_WAY.discard(temporary)


def refuse_taken(path: str | Path, *, overwrite: bool) -> None:
    """Raises DataError where there is something at `path` that must not be replaced; asked before long work, and before writing."""
    target = Path(path)
    if target.exists() and not overwrite and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} exists already: choose another place, or pass --overwrite.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def read_json(path: str | Path) -> Any:
    """The JSON value in a file of ours. Raises ArtifactError where it is absent or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: the folder is incomplete; make it again or restore it.") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ArtifactError(f"{path} is damaged: it is not JSON; restore it from a copy.") from None


def sha256(path: str | Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, digests: Mapping[str, str], remedy: str, *, verify: bool = True) -> None:
    """Raises ArtifactError, with the `remedy`, where a file of `folder` is absent or, if `verify`, does not have its SHA-256 of `digests`."""
    for name, digest in digests.items():
        if not (folder / name).exists():
            raise ArtifactError(f"{folder / name} is missing: the folder is incomplete; {remedy} or restore it.")
        if verify and sha256(folder / name) != digest:
            raise ArtifactError(f"{folder / name} is damaged: its checksum differs from the manifest; {remedy} or restore it.")


def fingerprint(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
