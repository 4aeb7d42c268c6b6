"""What the service asks of a store, and the records that pass: events, served answers, changes of items, a named state.

An event is durable when `write` returns, and is there once however often it is sent: its event id says which it is.
Times are microseconds since 1970, UTC. A store is used from several threads and, but for memory, from several processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vitrail.errors import DataError, ResourceError, SettingError, did_you_mean

KINDS = ("sqlite", "postgresql", "redis")
"""Stores by the scheme of their URL."""
VECTORS = "\x1fvectors"
"""Among the attributes of a change, the content of a new item; no column of a catalogue has such a name."""


class StoreFull(ResourceError):
    """The store has no room: what was sent is not kept, what is there can be read."""


class StoreAway(ResourceError):
    """The store cannot be reached or does not answer in time."""


class Event(NamedTuple):
    """Something a user did with an item. A tuple, because a history makes many of them for one answer."""

    id: str
    user: str
    item: str
    timestamp: int
    kind: str = "click"
    value: float | None = None
    request: str | None = None
    """request id of the answer that showed the item"""
    context: str | None = None
    """JSON object"""


class Served(NamedTuple):
    """An answer that was given."""

    request: str
    timestamp: int
    variant: str
    user: str | None = None
    items: Sequence[str] = ()
    """as shown: the first is at position 1"""
    propensities: Sequence[float] = ()
    """the chance with which the policy put each item where it was"""
    context: str | None = None
    """JSON object"""


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What is said of an item beside the artifact: attributes that are new or other, and whether it is withdrawn."""

    item: str
    attributes: dict[str, Any] = field(default_factory=dict)
    withdrawn: bool = False
    version: int = 0
    """given by the store, rising with every change of any item"""

    @property
    def told(self) -> dict[str, Any]:
        """The attributes without the content."""
        return {name: value for name, value in self.attributes.items() if name != VECTORS}

    @property
    def vectors(self) -> dict[str, list[float]]:
        """Name of vectors -> (D,) what a new item says and shows, by the encoders of the model."""
        found: dict[str, list[float]] = self.attributes.get(VECTORS, {})
        return found


@dataclass(frozen=True, slots=True)
class Rate:
    """What became of a variant's answers."""

    requests: int = 0
    shown: int = 0
    """items"""
    clicked: int = 0
    """items with an event that names the request"""
    clicked_requests: int = 0
    """requests with such an item"""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was erased of a user."""

    events: int = 0
    requests: int = 0


class Store(Protocol):
    """Every method raises StoreFull or StoreAway where the store cannot do it; what is given it is data, never part of a command."""

    url: str
    local: bool
    """Reads take microseconds, so they need no thread of their own."""

    def write(self, events: Sequence[Sequence[Event]], served: Sequence[Served] = ()) -> list[int]:
        """Keep batches of events and served answers in one transaction; durable when it returns.

        -> how many events of each batch were new. An event or request id that is there already stays as it is.
        """
        ...

    def history(self, user: str, limit: int) -> list[Event]:
        """The newest `limit` events of a user, oldest first; of one instant, in the order they came."""
        ...

    def events(self, after: int, limit: int) -> list[tuple[int, Event]]:
        """Up to `limit` events in the order they came, with their place, beyond the place `after` (0: from the first)."""
        ...

    def served(self, after: int, limit: int) -> list[tuple[int, Served]]:
        """Up to `limit` served answers in the order they came, with their place, beyond the place `after`."""
        ...

    def clicks(self, requests: Sequence[str]) -> set[tuple[str, str]]:
        """(request id, item) of the events that name one of `requests`."""
        ...

    def rates(self, since: int) -> dict[str, Rate]:
        """Per variant, over answers given at `since` or later."""
        ...

    def change_items(self, changes: Sequence[ItemChange]) -> int:
        """Keep what is said of items: attributes are merged into what was said before. -> the newest version."""
        ...

    def item_changes(self, after: int = 0) -> list[ItemChange]:
        """What is said of the items changed beyond version `after`, in the order of versions."""
        ...

    def put_state(self, name: str, value: str) -> None:
        """Keep a JSON text by name, for all processes of the service."""
        ...

    def get_state(self, name: str) -> str | None:
        """The JSON text kept by `name`."""
        ...

    def forget(self, user: str) -> Forgotten:
        """Erase a user: events, served answers and the places on disk where they were."""
        ...

    def ping(self) -> None:
        """Returns where the store answers."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def open_store(url: str | Path) -> Store:
    """The store at `url`: a path or sqlite:///path (a file), postgresql://... , redis://... .

    Raises SettingError for an unknown kind, ResourceError where it cannot be opened or its library is missing.
    """
    text = str(url)
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "sqlite", text
    elif scheme == "sqlite":
        rest = rest.removeprefix("/")
    if scheme == "sqlite":
        from vitrail.serve.store.sqlite import SqliteStore

        if not rest:
            raise SettingError("The store names no file: write a path, or sqlite:///PATH.")
        return SqliteStore(Path(rest))
    if scheme in ("postgresql", "postgres"):
        from vitrail.serve.store.postgres import PostgresStore

        return PostgresStore(text)
    if scheme in ("redis", "rediss", "unix"):
        from vitrail.serve.store.redis import RedisStore

        return RedisStore(text)
    raise SettingError(f'There is no kind of store "{scheme}".{did_you_mean(scheme, KINDS)}')


def open_existing(url: str) -> Store:
    """The store at `url`; raises DataError where that would make a new file, and as `open_store`."""
    path = url.partition(":///")[2] if url.startswith("sqlite:///") else url
    if "://" not in path and not Path(path).is_file():
        raise DataError(f"There is no store at {path}: a service keeps its own beside the run it serves, as RUN.store.sqlite.")
    return open_store(url)


def shown_url(url: str) -> str:
    """`url` without its password, for people and logs."""
    scheme, separator, rest = url.partition("://")
    secret, at, host = rest.rpartition("@")
    return f"{scheme}://{secret.partition(':')[0]}@{host}" if separator and at else url


def add_rate(rates: dict[str, Rate], variant: str, items: Sequence[str], clicked: set[str]) -> None:
    """Count one served answer in `rates`; `clicked` are the items of events that name it."""
    old, hits = rates.get(variant, Rate()), len(clicked & set(items))
    rates[variant] = Rate(old.requests + 1, old.shown + len(items), old.clicked + hits, old.clicked_requests + (hits > 0))
