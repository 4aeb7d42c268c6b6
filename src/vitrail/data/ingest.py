"""Files -> a data-set folder: roles are guessed and shown, rows mended or rejected with a reason, nothing written unless all went well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from vitrail.config import Settings
from vitrail.data.schema import Kind, Order
from vitrail.errors import DataError

if TYPE_CHECKING:
    from vitrail.data.dataset import Dataset
    from vitrail.data.readers_folder import Sources
    from vitrail.data.roles import RoleGuess

Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class IngestSettings(Settings):
    """What to read how; whatever is not told is guessed and shown."""

    name: str | None = None
    """Name of the data set; by default that of the folder it is written to."""
    user: str | None = None
    """Column of the user (or session) id."""
    item: str | None = None
    """Column of the item id."""
    timestamp: str | None = None
    """Column of the time of an event; "none": there is no such column."""
    position: str | None = None
    """Column of whole numbers that order a user's events; "none": there is no such column."""
    event: str | None = None
    """Column of the kind of event (view, cart, buy); "none": there is no such column."""
    value: str | None = None
    """Column of a rating or count; "none": there is no such column."""
    part: str | None = None
    """Column that says train, valid or test; "none": there is no such column."""
    item_key: str | None = None
    """Column of the item id in the items files, where it is not found by itself."""
    user_key: str | None = None
    """Column of the user id in the users files, where it is not found by itself."""
    ordered: bool = False
    """The order of the file is the order of events (per-line files, and tables without a time)."""
    format: Literal["csv", "tsv", "jsonl", "parquet", "atomic", "lines"] | None = None
    """Format of the files of events; by default found out."""
    separator: str | None = None
    """What separates the fields of the files of events; by default found out."""
    header: bool | None = None
    """Whether the first line of the files of events names the columns; by default found out."""
    encoding: str = "utf-8"
    """Encoding of text files. A row that is not such text is rejected."""
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    """Unit of numeric times; by default found by their size."""
    positive: str | None = None
    """What counts as an interaction, e.g. "value >= 4"; by default every event."""
    weights: dict[str, Weight] | None = None
    """Weight of each kind of event, e.g. view=1 cart=3 buy=5; a kind without weight does not count."""
    repeats: Literal["keep", "first", "last"] = "keep"
    """Whether repeated events of one user with one item all count, or the first or last alone."""
    keep_duplicates: bool = False
    """Keep rows that equal an earlier row in every column."""
    min_user_events: int = Field(default=0, ge=0)
    """Drop users with fewer events, together with `min_item_events`, until none is left that has too few."""
    min_item_events: int = Field(default=0, ge=0)
    """Drop items with fewer events."""
    part_event: str | None = None
    """Kind of event of the rows of valid and test files, where the other files have kinds and these have none."""
    columns: dict[str, Kind] = {}
    """Corrections of the kinds of attributes, e.g. year=number genres=categories."""
    images: Path | None = None
    """Folder of pictures named by item id (42.jpg)."""
    image_root: Path | None = None
    """Folder that paths of pictures are relative to; by default that of the pictures or of the items file."""
    licence: str | None = None
    """Licence of the data, for the record."""


@dataclass(frozen=True)
class FileGuess:
    """How one file is read."""

    path: str
    table: str
    """interactions, items or users"""
    format: str
    separator: str | None = None
    header: bool = False
    part: str | None = None
    event: str | None = None
    roles: dict[str, RoleGuess] = field(default_factory=dict)


@dataclass(frozen=True)
class ColumnGuess:
    """One attribute or context column."""

    kind: Kind
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Guess:
    """How everything is read; shown before or after ingest."""

    files: tuple[FileGuess, ...]
    columns: dict[str, dict[str, ColumnGuess]]
    """table (interactions, items, users) -> column -> kind"""
    order: Order
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and mappings, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class IngestReport:
    """What became of the rows. `kept` + rejected + duplicates + events removed by the k-core = rows read."""

    dataset: Dataset
    guess: Guess
    kept: int
    repaired: dict[str, int]
    rejected: dict[str, int]
    removed: dict[str, int]
    """what the k-core took: users, items, events"""

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and mappings, for JSON."""
        counts = self.dataset.info.counts
        return {
            "dataset": str(self.dataset.path),
            "name": self.dataset.info.name,
            "users": counts["users"],
            "items": counts["items"],
            "events": counts["events"],
            "kept": self.kept,
            "repaired": self.repaired,
            "rejected": self.rejected,
            "removed": self.removed,
            "guess": self.guess.to_dict(),
        }


def inspect(
    files: Sequence[Path | str] = (),
    *,
    train: Path | None = None,
    valid: Path | None = None,
    test: Path | None = None,
    items: Sequence[Path] = (),
    users: Sequence[Path] = (),
    events: Mapping[str, Path] | None = None,
    settings: IngestSettings | None = None,
) -> Guess:
    """Look at the first rows of each file and say how they would be read; nothing is written. Raises what `ingest` raises for what it sees."""
    from vitrail.data.assemble import guess
    from vitrail.data.readers_text import HEAD

    told = settings or IngestSettings()
    return guess(_sources(files, train, valid, test, items, users, events, told), told, HEAD)


def ingest(
    files: Sequence[Path | str] = (),
    *,
    out: Path | str,
    train: Path | None = None,
    valid: Path | None = None,
    test: Path | None = None,
    items: Sequence[Path] = (),
    users: Sequence[Path] = (),
    events: Mapping[str, Path] | None = None,
    settings: IngestSettings | None = None,
    overwrite: bool = False,
) -> IngestReport:
    """Read files (or a folder of known form) and write the data-set folder `out`.

    `train`, `valid`, `test`: files that come split. `items`, `users`: files of attributes. `events`: kind of event -> file.
    Raises DataError for input that cannot be used (one sentence with the remedy), ResourceError for a full disk; then nothing is written.
    """
    from vitrail.data.assemble import run

    told, target = settings or IngestSettings(), Path(out)
    if target.exists() and not overwrite and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} exists already: choose another place, or pass --overwrite.")
    return run(_sources(files, train, valid, test, items, users, events, told), told, target, overwrite=overwrite)


def _sources(
    files: Sequence[Path | str],
    train: Path | None,
    valid: Path | None,
    test: Path | None,
    items: Sequence[Path],
    users: Sequence[Path],
    events: Mapping[str, Path] | None,
    told: IngestSettings,
) -> Sources:
    from vitrail.data.readers_folder import gather

    return gather([Path(p) for p in files], train=train, valid=valid, test=test, items=items, users=users, events=events or {}, images=told.images)
