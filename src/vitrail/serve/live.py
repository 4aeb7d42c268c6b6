"""What the routes of one service share: models, store, items that changed; and what happens to a question on its way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import orjson
import polars as pl

from vitrail.data.conditions import matches
from vitrail.errors import ResourceError, VitrailError
from vitrail.evaluation.intervals import wilson
from vitrail.serve.answerer import Hears, Question, Remembers, rows_of
from vitrail.serve.meter import Meter
from vitrail.serve.models import Change, Models, Version, read_plan
from vitrail.serve.newcomers import Content, with_content
from vitrail.serve.store.base import Event, ItemChange, Rate, Served, Store
from vitrail.serve.writer import FLUSH, Writer

logger = logging.getLogger("vitrail.serve")
T = TypeVar("T")

SECONDS_TO_LOOK = 0.5
"""Between looks into the store for what other processes changed."""
SECONDS_OF_RATES = 5.0
"""Click rates are counted anew after so long."""
RATES_OVER = 7 * 86_400
"""Click rates are of so many newest seconds."""
THREADS = 8
"""Questions under a time budget that may be computed at once; with that many late, the popular items answer at once."""
SECONDS_AWAY = 1.0
"""A store that could not be read is not asked for histories again for so long."""
AWAY = "The newest events could not be read: the answer goes by what the model knows."
ANSWER = ("fallback", "degraded", "items", "propensities")
INNER = 0.8
"""Part of the time budget that an answerer which minds it is told of; the rest is for whatever comes around it."""
HEARD = 10_000
"""Events that a model is told of at once."""
LISTENING = 4
"""Questions that may wait for the shadow; more are not asked of it."""


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


@dataclass
class Live:
    """The state of one service process."""

    models: Models
    meter: Meter
    store: Store | None = None
    flush: float = FLUSH
    budget_ms: float | None = None
    max_history: int = 1000
    history_kinds: frozenset[str] = frozenset()
    """kinds of events that are history; empty: all"""
    changes: dict[str, ItemChange] = field(default_factory=dict)
    """what is said of items, by item"""
    writer: Writer | None = None

    def __post_init__(self) -> None:
        self._version = 0
        self._plan_text: str | None = None
        self._rates: tuple[float, dict[str, Rate]] = (-math.inf, {})
        self._pool = ThreadPoolExecutor(THREADS, "vitrail-budget")
        self._late = 0
        self._listening = 0
        self._lost = 0
        self._away_until = -math.inf
        self._tasks: set[asyncio.Task[None]] = set()
        if self.store is not None:
            self.writer = Writer(self.store, self.flush)
            self.look()

    # the life of the process

    @contextlib.asynccontextmanager
    async def running(self, _app: Any = None) -> AsyncIterator[None]:
        """Follows what other processes change; at the end, writes what waits."""
        looking = asyncio.create_task(self._keep_looking()) if self.store is not None else None
        try:
            yield
        finally:
            if looking is not None:
                looking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await looking
            if self.writer is not None:
                await asyncio.to_thread(self.writer.close)
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(SECONDS_TO_LOOK)
            try:
                await asyncio.to_thread(self.look)
            except Exception as error:
                logger.warning("the store cannot be looked into", extra={"facts": {"error": type(error).__name__}})

    def look(self) -> None:
        """Take over what the store says of models and items. A plan whose models cannot be loaded is told in the log and not followed."""
        assert self.store is not None
        text = self.store.get_state("models")
        if text is not None and text != self._plan_text:
            self._plan_text = text
            try:
                self.models.follow(read_plan(text))
            except VitrailError as error:
                logger.error("a plan of models is not followed", extra={"facts": {"reason": str(error), "current": self.models.plan.current}})
        self._take(self.store.item_changes(self._version))
        self._tell(self.store)

    def _tell(self, store: Store) -> None:
        """Let the models that count what happens hear of the events that came since, of whatever process."""
        for answerer in [version.asker.answerer for version in self.models.state[1].values()]:
            if not isinstance(answerer, Hears) or not answerer.counts:
                continue
            told = []
            while found := store.events(answerer.heard, HEARD):
                told.append(self._counted([event for _, event in found]))
                answerer.heard = found[-1][0]
            if told:
                answerer.hear(pl.concat(told))

    def _counted(self, events: Sequence[Event]) -> pl.DataFrame:
        """Those that are history, as a table; one that says it is yet to come would make all others old, and is none."""
        kinds, moment = self.history_kinds, now()
        events = [event for event in events if (not kinds or event.kind in kinds) and event.timestamp <= moment]
        schema = {"user": pl.String, "item": pl.String, "timestamp": pl.Int64, "event": pl.String, "value": pl.Float64}
        return pl.DataFrame([(event.user, event.item, event.timestamp, event.kind, event.value) for event in events], schema=schema, orient="row")

    def _take(self, changes: Sequence[ItemChange]) -> None:
        fresh = [change for change in changes if change.version > self._version]
        if not fresh:
            return
        self.changes = self.changes | {change.item: change for change in fresh}
        self._version = max(change.version for change in fresh)
        withdrawn = frozenset(item for item, change in self.changes.items() if change.withdrawn)
        told = {item: change.told for item, change in self.changes.items() if change.told}
        self.models.overlay(told, withdrawn, {item: change.vectors for item, change in self.changes.items() if change.vectors})

    async def aside(self, act: Callable[[], T]) -> T:
        """A look into the store, in a thread where it may take longer than the event loop can wait."""
        return act() if self.store is None or self.store.local else await asyncio.to_thread(act)

    # questions

    async def recommend(self, question: Question, request: str) -> dict[str, Any]:
        """{user, request_id, variant, fallback, degraded, items, propensities}, logged."""
        version = self.models.pick(question.user if question.user is not None else request)
        asked = await self._with_history(question, version)
        found = await self._answer(version, asked)
        if found["degraded"]:
            self.meter.degraded.inc()
        found["degraded"] = found["degraded"] or asked.trouble
        answer = {"user": question.user, "request_id": request, "variant": version.name, **{key: found[key] for key in ANSWER}}
        if "trace" in found:
            answer["trace"] = found["trace"]
        items = [row["item"] for row in found["items"]]
        if self.writer is not None:
            context = None if question.context is None else orjson.dumps(dict(question.context)).decode()
            self.writer.log(Served(request, now(), version.name, question.user, items, found["propensities"], context))
        if self.models.shadow is not None:
            self._listen(self.models.shadow, asked, items)
        return answer

    async def look_at(self, question: Question, name: str | None) -> dict[str, Any]:
        """What the version `name` (none: whoever would answer) says to a question, to be looked at: nothing is logged, no shadow listens.

        Raises SettingError where no such version is loaded.
        """
        version = self.models.version(name) if name is not None else self.models.pick(question.user or "")
        asked = await self._with_history(question, version)
        found = await asyncio.to_thread(version.asker.ask, asked)  # reasons take their time, and nobody else waits for them
        return {"user": question.user, "variant": version.name, **found, "degraded": found["degraded"] or asked.trouble}

    async def _with_history(self, question: Question, version: Version) -> Question:
        """The question with the user's events since the artifact was made, before a history of the request."""
        store, user = self.store, question.user
        if store is None or not user:
            return question
        if time.monotonic() < self._away_until:
            return replace(question, trouble=AWAY)
        try:
            stored = await self.aside(lambda: store.history(user, self.max_history))
        except ResourceError as error:
            # a store that is away must not take the answers with it, nor make each of them wait for it
            self._away_until = time.monotonic() + SECONDS_AWAY
            logger.error("histories cannot be read", extra={"facts": {"reason": str(error)}})
            return replace(question, trouble=AWAY)
        if self.history_kinds:
            stored = [event for event in stored if event.kind in self.history_kinds]
        if stored and isinstance(version.asker.answerer, Remembers) and (known := version.asker.answerer.known_events(user)):
            stored = [event for event in stored if (event.item, event.timestamp) not in known]
        if not stored:
            return question
        times = [event.timestamp for event in stored] if not question.history else None
        return replace(question, history=[event.item for event in stored] + (question.history or []), times=times)

    async def _answer(self, version: Version, question: Question) -> dict[str, Any]:
        if self.budget_ms is None:
            return version.asker.ask(question)
        question = replace(question, budget_ms=INNER * self.budget_ms)
        if self._late < THREADS:
            task = asyncio.get_running_loop().run_in_executor(self._pool, version.asker.ask, question)
            try:
                return await asyncio.wait_for(asyncio.shield(task), self.budget_ms / 1000)
            except TimeoutError:
                self._late += 1
                task.add_done_callback(self._came_late)
        return self._popular(version, question)

    def _came_late(self, task: asyncio.Future[Any]) -> None:
        self._late -= 1
        if not task.cancelled():
            task.exception()

    def _popular(self, version: Version, question: Question) -> dict[str, Any]:
        """What is answered when time has run out: the popular items, filtered, without asking the model."""
        withdrawn = {item for item, change in self.changes.items() if change.withdrawn}
        seen = set() if question.include_seen else set(question.history or ())
        items = [item for item in version.popular if item not in withdrawn and item not in seen]
        if question.filter:
            table = version.asker.answerer.items.filter(pl.col("item").is_in(items))
            passing = set(table.filter(matches(question.filter, table))["item"])
            items = [item for item in items if item in passing]
        rows = []
        for rank, item in enumerate(items[: question.k], start=1):
            score = 1.0 / rank
            rows.append({"item": item, "rank": rank, "score": score, "sources": [{"name": "popular", "rank": rank, "score": score}], "why": None})
        sentence = f"The time budget of {self.budget_ms:g} ms ran out: these are the popular items."
        return {"fallback": "popular", "degraded": sentence, "items": rows, "propensities": [1.0] * len(rows)}

    def _listen(self, shadow: Version, question: Question, shown: Sequence[str]) -> None:
        """Ask the shadow too, after the answer is given."""
        if self._listening >= LISTENING:
            self.meter.shadow.labels(shadow.name, "skipped").inc()
            return

        async def ask() -> None:
            try:
                found = await asyncio.to_thread(shadow.asker.ask, question)
                other = {row["item"] for row in found["items"]}
                self.meter.overlap.labels(shadow.name).inc(len(other & set(shown)) / max(len(other), len(shown), 1))
                self.meter.shadow.labels(shadow.name, "answered").inc()
            except Exception:
                self.meter.shadow.labels(shadow.name, "failed").inc()
            finally:
                self._listening -= 1

        self._listening += 1
        task = asyncio.create_task(ask())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def search(self, text: str | None, picture: bytes | None, k: int, filter: str | None) -> list[dict[str, Any]] | None:
        """The k items that fit a text or picture best, or none where the model has no content of that kind. Raises DataError."""
        version = self.models.current
        withdrawn = {item for item, change in self.changes.items() if change.withdrawn}
        table = version.searcher.search(text, picture, k + len(withdrawn), filter=filter) if version.searcher is not None else None
        if table is None:
            return None
        if withdrawn:
            table = table.filter(~pl.col("item").is_in(withdrawn)).head(k)
            table = table.with_columns(rank=pl.int_range(1, len(table) + 1, dtype=pl.Int32))
        return rows_of(table, "search")

    # events, items, models

    async def append(self, events: Sequence[Event]) -> int:
        """Keep events; returns, once they are durable, how many were new. Raises StoreFull or StoreAway."""
        assert self.writer is not None
        fresh = await self.writer.append(events)
        self.meter.events.labels("new").inc(fresh)
        self.meter.events.labels("known").inc(len(events) - fresh)
        return fresh

    async def change_items(self, changes: Sequence[ItemChange], vectors: Content | None = None, pictures: Mapping[str, bytes] | None = None) -> int:
        """Keep what is said of items; it holds here when this returns, in other processes after a moment.

        `vectors` and `pictures` of items that the models never met; they are taken in at once by models that answer by content. Raises as `with_content`.
        """
        assert self.store is not None
        store, current = self.store, self.models.current
        versions = [current, *(version for version in self.models.state[1].values() if version.name != current.name)]
        changes = await asyncio.to_thread(with_content, versions, changes, self.changes, vectors or {}, pictures or {})
        version = await asyncio.to_thread(store.change_items, changes)
        await asyncio.to_thread(lambda: self._take(store.item_changes(self._version)))
        return version

    async def change_models(self, change: Change) -> dict[str, Any]:
        """Do what /models is asked; it holds here when this returns, in other processes after a moment."""
        plan = await asyncio.to_thread(self.models.change, change)
        if self.store is not None:
            text = json.dumps(plan.model_dump(mode="json"))
            await asyncio.to_thread(self.store.put_state, "models", text)
            self._plan_text = text
        await asyncio.to_thread(self.models.follow, plan)
        return await self.shown_models()

    def row(self, item: str) -> Mapping[str, Any] | None:
        """The attributes of an item as they are now; none where there is no such item, or no longer."""
        change, answerer = self.changes.get(item), self.models.current.asker.answerer
        if change is not None and change.withdrawn:
            return None
        code = answerer.item_ids.code(item)
        if code >= 0:
            row = dict(answerer.items.row(code, named=True))
            return row if change is None else row | {key: value for key, value in change.told.items() if key not in row}
        return None if change is None else {"item": item, **change.told}

    async def rates(self) -> dict[str, Rate]:
        """What became of the answers of each variant, counted anew now and then; the last count where the store is away."""
        if self.store is not None and time.monotonic() - self._rates[0] > SECONDS_OF_RATES:
            with contextlib.suppress(ResourceError):
                self._rates = (time.monotonic(), await asyncio.to_thread(self.store.rates, now() - RATES_OVER * 1_000_000))
        return self._rates[1]

    async def shown_models(self) -> dict[str, Any]:
        """What GET /models answers."""
        rows = {}
        for variant, rate in sorted((await self.rates()).items()):
            ends = wilson(rate.clicked_requests, rate.requests)
            share = rate.clicked_requests / max(rate.requests, 1)
            counts = {"requests": rate.requests, "shown": rate.shown, "clicked": rate.clicked, "clicked_requests": rate.clicked_requests}
            rows[variant] = counts | {"click_rate": share, "interval": list(ends)}
        return self.models.shown() | {"rates": rows}

    async def page(self) -> bytes:
        """What /metrics answers."""
        if self.writer is not None and self.writer.lost > self._lost:
            self.meter.lost.inc(self.writer.lost - self._lost)
            self._lost = self.writer.lost
        return self.meter.page(await self.rates())
