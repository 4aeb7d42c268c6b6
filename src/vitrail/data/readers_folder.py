"""Which files are events, items, users and pictures: as told, or as the names in a folder say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitrail.data.readers_features import FEATURES
from vitrail.data.roles import PARTS
from vitrail.errors import DataError

TABLE = r"\.(csv|tsv|txt|jsonl|ndjson|json|parquet|pq|dat)(\.gz|\.bz2|\.zst)?$"
EVENTS = re.compile(r"^(interactions?|events?|ratings?|sequences?|reviews?|clicks?|logs?|transactions?|orders)" + TABLE, re.IGNORECASE)
ITEMS = re.compile(r"^(items?|products?|movies?|catalog(ue)?|articles?)([_-](text|meta|metadata|info|attributes))?" + TABLE, re.IGNORECASE)
USERS = re.compile(r"^(users?|customers?|members?)([_-](text|meta|metadata|info|attributes))?" + TABLE, re.IGNORECASE)
PART = re.compile(r"^(" + "|".join(PARTS) + r")" + TABLE, re.IGNORECASE)
BEHAVIOURS = re.compile(r"^(view|pv|click|cart|addtocart|fav|favou?rite|like|share|collect|wishlist|buy|purchase|order)" + TABLE, re.IGNORECASE)
PICTURES = ("posters", "images", "pictures", "photos", "covers")


@dataclass(frozen=True)
class Source:
    """One file of events."""

    path: Path
    part: str | None = None
    event: str | None = None


@dataclass
class Sources:
    """Everything that is to be read."""

    events: list[Source] = field(default_factory=list)
    items: list[Path] = field(default_factory=list)
    users: list[Path] = field(default_factory=list)
    images: Path | None = None
    features: dict[str, Path] = field(default_factory=dict)
    """name -> array with a row for each item by its number"""
    notes: list[str] = field(default_factory=list)

    def bytes(self) -> int:
        """What the files of events take on disk."""
        return sum(source.path.stat().st_size for source in self.events)


def gather(
    files: Sequence[Path],
    *,
    train: Path | None,
    valid: Path | None,
    test: Path | None,
    items: Sequence[Path],
    users: Sequence[Path],
    events: Mapping[str, Path],
    images: Path | None,
) -> Sources:
    """The files to read. A folder in `files` is looked through. Raises DataError where a file is absent or what is told does not go together."""
    for path in [*files, *(p for p in (train, valid, test, images) if p), *items, *users, *events.values()]:
        if not path.exists():
            raise DataError(f"There is no file {path}.")
    for path in [*(p for p in (train, valid, test) if p), *items, *users, *events.values()]:
        if path.is_dir():
            raise DataError(f"{path} is a folder where a file is wanted: name a file in it.")
    if train and (files or events):
        raise DataError("The training part is given twice, as files and by --train: give it once.")
    result = Sources(items=list(items), users=list(users), images=images)
    parted = bool(train or valid or test)
    part = "train" if parted else None
    for path in files:
        if path.is_dir():
            _look_through(path, result, part)
        else:
            result.events.append(Source(path, part))
    result.events += [Source(path, part, name) for name, path in events.items()]
    result.events += [Source(path, name) for name, path in (("train", train), ("valid", valid), ("test", test)) if path]
    if not result.events:
        raise DataError("No file of events is given: name one or more, or --train, --valid and --test.")
    parts = {source.part for source in result.events}
    if None in parts and len(parts) > 1:
        raise DataError("Some files belong to a part (train, valid, test) and others to none: give the training files by --train.")
    if parts & {"valid", "test"} and "train" not in parts:
        raise DataError("There are files for valid or test and none for train: give it by --train FILE.")
    order = ("train", "valid", "test")
    result.events.sort(key=lambda source: order.index(source.part) if source.part else 0)
    return result


def _look_through(folder: Path, result: Sources, part: str | None) -> None:
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    used: set[str] = set()
    inter = [name for name in names if name.endswith(".inter")]
    stems = {name.split(".")[0] for name in inter}
    if inter:
        for name in inter:
            words = name.split(".")[1:-1]
            result.events.append(Source(folder / name, next((PARTS[w.lower()] for w in words if w.lower() in PARTS), part)))
        used.update(inter)
        for suffix, target in ((".item", result.items), (".user", result.users)):
            found = [f"{stem}{suffix}" for stem in sorted(stems) if f"{stem}{suffix}" in names]
            target += [folder / name for name in found]
            used.update(found)
        features = {match[1]: folder / name for name in names if (match := FEATURES.match(name))}
        result.features |= features
        used.update(path.name for path in features.values())
        result.notes += [f"{path} gives the vectors \"{name}\", row n those of the item n" for name, path in features.items()]
    else:
        _plain_files(folder, names, result, part, used)
    for pattern, target in ((ITEMS, result.items), (USERS, result.users)):
        for name in names:
            if name not in used and pattern.match(name) and folder / name not in target:
                target.append(folder / name)
                used.add(name)
    pictures = [folder / name for name in PICTURES if (folder / name).is_dir()]
    if result.images is None and len(pictures) == 1:
        result.images = pictures[0]
    left = [name for name in names if name not in used and not re.match(r"(?i)(readme|licen[cs]e)", name)]
    if left:
        result.notes.append(f"not read in {folder}: {', '.join(left[:8])}{' ...' if len(left) > 8 else ''}")


def _plain_files(folder: Path, names: Sequence[str], result: Sources, part: str | None, used: set[str]) -> None:
    parts = {name: match[1].lower() for name in names if (match := PART.match(name))}
    if "train" in {PARTS[word] for word in parts.values()}:
        found = [Source(folder / name, PARTS[word]) for name, word in parts.items()]
    else:
        found = [Source(folder / name, part) for name in names if EVENTS.match(name)]
        behaviours = {name: match[1].lower() for name in names if (match := BEHAVIOURS.match(name))}
        if not found and behaviours:
            tests = {name: PARTS[word] for name, word in parts.items()}
            found = [Source(folder / name, "train" if tests else part, word) for name, word in behaviours.items()]
            found += [Source(folder / name, which) for name, which in tests.items()]
    if not found:
        tables = [name for name in names if re.search(TABLE, name, re.IGNORECASE) and not ITEMS.match(name) and not USERS.match(name)]
        if len(tables) != 1:
            listed = ", ".join(names[:6]) or "nothing"
            raise DataError(f"It is not certain which files of {folder} hold the events (there is {listed}): name them, or pass --train, --valid, --test.")
        found = [Source(folder / tables[0], part)]
    twice = [source.part for source in found if source.part in ("valid", "test")]
    if len(twice) != len(set(twice)):
        raise DataError(f"{folder} has several files for one part: name them by --train, --valid and --test.")
    result.events += found
    used.update(source.path.name for source in found)
