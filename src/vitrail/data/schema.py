"""The data contract: which roles columns play, what an item attribute is, what a system may ask of a data set."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from vitrail.config import Settings
from vitrail.data.declare import Feature
from vitrail.errors import DataError

FORMAT = 1
"""Version of the data-set folder. A reader refuses a newer one."""

Role = Literal["user", "item", "timestamp", "position", "event", "value", "part"]
"""Roles of interaction columns. `part` is train, valid or test in files that come split."""

Kind = Literal["number", "category", "categories", "text", "image", "flag", "date", "id"]
"""Kinds of attribute: `categories` is a list of categories; `image` a path relative to the data-set folder's
`image_root` or an absolute one; `id` an identifier of another house that is no feature."""

Order = Literal["timestamp", "position", "none"]


class FileRecord(Settings):
    """One file of the folder."""

    sha256: str
    rows: int | None = None


class DatasetInfo(Settings):
    """`dataset.yaml`."""

    format: int = FORMAT
    name: str
    source: list[str] = []
    """Where the rows came from: file names, or the simulator with its settings."""
    licence: str | None = None
    roles: dict[str, str] = {}
    """role -> the column it had in the source files."""
    units: dict[str, str] = {}
    order: Order
    """What orders a user's events."""
    timed_parts: list[str] = []
    """Where `order` is `timestamp` but only some parts have times (train timed, valid and test not)."""
    positive: str | None = None
    """What counts as an interaction, e.g. `value >= 4`; none: every event."""
    weights: dict[str, float] | None = None
    """event -> weight, e.g. {view: 1, cart: 3, buy: 5}."""
    repeats: Literal["keep", "first", "last"] = "keep"
    """What happens to repeated (user, item) events."""
    predefined: bool = False
    """Whether the rows carry a `part`."""
    counts: dict[str, int] = {}
    """users, items, events, rejected, repaired."""
    columns: dict[str, dict[str, Kind]] = {}
    """table (items, users, interactions) -> attribute -> kind."""
    features: dict[str, Feature] = {}
    """Declared features of rankers (data.declare)."""
    image_root: str | None = None
    files: dict[str, FileRecord] = {}
    origin: dict[str, Any] = {}
    """Free facts: flags used at ingest, simulator settings."""


class Needs(Settings):
    """What a system asks of a data set. Checked against the schema before any row is read."""

    history: tuple[str, ...] = ("item",)
    target: Literal["item"] = "item"
    order: Literal["sequence"] | None = None
    """`sequence`: events of a user must be ordered, by a timestamp or a position."""
    timestamp: bool = False
    """Events must have a clock time."""
    vectors: tuple[str, ...] = ()
    """Names of content vectors of items; a system whose settings have `vectors` needs those (see systems.base.System.wants)."""
    given: tuple[Literal["interactions", "item_counts", "attributes", "texts"], ...] = ()
    """Train-only facts handed to `build` (see systems.base.Given); `attributes` and `texts`: what the catalogue says of items (data.item_facts)."""

    def check(self, info: DatasetInfo, system: str, vectors: Collection[str] = ()) -> None:
        """`vectors` are the names of those the data set has. Raises DataError: one sentence that says what to add."""
        if self.order == "sequence" and info.order == "none":
            raise DataError(
                f'System "{system}" needs ordered events, and data set "{info.name}" has no timestamp or position: '
                "ingest it again with --timestamp COLUMN, --position COLUMN or, for per-line files, --ordered."
            )
        if self.timestamp and info.order != "timestamp":
            raise DataError(f'System "{system}" needs clock times, and data set "{info.name}" has none: ingest it again with --timestamp COLUMN.')
        kinds = set(info.columns.get("items", {}).values())
        for fact, able in (("attributes", {"category", "categories", "flag", "number"}), ("texts", {"text", "category", "categories"})):
            if fact in self.given and not kinds & able:
                raise DataError(
                    f'System "{system}" reads {fact} of items, and data set "{info.name}" has none: ingest it again with a file of items (--items FILE).'
                )
        missing = [name for name in self.vectors if name not in vectors]
        if missing:
            name = missing[0]
            there = f"it has {', '.join(sorted(vectors))}" if vectors else "it has none"
            how = f"--{name} ENCODER" if name in ("text", "image") else f"--name {name}"
            raise DataError(
                f'System "{system}" needs the vectors "{name}" of data set "{info.name}", and {there}: make them with `vitrail content encode DATA {how}`, '
                "bring yours with `vitrail content import`, or name others with --set vectors=[...]."
            )
