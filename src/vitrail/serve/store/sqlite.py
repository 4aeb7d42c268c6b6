"""The embedded store: one SQLite file, with a write-ahead log synced at every commit.

A commit is on disk before `write` returns (synchronous=FULL), readers never wait for it, and several processes share the file.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from vitrail.errors import ResourceError
from vitrail.serve.store.base import Event, Forgotten, ItemChange, Rate, Served, StoreAway, StoreFull

T = TypeVar("T")

SECONDS_TO_WAIT = 5.0
"""For another process that writes."""

TABLES = """
create table if not exists events(place integer primary key autoincrement, id text not null unique, user text not null, item text not null,
    timestamp integer not null, kind text not null, value real, request text, context text);
create index if not exists events_of_user on events(user, timestamp, place);
create index if not exists events_of_request on events(request, item) where request is not null;
create table if not exists served(place integer primary key autoincrement, request text not null unique, timestamp integer not null,
    variant text not null, user text, items text not null, shown integer not null, propensities text not null, context text);
create index if not exists served_to_user on served(user) where user is not null;
create index if not exists served_when on served(timestamp, variant, shown);
create table if not exists items(item text primary key, attributes text not null, withdrawn integer not null, version integer not null);
create index if not exists items_by_version on items(version);
create table if not exists state(name text primary key, value text not null);
"""
EVENT = "id, user, item, timestamp, kind, value, request, context"
SERVED = "request, timestamp, variant, user, items, propensities, context"
PUT_EVENT = f"insert into events({EVENT}) values(?, ?, ?, ?, ?, ?, ?, ?) on conflict(id) do nothing"
PUT_SERVED = f"insert into served({SERVED}, shown) values(?, ?, ?, ?, ?, ?, ?, ?) on conflict(request) do nothing"
RATES = """
with hit as (
    select served.variant as variant, served.request as request, count(distinct events.item) as items from served join events on events.request = served.request
    where served.timestamp >= :since and exists (select 1 from json_each(served.items) where json_each.value = events.item) group by served.request
), clicks as (select variant, count(*) as requests, sum(items) as items from hit group by variant),
given as (select variant, count(*) as requests, sum(shown) as shown from served where timestamp >= :since group by variant)
select given.variant, given.requests, given.shown, coalesce(clicks.items, 0), coalesce(clicks.requests, 0) from given left join clicks using (variant)
"""


class SqliteStore:
    """A store in a file; each thread has its own connection."""

    local = True

    def __init__(self, path: str | Path) -> None:
        """Raises ResourceError where the file cannot be opened, or is no database."""
        self.path = Path(path)
        self.url = f"sqlite:///{self.path}"
        self._threads = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        if not self.path.parent.is_dir():
            raise ResourceError(f"There is no folder {self.path.parent} for the store {self.path.name}: make it, or name another place with --store.")
        try:
            self._connection().executescript(TABLES)
        except sqlite3.Error as error:
            self.close()
            raise _told(error, self.path) from None

    def _connection(self) -> sqlite3.Connection:
        found = getattr(self._threads, "connection", None)
        if found is None:
            found = sqlite3.connect(self.path, timeout=SECONDS_TO_WAIT, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=wal", "synchronous=full", "temp_store=memory", "cache_size=-16384", "journal_size_limit=67108864"):
                found.execute(f"pragma {pragma}")
            self._threads.connection = found
            with self._lock:
                self._opened.append(found)
        return found

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._connection()
            connection.execute("begin immediate")
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise
        except sqlite3.Error as error:
            raise _told(error, self.path) from None

    def _rows(self, query: str, values: Any = ()) -> list[Any]:
        try:
            return self._connection().execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _told(error, self.path) from None

    def write(self, events: Sequence[Sequence[Event]], served: Sequence[Served] = ()) -> list[int]:
        """One transaction, one sync of the disk."""
        fresh = []
        with self._transaction() as connection:
            for batch in events:
                before = connection.total_changes
                connection.executemany(PUT_EVENT, batch)
                fresh.append(connection.total_changes - before)
            if served:
                connection.executemany(PUT_SERVED, [(*_packed(one), len(one.items)) for one in served])
        return fresh

    def history(self, user: str, limit: int) -> list[Event]:
        """One look into an index."""
        rows = self._rows(f"select {EVENT} from events where user = ? order by timestamp desc, place desc limit ?", (user, limit))
        return [Event._make(row) for row in reversed(rows)]

    def events(self, after: int, limit: int) -> list[tuple[int, Event]]:
        """In the order they came."""
        rows = self._rows(f"select place, {EVENT} from events where place > ? order by place limit ?", (after, limit))
        return [(row[0], Event(*row[1:])) for row in rows]

    def served(self, after: int, limit: int) -> list[tuple[int, Served]]:
        """In the order they came."""
        rows = self._rows(f"select place, {SERVED} from served where place > ? order by place limit ?", (after, limit))
        return [(row[0], _unpacked(row[1:])) for row in rows]

    def clicks(self, requests: Sequence[str]) -> set[tuple[str, str]]:
        """Joined in the database, however many they are."""
        query = "select distinct request, item from events where request in (select value from json_each(?))"
        return set(self._rows(query, (json.dumps(list(requests)),)))

    def rates(self, since: int) -> dict[str, Rate]:
        """Counted in the database."""
        return {row[0]: Rate(*row[1:]) for row in self._rows(RATES, {"since": since})}

    def change_items(self, changes: Sequence[ItemChange]) -> int:
        """Merged in one transaction."""
        with self._transaction() as connection:
            version = connection.execute("select coalesce(max(version), 0) from items").fetchone()[0]
            for change in changes:
                version += 1
                row = connection.execute("select attributes from items where item = ?", (change.item,)).fetchone()
                merged = (json.loads(row[0]) if row else {}) | change.attributes
                values = (change.item, json.dumps(merged), change.withdrawn, version)
                connection.execute("insert or replace into items(item, attributes, withdrawn, version) values(?, ?, ?, ?)", values)
        return int(version)

    def item_changes(self, after: int = 0) -> list[ItemChange]:
        """By version."""
        rows = self._rows("select item, attributes, withdrawn, version from items where version > ? order by version", (after,))
        return [ItemChange(item, json.loads(attributes), bool(withdrawn), version) for item, attributes, withdrawn, version in rows]

    def put_state(self, name: str, value: str) -> None:
        """Replaced as a whole."""
        with self._transaction() as connection:
            connection.execute("insert or replace into state(name, value) values(?, ?)", (name, value))

    def get_state(self, name: str) -> str | None:
        """As it was put."""
        rows = self._rows("select value from state where name = ?", (name,))
        return rows[0][0] if rows else None

    def forget(self, user: str) -> Forgotten:
        """Deletes with zeros over the freed space, then writes the file anew and cuts the write-ahead log to nothing."""
        self._rows("pragma secure_delete=on")
        with self._transaction() as connection:
            events = connection.execute("delete from events where user = ?", (user,)).rowcount
            requests = connection.execute("delete from served where user = ?", (user,)).rowcount

        def clean() -> bool:
            self._connection().execute("vacuum")
            return self._connection().execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0

        if not self._patiently(clean):
            raise StoreAway(f"The user is deleted from {self.path}, but traces stay in its write-ahead log while others read it: run forget again.")
        return Forgotten(events, requests)

    def _patiently(self, act: Callable[[], bool]) -> bool:
        """Try until it works, for as long as a writer is waited for."""
        until = time.monotonic() + SECONDS_TO_WAIT
        while True:
            try:
                if act():
                    return True
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) and "busy" not in str(error):
                    raise _told(error, self.path) from None
            if time.monotonic() > until:
                return False
            time.sleep(0.02)

    def ping(self) -> None:
        """One look."""
        self._rows("select 1")

    def close(self) -> None:
        """Of every thread."""
        with self._lock:
            opened, self._opened = self._opened, []
        for connection in opened:
            connection.close()
        self._threads = threading.local()


def _packed(one: Served) -> tuple[Any, ...]:
    items, chances = json.dumps(list(one.items)), json.dumps(list(one.propensities))
    return one.request, one.timestamp, one.variant, one.user, items, chances, one.context


def _unpacked(row: Sequence[Any]) -> Served:
    request, timestamp, variant, user, items, chances, context = row
    return Served(request, timestamp, variant, user, json.loads(items), json.loads(chances), context)


def _told(error: sqlite3.Error, path: Path) -> ResourceError:
    """The error as one sentence."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or "disk I/O" in str(error):
        return StoreFull(f"The store {path} has no room (disk full): free some space; what it holds can still be read.")
    if code == sqlite3.SQLITE_BUSY:
        return StoreAway(f"The store {path} is held by another writer for more than {SECONDS_TO_WAIT:g} seconds: try again.")
    if code == sqlite3.SQLITE_NOTADB or code == sqlite3.SQLITE_CORRUPT:
        return ResourceError(f"{path} is not a store of Vitrail or is damaged: restore it from a copy, or name another file with --store.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return ResourceError(f"The store {path} cannot be opened for writing: check its permissions, or name another place with --store.")
    return ResourceError(f"The store {path} failed ({error}).")
