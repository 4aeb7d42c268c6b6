"""Downloads that can be trusted and continued: resumed where they were cut, checked against a checksum, renamed only when whole."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from vitrail.data.sources.record import SourceFile
from vitrail.errors import ArtifactError, DataError, ResourceError
from vitrail.files import full_disk_as_sentence, read_json, sha256, write_json, write_text
from vitrail.train.progress import Bar, silent

CHUNK = 1 << 18
LARGEST = 1 << 36
"""Bytes at which a download of unknown size is stopped."""
SPARE = 64 << 20
"""Bytes that are left free on the disk."""
MAGIC = {"zip": b"PK", "gz": b"\x1f\x8b", "tar.gz": b"\x1f\x8b"}
AGENT = "vitrail (data get)"
PASSING = (408, 425, 429)
"""Answers of the 400s that may be another the next time."""


class _Failed(Exception):
    """This address gave no good file; `final`: asking again is no use."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows a redirection within the web only, and never from https to http."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str) -> Any:
        was, now = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if now not in ("http", "https") or (was, now) == ("https", "http"):
            raise _Failed(f"it redirects to {now}:, which is refused", final=True)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https and nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirect(),
    ):
        opener.add_handler(handler)
    return opener


def fetch(file: SourceFile, folder: Path, *, bar: Callable[[str], Bar] | None = None, rounds: int = 3, pause: float = 1.0, timeout: float = 30.0) -> Path:
    """The file in `folder`, downloaded where it is not there yet; what was cut off before is continued.

    Every address is asked up to `rounds` times, `pause` seconds (growing) between rounds; `timeout` seconds without a byte end an attempt.
    Raises DataError where no address gives the right file (one sentence that says how to place it by hand), ResourceError for a full disk.
    """
    target = folder / file.file
    if target.exists():
        wrong = mismatch(file, target, remembered(target))
        if wrong is None:
            return target
        target.unlink()
        raise DataError(f"{target} is not the file it should be ({wrong}) and was removed: run again to download it, or place the right one there.")
    with full_disk_as_sentence(target):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(target):
        return _any(file, target, bar(file.file) if bar else silent, rounds, pause, timeout)


def _any(file: SourceFile, target: Path, bar: Bar, rounds: int, pause: float, timeout: float) -> Path:
    """Ask every address, round after round. Raises DataError."""
    reasons: dict[str, str] = {}
    left = list(file.urls)
    for turn in range(rounds):
        for url in list(left):
            try:
                return _from(url, file, target, bar, timeout)
            except _Failed as failure:
                reasons[url] = str(failure)
                if failure.final:
                    left.remove(url)
        if not left:
            break
        if turn + 1 < rounds:
            time.sleep(pause * (turn + 1))
    raise DataError(_by_hand(file, target, reasons))


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """No other process writes the same partial file meanwhile. Raises DataError where one does."""
    try:
        import fcntl
    except ImportError:  # Windows refuses to open a file twice by itself
        yield
        return
    lock = target.with_name(target.name + ".lock")
    with full_disk_as_sentence(lock), lock.open("wb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{target.name} is being downloaded by another process: wait for it, or pass another --cache FOLDER.") from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _by_hand(file: SourceFile, target: Path, reasons: dict[str, str]) -> str:
    tried = "; ".join(f"{url}: {reason}" for url, reason in reasons.items())
    known = remembered(target)
    expected = file.checksum or (f"sha256 {known}, that of the first download" if known else "none is published")
    kept = "; what did arrive is kept and continued by the next run" if target.with_name(target.name + ".part").exists() else ""
    return (
        f"{file.file} could not be downloaded ({tried}): get it by other means and place it at {target}, "
        f"or pass --from FILE_OR_FOLDER (checksum: {expected}){kept}."
    )


def _from(url: str, file: SourceFile, target: Path, bar: Bar, timeout: float) -> Path:
    """Download from one address. Raises _Failed."""
    part = target.with_name(target.name + ".part")
    _receive(url, file, part, bar, timeout)
    wrong = mismatch(file, part, remembered(target)) or _no_archive(file, part)
    if wrong is not None:
        drop(part)
        raise _Failed(wrong)
    if file.checksum is None:
        write_text(pin(target), f"{sha256(part)}  {file.file}\n")
    part.replace(target)
    drop(part)
    return target


def _receive(url: str, file: SourceFile, part: Path, bar: Bar, timeout: float) -> None:
    """Bring `part` to the whole length. Raises _Failed; what arrived is kept where it can be continued."""
    have, validator = _kept(url, file, part)
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
    try:
        with _opener().open(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
            start, total = _extent(answer, have)
            _refuse_size(total, file, part)
            if not start:
                write_json(_note(part), {"url": url, "validator": _validator(answer.headers)})
            _write(answer, part, start, total, file, bar)
    except HTTPError as error:
        if error.code == 416:
            drop(part)
            raise _Failed("it does not continue what was there before") from None
        if 300 <= error.code < 400:
            raise _Failed("it redirects out of the web or in circles, which is refused", final=True) from None
        raise _Failed(f"HTTP {error.code}", final=400 <= error.code < 500 and error.code not in PASSING) from None
    except (URLError, HTTPException, TimeoutError, ConnectionError, OSError, ValueError) as error:
        raise _Failed(_words(error)) from None


def _words(error: Exception) -> str:
    """What the network says, without its numbers."""
    reason = error.reason if isinstance(error, URLError) else error
    return (getattr(reason, "strerror", None) or str(reason) or type(reason).__name__).lower()


def _write(answer: Any, part: Path, start: int, total: int | None, file: SourceFile, bar: Bar) -> None:
    cap = 2 * file.bytes if file.bytes else LARGEST
    have = start
    with bar(total or file.bytes or 0, start) as advance, full_disk_as_sentence(part), part.open("r+b" if start else "wb") as out:
        out.seek(start)
        out.truncate()
        while True:
            try:
                piece = answer.read1(CHUNK)
            except (HTTPException, OSError) as error:
                raise _Failed(f"the connection was cut after {have:,} bytes ({_words(error)})") from None
            if not piece:
                break
            have += len(piece)
            if have > cap:
                out.close()
                drop(part)
                raise _Failed(f"it sends more than {cap:,} bytes, twice what was expected", final=True)
            out.write(piece)
            advance(len(piece), "")
        out.flush()
        os.fsync(out.fileno())
    if total is not None and have != total:
        raise _Failed(f"the connection was cut after {have:,} of {total:,} bytes")


def _extent(answer: Any, have: int) -> tuple[int, int | None]:
    """(where the bytes of this answer begin, the length of the whole file where it is told)."""
    length = int(answer.headers["Content-Length"]) if (answer.headers["Content-Length"] or "").isdigit() else None
    if answer.status != 206:
        return 0, length
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers["Content-Range"] or "")
    if told is None or int(told[1]) != have:
        raise _Failed("it answers with another range than was asked for")
    return have, int(told[2]) if told[2] != "*" else None if length is None else have + length


def _refuse_size(total: int | None, file: SourceFile, part: Path) -> None:
    """Raises ResourceError where the disk cannot hold the file, _Failed where it is far larger than it should be."""
    if total is not None and file.bytes and total > 2 * file.bytes:
        raise _Failed(f"it would send {total:,} bytes where about {file.bytes:,} are expected", final=True)
    there = part.stat().st_size if part.exists() else 0
    room(part.parent, (total or file.bytes or 0) - there, file.file)


def room(folder: Path, needed: int, what: str) -> None:
    """Raises ResourceError where the disk of `folder` cannot hold `needed` bytes more."""
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        have = f"{needed / 1e6:,.0f} MB and {folder} has {free / 1e6:,.0f} MB free"
        raise ResourceError(f"{what} needs {have}: free some space, or pass --cache FOLDER on another disk.")


def _kept(url: str, file: SourceFile, part: Path) -> tuple[int, str | None]:
    """(bytes that can be continued, the validator this address gave for them). Bytes of another address are only continued where a checksum will tell."""
    if not part.exists():
        return 0, None
    try:
        note = read_json(_note(part))
    except ArtifactError:
        note = {}
    validator = note.get("validator") if isinstance(note, dict) and note.get("url") == url else None
    return (part.stat().st_size, validator) if validator or file.checksum else (0, None)


def _validator(headers: HTTPMessage) -> str | None:
    tag = headers["ETag"]
    return tag if tag and not tag.startswith("W/") else headers["Last-Modified"]


def _no_archive(file: SourceFile, path: Path) -> str | None:
    """An error page sent as if it were the file."""
    with path.open("rb") as stream:
        start = stream.read(64)
    if not start.startswith(MAGIC.get(file.archive, b"")):
        return f"what it sends is no {file.archive} archive"
    return "it sends a web page" if file.archive == "none" and start.lstrip()[:2] in (b"<!", b"<h") else None


def mismatch(file: SourceFile, path: Path, known: str | None) -> str | None:
    """What is wrong with the checksum of `path`: None where it is right, or where none is known. `known`: SHA-256 of the first download."""
    kind, expected = ("sha256", file.sha256) if file.sha256 else ("md5", file.md5) if file.md5 else ("sha256", known)
    if expected is None:
        return None
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    return None if found == expected else f"its checksum is {kind} {found} and should be {expected}"


def pin(target: Path) -> Path:
    """Where the SHA-256 of the first download of an unpublished checksum is remembered; delete it to accept another file."""
    return target.with_name(target.name + ".sha256")


def remembered(target: Path) -> str | None:
    """The SHA-256 of the first download."""
    try:
        return pin(target).read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def drop(part: Path) -> None:
    """Remove a partial download and what is known of it."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)
