"""The store in PostgreSQL, for services on several machines. Needs the extra `postgres` (psycopg 3).

Durable as the server is: `synchronous_commit` is set to on for every session of ours.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vitrail.errors import ResourceError
from vitrail.serve.store.base import Event, Forgotten, ItemChange, Rate, Served, StoreAway, StoreFull, shown_url

if TYPE_CHECKING:
    import psycopg

TABLES = """
create table if not exists vitrail_events(place bigserial primary key, id text not null unique, "user" text not null, item text not null,
    timestamp bigint not null, kind text not null, value double precision, request text, context text);
create index if not exists vitrail_events_of_user on vitrail_events("user", timestamp, place);
create index if not exists vitrail_events_of_request on vitrail_events(request, item) where request is not null;
create table if not exists vitrail_served(place bigserial primary key, request text not null unique, timestamp bigint not null,
    variant text not null, "user" text, items jsonb not null, propensities jsonb not null, context text);
create index if not exists vitrail_served_to_user on vitrail_served("user") where "user" is not null;
create index if not exists vitrail_served_when on vitrail_served(timestamp);
create table if not exists vitrail_items(item text primary key, attributes jsonb not null, withdrawn boolean not null, version bigint not null);
create index if not exists vitrail_items_by_version on vitrail_items(version);
create table if not exists vitrail_state(name text primary key, value text not null);
"""
EVENT = 'id, "user", item, timestamp, kind, value, request, context'
SERVED = 'request, timestamp, variant, "user", items, propensities, context'
PUT_EVENT = f"insert into vitrail_events({EVENT}) values(%s, %s, %s, %s, %s, %s, %s, %s) on conflict(id) do nothing"
PUT_SERVED = f"insert into vitrail_served({SERVED}) values(%s, %s, %s, %s, %s::jsonb, %s::jsonb, %s) on conflict(request) do nothing"
PUT_ITEM = """
insert into vitrail_items(item, attributes, withdrawn, version) values(%s, %s::jsonb, %s, %s)
on conflict(item) do update set attributes = vitrail_items.attributes || excluded.attributes, withdrawn = excluded.withdrawn, version = excluded.version
"""
RATES = """
with hit as (
    select s.variant, s.request, count(distinct e.item) as items from vitrail_served s join vitrail_events e on e.request = s.request
    where s.timestamp >= %(since)s and jsonb_exists(s.items, e.item) group by s.variant, s.request
), clicks as (select variant, count(*) as requests, sum(items) as items from hit group by variant),
given as (select variant, count(*) as requests, sum(jsonb_array_length(items)) as shown from vitrail_served where timestamp >= %(since)s group by variant)
select given.variant, given.requests, given.shown::bigint, coalesce(clicks.items, 0)::bigint, coalesce(clicks.requests, 0)
from given left join clicks using (variant)
"""
ITEMS_LOCK = 7_238_113
"""Key of the advisory lock under which versions of items are given out."""


class PostgresStore:
    """A store in a database of a PostgreSQL server; each thread has its own connection."""

    local = False

    def __init__(self, url: str) -> None:
        """Raises ResourceError where psycopg is not installed, StoreAway where the server does not answer."""
        try:
            import psycopg
        except ImportError:
            raise ResourceError('A PostgreSQL store needs psycopg: pip install "vitrail[postgres]".') from None
        self.url, self._psycopg, self._threads = url, psycopg, threading.local()
        self._opened: list[psycopg.Connection[Any]] = []
        with self._transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", (ITEMS_LOCK,))  # two workers that start at once must not both make the tables
            cursor.execute(TABLES)

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        try:
            connection = getattr(self._threads, "connection", None)
            if connection is None or connection.closed or connection.broken:
                connection = self._psycopg.connect(self.url, connect_timeout=5, options="-c synchronous_commit=on")
                self._threads.connection = connection
                self._opened.append(connection)
            with connection.transaction(), connection.cursor() as cursor:
                yield cursor
        except self._psycopg.Error as error:
            raise self._told(error) from None

    def _told(self, error: psycopg.Error) -> ResourceError:
        place = shown_url(self.url)
        if error.sqlstate in ("53100", "53200"):
            return StoreFull(f"The store {place} has no room: free some space on its server; what it holds can still be read.")
        if isinstance(error, self._psycopg.OperationalError):
            return StoreAway(f"The store {place} does not answer: check that the server runs and that the address, user and password are right.")
        return ResourceError(f"The store {place} failed ({type(error).__name__}, {error.sqlstate}).")

    def _rows(self, query: Any, values: Any = ()) -> list[Any]:
        with self._transaction() as cursor:
            return list(cursor.execute(query, values).fetchall())

    def write(self, events: Sequence[Sequence[Event]], served: Sequence[Served] = ()) -> list[int]:
        """One transaction."""
        fresh = []
        with self._transaction() as cursor:
            for batch in events:
                if batch:
                    cursor.executemany(PUT_EVENT, batch)
                fresh.append(cursor.rowcount if batch else 0)
            if served:
                rows = [
                    (s.request, s.timestamp, s.variant, s.user, json.dumps(list(s.items)), json.dumps(list(s.propensities)), s.context) for s in served
                ]
                cursor.executemany(PUT_SERVED, rows)
        return fresh

    def history(self, user: str, limit: int) -> list[Event]:
        """One look into an index."""
        rows = self._rows(f'select {EVENT} from vitrail_events where "user" = %s order by timestamp desc, place desc limit %s', (user, limit))
        return [Event(*row) for row in reversed(rows)]

    def events(self, after: int, limit: int) -> list[tuple[int, Event]]:
        """In the order they came."""
        rows = self._rows(f"select place, {EVENT} from vitrail_events where place > %s order by place limit %s", (after, limit))
        return [(row[0], Event(*row[1:])) for row in rows]

    def served(self, after: int, limit: int) -> list[tuple[int, Served]]:
        """In the order they came."""
        rows = self._rows(f"select place, {SERVED} from vitrail_served where place > %s order by place limit %s", (after, limit))
        return [(row[0], Served(*row[1:])) for row in rows]

    def clicks(self, requests: Sequence[str]) -> set[tuple[str, str]]:
        """Joined in the database."""
        return set(self._rows("select distinct request, item from vitrail_events where request = any(%s)", (list(requests),)))

    def rates(self, since: int) -> dict[str, Rate]:
        """Counted in the database."""
        return {row[0]: Rate(*row[1:]) for row in self._rows(RATES, {"since": since})}

    def change_items(self, changes: Sequence[ItemChange]) -> int:
        """Merged in one transaction; one at a time, so that versions are seen in order."""
        with self._transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", (ITEMS_LOCK,))
            (version,) = cursor.execute("select coalesce(max(version), 0) from vitrail_items").fetchone() or (0,)
            for change in changes:
                version += 1
                cursor.execute(PUT_ITEM, (change.item, json.dumps(change.attributes), change.withdrawn, version))
        return int(version)

    def item_changes(self, after: int = 0) -> list[ItemChange]:
        """By version."""
        rows = self._rows("select item, attributes, withdrawn, version from vitrail_items where version > %s order by version", (after,))
        return [ItemChange(*row) for row in rows]

    def put_state(self, name: str, value: str) -> None:
        """Replaced as a whole."""
        with self._transaction() as cursor:
            cursor.execute("insert into vitrail_state(name, value) values(%s, %s) on conflict(name) do update set value = excluded.value", (name, value))

    def get_state(self, name: str) -> str | None:
        """As it was put."""
        rows = self._rows("select value from vitrail_state where name = %s", (name,))
        return rows[0][0] if rows else None

    def forget(self, user: str) -> Forgotten:
        """Deletes, then writes the tables anew, so that no dead row stays in their files; the server's own log is its keeper's matter."""
        with self._transaction() as cursor:
            events = cursor.execute('delete from vitrail_events where "user" = %s', (user,)).rowcount
            requests = cursor.execute('delete from vitrail_served where "user" = %s', (user,)).rowcount
        try:
            with self._psycopg.connect(self.url, connect_timeout=5, autocommit=True) as connection:
                connection.execute("vacuum full vitrail_events")
                connection.execute("vacuum full vitrail_served")
        except self._psycopg.Error as error:
            raise self._told(error) from None
        return Forgotten(events, requests)

    def ping(self) -> None:
        """One look."""
        self._rows("select 1")

    def close(self) -> None:
        """Of every thread."""
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._threads = threading.local()
