"""What the machine has left: memory and disk. Work that cannot fit is refused in one sentence before it starts."""

from __future__ import annotations

import ctypes
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from vitrail.errors import ResourceError

GIB = 2**30
UNKNOWN = 2**62
"""Bytes where the system does not say."""


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can be taken without swapping: what the machine has, or what is left of the limit of a container, whichever is less."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        free = UNKNOWN
    return min(free, _left_in_group(proc, groups))


def _left_in_group(proc: Path, groups: Path) -> int:
    """Bytes left under the control groups (versions 1 and 2) of this process; a group's limit holds for all below it."""
    try:
        entries = [line.split(":", 2) for line in (proc / "self" / "cgroup").read_text().splitlines()]
    except OSError:
        return UNKNOWN
    left = UNKNOWN
    for entry in entries:
        if len(entry) != 3 or (entry[1] and "memory" not in entry[1].split(",")):
            continue
        root = groups / "memory" if entry[1] else groups
        limit, used, cache = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file") if entry[1] else ("memory.max", "memory.current", "inactive_file")
        )
        place = root / entry[2].strip("/")
        for folder in (place, *place.parents):
            if folder == root or root in folder.parents:
                left = min(left, _left(folder, limit, used, cache))
    return left


def _left(folder: Path, limit: str, used: str, cache: str) -> int:
    try:
        most, now = int((folder / limit).read_text()), int((folder / used).read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return UNKNOWN
    try:
        facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        now -= int(facts.get(cache, 0))  # pages of files are given back when memory is wanted
    except (OSError, ValueError):
        pass
    return max(most - now, 0)


def give_back() -> None:
    """Hand memory that is free again to the machine, where the C library would keep it; pieces of it would lie between what comes later."""
    with suppress(AttributeError, OSError, TypeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


def in_gib(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / GIB:.1f} GiB"


def afford_memory(need: float, free: int, what: str, remedy: str, *, quiet: bool = True) -> None:
    """Raises ResourceError where `what` needs more than is free; from 1 GiB on the need is printed unless `quiet`."""
    if need > free:
        raise ResourceError(f"{what} needs about {in_gib(need)} of memory, and {in_gib(free)} are free: {remedy}.")
    if need >= GIB and not quiet:
        print(f"{what[:1].lower()}{what[1:]} needs about {in_gib(need)} of memory, {in_gib(free)} are free", file=sys.stderr)  # noqa: T201


def afford_disk(need: float, place: Path, what: str) -> None:
    """Raises ResourceError where the disk of `place` (which need not exist yet) has less than `need` bytes free."""
    home = place.absolute()
    while not home.exists() and home != home.parent:
        home = home.parent
    try:
        free = shutil.disk_usage(home).free
    except OSError:
        return
    if need > free:
        raise ResourceError(
            f"{what} needs about {in_gib(need)} of disk at {place}, and {in_gib(free)} are free: free some space or choose another place; nothing was written."
        )
