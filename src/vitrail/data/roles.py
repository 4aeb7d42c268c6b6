"""Which column plays which role: by its name, then by what is in it. What is not certain is an error that names the flag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from vitrail.data.times import looks_like_time, share
from vitrail.errors import DataError, did_you_mean

REQUIRED = ("user", "item")
NAMES: dict[str, tuple[frozenset[str], ...]] = {
    role: tuple(frozenset(tier.split()) for tier in tiers)
    for role, tiers in {
        "user": (
            "user userid uid userids userindex useridx",
            "customer customerid cust custid reviewer reviewerid visitor visitorid member memberid account accountid client clientid person personid "
            "profileid buyer buyerid consumer consumerid reader readerid listener viewer author authorid username userno usr",
            "session sessionid sid sess device deviceid cookie cookieid",
        ),
        "item": (
            "item itemid iid itemids itemindex itemidx",
            "product productid prod prodid asin parentasin movie movieid sku skuid article articleid track trackid song songid book bookid isbn news newsid "
            "goods goodsid business businessid place placeid venue venueid poi poiid locationid video videoid app appid recipe recipeid anime animeid "
            "game gameid content contentid beer beerid ad adid doc docid document documentid photo photoid hotel hotelid job jobid course courseid "
            "gmapid artist artistid streamer offer offerid listing listingid",
        ),
        "timestamp": (
            "timestamp",
            "time ts datetime unixtime unixtimestamp eventtime eventtimestamp date unixreviewtime epoch",
            "reviewtime createdat created eventdate visittime purchasetime orderdate transdat tdat timems timestampms servertime clicktime ratingdate",
        ),
        "value": (
            "value rating",
            "score stars overall rate ratings userrating bookrating",
            "count plays playcount listens weight label clicks liked isclick click quantity watchratio",
        ),
        "event": ("event eventtype eventname", "behavior behaviour behaviortype behaviourtype action actiontype interaction interactiontype activity", "type"),
        "position": ("position pos", "step seq sequence order index rank"),
        "part": ("part split", "subset fold set xlabel"),
    }.items()
}
PARTS = {"train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test", "testing": "test"}
FLAGS = ("user", "item", "timestamp", "position", "event", "value", "part")


@dataclass(frozen=True)
class RoleGuess:
    """One role, and the column taken for it."""

    column: str
    why: str
    """told, name, content, place (of a file without header) or only column left"""
    examples: tuple[str, ...]
    """up to three different values"""


def plain(name: str) -> str:
    """`User-ID` -> `userid`."""
    return "".join(c for c in name.casefold() if c.isalnum())


def part_words(column: str) -> dict[str, str]:
    """Word -> part in a column of that name: MMRec's `x_label` counts them 0, 1, 2."""
    return PARTS | {"0": "train", "1": "valid", "2": "test"} if plain(column) == "xlabel" else PARTS


def is_name(name: str) -> bool:
    """Whether `name` is a usual name of some role."""
    return any(plain(name) in tier for tiers in NAMES.values() for tier in tiers)


def is_number(text: str) -> bool:
    """Whether `text` reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def examples(series: pl.Series, count: int = 3) -> tuple[str, ...]:
    """The first `count` different values, as text."""
    known = series.drop_nulls().head(1000)
    if isinstance(known.dtype, pl.List):
        known = pl.Series([", ".join(map(str, value[:4])) for value in known.head(50).to_list()], dtype=pl.String)
    return tuple(str(value)[:60] for value in known.unique(maintain_order=True).head(count).to_list())


def guess_roles(frame: pl.DataFrame, told: Mapping[str, str | None], *, path: Path, header: bool = True, lenient: Sequence[str] = ()) -> dict[str, RoleGuess]:
    """Roles of the columns of `frame`, a sample of the rows of `path`. `told`: role -> column; "none" says there is no such column.

    `lenient`: roles that may be told and yet be absent (another file of the set has them).
    Raises DataError: one sentence with the candidates and the flag to pass.
    """
    roles: dict[str, RoleGuess] = {}
    free = list(frame.columns)
    for role in FLAGS:
        column = told.get(role)
        if column is None or (column == "none" and column not in frame.columns and role not in REQUIRED):
            continue
        if column not in frame.columns:
            if role in lenient:
                continue
            raise DataError(f'{path} has no column "{column}" for --{role}.{did_you_mean(column, frame.columns)}')
        if column not in free:
            raise DataError(f'The column "{column}" of {path} is named for two roles: give --{role} another.')
        roles[role] = RoleGuess(column, "told", examples(frame[column]))
        free.remove(column)
    for role in FLAGS:
        if role in roles or told.get(role) is not None or (role == "position" and "timestamp" in roles):
            continue
        column = _by_name(role, free, frame, path)
        if column is not None:
            roles[role] = RoleGuess(column, "name", examples(frame[column]))
            free.remove(column)
    times = [name for name in free if looks_like_time(frame[name])]
    if not header and len(frame.columns) > 2:
        # an id may look like a unix time, never like a date
        times = [name for name in times if frame.columns.index(name) >= 2 or not _is_numeric(frame[name])]
    if "timestamp" not in roles and told.get("timestamp") is None and times and len(frame.columns) > 2 and (header or "position" not in roles):
        if len(times) > 1:
            raise DataError(f"{path} has several columns of times ({_quoted(times)}): say which orders events by --timestamp COLUMN, or --timestamp none.")
        roles["timestamp"] = RoleGuess(times[0], "content", examples(frame[times[0]]))
        free.remove(times[0])
    candidates = [name for name in free if name not in times and _may_be_id(frame[name])]
    missing = [role for role in REQUIRED if role not in roles]
    if not header:
        for role, column in zip(missing, [name for name in free if name not in times], strict=False):
            roles[role] = RoleGuess(column, "place", examples(frame[column]))
            free.remove(column)
        rest = [name for name in free if _is_numeric(frame[name])]
        if "value" not in roles and told.get("value") is None and len(rest) == 1 and rest[0] not in times:
            roles["value"] = RoleGuess(rest[0], "place", examples(frame[rest[0]]))
    elif len(missing) == 1 and len(candidates) == 1:
        roles[missing[0]] = RoleGuess(candidates[0], "only column left", examples(frame[candidates[0]]))
    missing = [role for role in REQUIRED if role not in roles]
    if missing:
        among = _quoted(candidates or [name for name in frame.columns if name not in {r.column for r in roles.values()}] or frame.columns)
        flags = " and ".join(f"--{role} COLUMN" for role in missing)
        raise DataError(f"It is not certain which column of {path} is the {' and which the '.join(missing)}: name it with {flags}; candidates: {among}.")
    return {role: roles[role] for role in FLAGS if role in roles}


def _by_name(role: str, free: Sequence[str], frame: pl.DataFrame, path: Path) -> str | None:
    for tier in NAMES[role]:
        found = [name for name in free if plain(name) in tier and _fits(role, frame[name])]
        if len(found) > 1:
            ids = [name for name in found if plain(name).endswith("id") and plain(name)[:-2] in {plain(other) for other in found}]
            if len(ids) == 1:
                return ids[0]
            raise DataError(f"{path} has several columns that may be the {role} ({_quoted(found)}): say which with --{role} COLUMN.")
        if found:
            return found[0]
    return None


def _fits(role: str, series: pl.Series) -> bool:
    """Whether what is in the column does not belie its name."""
    if isinstance(series.dtype, pl.List):
        return False
    if role == "value":
        return _is_numeric(series)
    if role == "position":
        return series.dtype == pl.String and bool(series.drop_nulls().str.contains(r"^\s*\d+\s*$").all())
    if role == "event":
        return series.n_unique() <= 50 and not series.cast(pl.String).str.contains(r"\.\d").any()
    if role == "part":
        return set(series.drop_nulls().cast(pl.String).str.strip_chars().str.to_lowercase().unique().to_list()) <= set(part_words(series.name))
    if role in REQUIRED:
        return not series.dtype.is_temporal()
    return True


def _is_numeric(series: pl.Series) -> bool:
    if series.dtype != pl.String:
        return False
    known = series.drop_nulls().str.strip_chars()
    known = known.filter(known != "")
    return len(known) > 0 and share(known.cast(pl.Float64, strict=False).is_not_null()) >= 0.5


def _may_be_id(series: pl.Series) -> bool:
    return series.dtype == pl.String and not bool(series.drop_nulls().str.contains(r"^-?\d+\.\d+$").any())


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def id_column(frame: pl.DataFrame, role: str, told: str | None, source: str | None, *, path: Path) -> str:
    """The id column of an items or users table: the told one, the one named as in the events, a usual name, else the first."""
    for name in (told, source):
        if name is not None and name in frame.columns:
            return name
    if "id" in frame.columns:
        return "id"
    return _by_name(role, frame.columns, frame, path) or frame.columns[0]
