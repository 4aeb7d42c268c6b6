"""Items and users files -> one table of typed attributes each, joined on the id; pictures found by item id."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from vitrail.data.clean import Ledger, clean_ids, repeated
from vitrail.data.kinds import KindGuess, convert, guess_kind
from vitrail.data.readers import RawTable, read_table
from vitrail.data.roles import examples, id_column
from vitrail.data.schema import Kind
from vitrail.errors import DataError, did_you_mean

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


@dataclass
class Attributes:
    """The attributes of items or users."""

    role: str
    """item or user"""
    frame: pl.DataFrame | None = None
    """id column named as the role, then attributes"""
    kinds: dict[str, Kind] = field(default_factory=dict)
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)
    files: list[tuple[Path, str, str]] = field(default_factory=list)
    """(file, its format, its id column)"""
    notes: list[str] = field(default_factory=list)
    image_root: str | None = None


def typed(series: pl.Series, kind: Kind | None, type: str | None, ledger: Ledger | None, where: str) -> tuple[pl.Series, Kind]:
    """The column in the type of its kind: the told one, else the guessed one. Cells lost to a told kind are counted as repaired."""
    guess = guess_kind(series, type)
    if kind is not None and kind != guess.kind:
        guess = KindGuess(kind, guess.separator if kind == "categories" else None)
    column, lost = convert(series, guess)
    if lost and kind is None:
        guess = KindGuess("category")
        column, lost = convert(series, guess)
    if lost and ledger is not None:
        ledger.repair(f"unreadable {guess.kind} left empty in {where}", lost)
    return column, guess.kind


def read_attributes(
    paths: Sequence[Path],
    role: str,
    *,
    told: str | None,
    source: str | None,
    seen: pl.Series,
    kinds: Mapping[str, Kind],
    encoding: str,
    ledger: Ledger | None,
    types: Mapping[str, str] | None = None,
) -> Attributes:
    """Read and join files of `role` ("item" or "user"). `seen`: the ids of the events; `source`: their column's name there.

    Raises DataError where none of a file's ids is among `seen`, naming the flag.
    """
    result = Attributes(role)
    for path in paths:
        raw = read_table(path, encoding=encoding)
        key = _key(raw, role, told, source, seen)
        ids, spaced, missing = clean_ids(raw.frame[key], role, raw.path)
        rest = raw.frame.drop(key).rename({role: f"{role}_column"}, strict=False)
        table = rest.insert_column(0, ids)
        gone = missing.copy()
        same = repeated(table) & ~gone
        again = (~table[role].is_first_distinct()).to_numpy() & ~gone & ~same
        if ledger is not None:
            ledger.repair(f"white space around {role} ids", spaced)
            ledger.repair(f"exact duplicate {role} rows", int(same.sum()))
            ledger.note(raw, "an exact duplicate row, kept once", raw.lines[same])
            reasons = dict(raw.reasons) | {f"a missing {role} id": raw.lines[missing], f"a repeated {role} id": raw.lines[again]}
            ledger.reject(raw, reasons, raw.frame.height + sum(map(len, raw.reasons.values())))
        table = table.filter(~(gone | same | again))
        shared = int(table[role].is_in(seen.implode()).sum())
        if not shared:
            raise DataError(
                f'None of the ids in the column "{key}" of {path} (such as {table[role].head(1).to_list()}) is the {role} of an event '
                f"(such as {seen.head(1).to_list()}): name the right column with --{role}-key COLUMN."
            )
        result.files.append((path, raw.format, key))
        result.notes.append(f"{path.name} describes {shared:,} of the {len(seen):,} {role}s of the events, and {table.height - shared:,} others")
        columns = [table[role]]
        for name in table.columns[1:]:
            column, kind = typed(table[name], kinds.get(name), raw.types.get(name), ledger, f"{path.name}, column {name}")
            new = _free(name, result.kinds)
            result.kinds[new] = kind
            result.examples[new] = examples(column)
            columns.append(column.rename(new))
            if kind == "image" and result.image_root is None:
                result.image_root = str(path.resolve().parent)
        table = pl.DataFrame(columns)
        result.frame = table if result.frame is None else result.frame.join(table, on=role, how="full", coalesce=True, maintain_order="left_right")
    return result


def _free(name: str, taken: Mapping[str, Kind]) -> str:
    number = 2
    new = name
    while new in taken:
        new, number = f"{name}_{number}", number + 1
    return new


def _key(raw: RawTable, role: str, told: str | None, source: str | None, seen: pl.Series) -> str:
    """The id column; where the named one shares no id with the events, the one that shares most."""
    if told is not None and told not in raw.frame.columns:
        raise DataError(f'{raw.path} has no column "{told}" for --{role}-key.{did_you_mean(told, raw.frame.columns)}')
    key = id_column(raw.frame, role, told, source, path=raw.path)
    if told is not None:
        return key
    known = seen.implode()

    def share(name: str) -> float:
        column = raw.frame[name]
        return float(column.cast(pl.String).str.strip_chars().is_in(known).sum()) / max(len(column), 1) if column.dtype == pl.String else 0.0

    if share(key) == 0.0:
        best = max(raw.frame.columns, key=share)
        if share(best) >= 0.5:
            return best
    return key


def add_pictures(result: Attributes, folder: Path, seen: pl.Series, image_root: Path | None) -> Attributes:
    """Give items the column `image`: the file of `folder` whose name without suffix is the item id, relative to the image root."""
    if not folder.is_dir():
        raise DataError(f"There is no folder of pictures {folder}: pass one whose files are named by item id, e.g. 42.jpg.")
    root = (image_root or folder).resolve()
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.lower().endswith(PICTURES))
    start = os.path.relpath(folder.resolve(), root)
    files = pl.DataFrame(
        {"item": [name.rpartition(".")[0] for name in names], "image": [name if start == "." else f"{start}/{name}" for name in names]},
        schema={"item": pl.String, "image": pl.String},
    ).unique("item", keep="first", maintain_order=True)
    known = seen if result.frame is None else pl.concat([seen, result.frame["item"]]).unique()
    files = files.filter(pl.col("item").is_in(known.implode()))
    if not files.height:
        raise DataError(f"No picture of {folder} is named by an item id (such as {seen.head(1).to_list()}): name them ID.jpg.")
    result.notes.append(f"{folder.name}/ has pictures of {files.height:,} of {len(known):,} items")
    if result.frame is None:
        result.frame = files
    elif "image" in result.kinds:
        name = _free("picture", result.kinds)
        result.frame = result.frame.join(files.rename({"image": name}), on="item", how="left", maintain_order="left")
        result.kinds[name], result.examples[name] = "image", examples(files["image"])
        return result
    else:
        result.frame = result.frame.join(files, on="item", how="full", coalesce=True, maintain_order="left_right")
    result.kinds["image"] = "image"
    result.examples["image"] = examples(files["image"])
    result.image_root = str(root)
    return result


def keep_ids(result: Attributes, ids: pl.Series) -> int:
    """Drop rows whose id is not one of `ids`; says how many."""
    if result.frame is None:
        return 0
    keep = result.frame[result.role].is_in(ids.implode())
    result.frame = result.frame.filter(keep)
    return int(np.count_nonzero(~keep.to_numpy()))
