"""The store in Redis, for services on several machines that have one. Needs the extra `redis` (redis-py).

Durable where the server syncs its append-only file at every write (appendonly yes, appendfsync always); another is refused.
Every event and served answer has a place, counted up; what is written together is written by one script, so by all or none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vitrail.errors import ResourceError, SettingError
from vitrail.serve.store.base import Event, Forgotten, ItemChange, Rate, Served, StoreAway, StoreFull, add_rate, shown_url

if TYPE_CHECKING:
    import redis as library

# ARGV: events, then for each id, user, item, timestamp, request, record; then for each served answer request, user, timestamp, record.
WRITE = """
local fresh, at = {}, 2
for _ = 1, tonumber(ARGV[1]) do
    local id, user, item, timestamp, request, record = unpack(ARGV, at, at + 5)
    at = at + 6
    local new = redis.call('hexists', 'vitrail:event-ids', id) == 0
    if new then
        local place = redis.call('incr', 'vitrail:event-count')
        redis.call('hset', 'vitrail:event-ids', id, place)
        redis.call('hset', 'vitrail:events', place, record)
        redis.call('zadd', 'vitrail:user:' .. user, timestamp, string.format('%016d', place))
        if request ~= '' then redis.call('sadd', 'vitrail:clicked:' .. request, item) end
    end
    fresh[#fresh + 1] = new and 1 or 0
end
while at <= #ARGV do
    local request, user, timestamp, record = unpack(ARGV, at, at + 3)
    at = at + 4
    if redis.call('hexists', 'vitrail:served-ids', request) == 0 then
        local place = redis.call('incr', 'vitrail:served-count')
        redis.call('hset', 'vitrail:served-ids', request, place)
        redis.call('hset', 'vitrail:served', place, record)
        redis.call('zadd', 'vitrail:served-when', timestamp, place)
        if user ~= '' then redis.call('sadd', 'vitrail:served-to:' .. string.sub(user, 2), place) end
    end
end
return fresh
"""
PIECE = 1000
"""Records of one round trip."""


class RedisStore:
    """A store in a Redis server; the client pools its connections."""

    local = False

    def __init__(self, url: str) -> None:
        """Raises ResourceError where redis-py is not installed, StoreAway where the server does not answer, SettingError where it is not durable."""
        try:
            import redis
        except ImportError:
            raise ResourceError('A Redis store needs redis-py: pip install "vitrail[redis]".') from None
        self.url, self._library = url, redis
        try:
            self._client: library.Redis = redis.Redis.from_url(url, decode_responses=True, socket_timeout=10, socket_connect_timeout=5)
        except ValueError:
            raise SettingError(f'The address of the store "{shown_url(url)}" cannot be read: write redis://HOST:PORT/NUMBER.') from None
        with self._told():
            settings: Any = self._client.config_get("append*")
        if settings.get("appendonly") != "yes" or settings.get("appendfsync") != "always":
            self.close()
            raise SettingError(f"Redis at {shown_url(url)} may lose what it has confirmed: set appendonly yes and appendfsync always in its settings.")
        self._write = self._client.register_script(WRITE)

    @contextmanager
    def _told(self) -> Iterator[None]:
        errors, place = self._library.exceptions, shown_url(self.url)
        try:
            yield
        except (errors.ConnectionError, errors.TimeoutError):
            raise StoreAway(f"The store {place} does not answer: check that the server runs and that the address is right.") from None
        except errors.ResponseError as error:
            if isinstance(error, errors.OutOfMemoryError) or "maxmemory" in str(error) or str(error).startswith(("OOM", "MISCONF")):
                raise StoreFull(f"The store {place} has no room: give its server memory and disk; what it holds can still be read.") from None
            raise ResourceError(f"The store {place} failed ({str(error).splitlines()[0][:120]}).") from None

    def write(self, events: Sequence[Sequence[Event]], served: Sequence[Served] = ()) -> list[int]:
        """One script, one sync of the append-only file."""
        flat: list[Any] = [sum(len(batch) for batch in events)]
        for event in (event for batch in events for event in batch):
            flat += [event.id, event.user, event.item, event.timestamp, event.request or "", json.dumps(event)]
        for one in served:
            record = [one.request, one.timestamp, one.variant, one.user, list(one.items), list(one.propensities), one.context]
            flat += [one.request, "" if one.user is None else "=" + one.user, one.timestamp, json.dumps(record)]
        with self._told():
            new: Any = iter(self._write(args=flat))
        return [sum(next(new) for _ in batch) for batch in events]

    def history(self, user: str, limit: int) -> list[Event]:
        """The end of the user's sorted set."""
        with self._told():
            places: Any = self._client.zrevrange(f"vitrail:user:{user}", 0, limit - 1)
            records: Any = self._client.hmget("vitrail:events", [str(int(place)) for place in places]) if places else []
        return [Event(*json.loads(record)) for record in reversed(records) if record]

    def _walk(self, table: str, count: str, after: int, limit: int) -> list[tuple[int, list[Any]]]:
        """Records in the order of their places; places that were erased are passed over."""
        found: list[tuple[int, list[Any]]] = []
        with self._told():
            last = int(str(self._client.get(count) or 0))
            while after < last and len(found) < limit:
                places = range(after + 1, min(after + PIECE, last) + 1)
                records: Any = self._client.hmget(table, [str(place) for place in places])
                found += [(place, json.loads(record)) for place, record in zip(places, records, strict=True) if record]
                after = places[-1]
        return found[:limit]

    def events(self, after: int, limit: int) -> list[tuple[int, Event]]:
        """In the order they came."""
        return [(place, Event(*record)) for place, record in self._walk("vitrail:events", "vitrail:event-count", after, limit)]

    def served(self, after: int, limit: int) -> list[tuple[int, Served]]:
        """In the order they came."""
        return [(place, Served(*record)) for place, record in self._walk("vitrail:served", "vitrail:served-count", after, limit)]

    def clicks(self, requests: Sequence[str]) -> set[tuple[str, str]]:
        """A set for each request, many in one round trip."""
        found: set[tuple[str, str]] = set()
        with self._told():
            for start in range(0, len(requests), PIECE):
                piece = requests[start : start + PIECE]
                pipeline = self._client.pipeline(transaction=False)
                for request in piece:
                    pipeline.smembers(f"vitrail:clicked:{request}")
                found |= {(request, item) for request, items in zip(piece, pipeline.execute(), strict=True) for item in items}
        return found

    def rates(self, since: int) -> dict[str, Rate]:
        """Read and counted here: Redis has no joins."""
        rates: dict[str, Rate] = {}
        with self._told():
            places: Any = self._client.zrangebyscore("vitrail:served-when", since, "+inf")
            for start in range(0, len(places), PIECE):
                records: Any = self._client.hmget("vitrail:served", places[start : start + PIECE])
                some = [Served(*json.loads(record)) for record in records if record]
                clicked: dict[str, set[str]] = {}
                for request, item in self.clicks([one.request for one in some]):
                    clicked.setdefault(request, set()).add(item)
                for one in some:
                    add_rate(rates, one.variant, one.items, clicked.get(one.request, set()))
        return rates

    def change_items(self, changes: Sequence[ItemChange]) -> int:
        """Read, merged and written in one transaction, which starts over where another process was quicker."""
        last = 0

        def merge(pipeline: Any) -> None:
            nonlocal last
            last = int(pipeline.get("vitrail:items-version") or 0)
            known = [json.loads(text)[0] if text else {} for text in pipeline.hmget("vitrail:items", [change.item for change in changes])]
            merged = dict(zip((change.item for change in changes), known, strict=True))
            pipeline.multi()
            for change in changes:
                last += 1
                merged[change.item] = merged[change.item] | change.attributes
                pipeline.hset("vitrail:items", change.item, json.dumps([merged[change.item], change.withdrawn, last]))
            pipeline.set("vitrail:items-version", last)

        with self._told():
            if changes:
                self._client.transaction(merge, "vitrail:items-version")
        return last or int(str(self._client.get("vitrail:items-version") or 0))

    def item_changes(self, after: int = 0) -> list[ItemChange]:
        """By version."""
        with self._told():
            if int(str(self._client.get("vitrail:items-version") or 0)) <= after:
                return []
            rows: Any = self._client.hgetall("vitrail:items")
        changes = [ItemChange(item, *json.loads(text)) for item, text in rows.items()]
        return sorted((change for change in changes if change.version > after), key=lambda change: change.version)

    def put_state(self, name: str, value: str) -> None:
        """Replaced as a whole."""
        with self._told():
            self._client.hset("vitrail:state", name, value)

    def get_state(self, name: str) -> str | None:
        """As it was put."""
        with self._told():
            found: Any = self._client.hget("vitrail:state", name)
        return found

    def forget(self, user: str) -> Forgotten:
        """Deletes, then has the server write its append-only file anew (and its snapshot, where it keeps one)."""
        with self._told():
            client: Any = self._client
            events = [str(int(place)) for place in client.zrange(f"vitrail:user:{user}", 0, -1)]
            served = list(client.smembers(f"vitrail:served-to:{user}"))
            pipeline = client.pipeline(transaction=True)
            for keys, table, ids in ((events, "vitrail:events", "vitrail:event-ids"), (served, "vitrail:served", "vitrail:served-ids")):
                records = [json.loads(record) for record in (client.hmget(table, keys) if keys else []) if record]
                if records:
                    pipeline.hdel(ids, *(record[0] for record in records))
                    pipeline.hdel(table, *keys)
                if table == "vitrail:served" and records:
                    pipeline.zrem("vitrail:served-when", *keys)
                    pipeline.delete(*(f"vitrail:clicked:{record[0]}" for record in records))
            pipeline.delete(f"vitrail:user:{user}", f"vitrail:served-to:{user}")
            pipeline.execute()
            self._rewritten(client.bgrewriteaof, "aof_rewrite_in_progress")
            if client.config_get("save").get("save"):
                self._rewritten(client.bgsave, "rdb_bgsave_in_progress")
        return Forgotten(len(events), len(served))

    def _rewritten(self, begin: Callable[[], Any], sign: str) -> None:
        """Has a file written anew, and waits for it: first for one under way, which still has the old content."""

        def busy() -> bool:
            facts: Any = self._client.info("persistence")
            return any(facts.get(name) for name in ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress"))

        for act in (None, begin):
            if act is not None:
                act()
            until = time.monotonic() + 60
            while busy():
                if time.monotonic() > until:
                    raise StoreAway(f"The user is deleted from {shown_url(self.url)}, but {sign} is still set after a minute: run forget again.")
                time.sleep(0.02)

    def ping(self) -> None:
        """One look."""
        with self._told():
            self._client.ping()

    def close(self) -> None:
        """Of the pool."""
        self._client.close()
