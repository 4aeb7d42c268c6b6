"""Between the routes and the store: what arrives together is written together, by a thread of its own.

Events are on disk before they are answered; all that wait share one transaction, so one sync of the disk serves many.
Served answers cost a request no wait: they go with the next events, or after `flush` seconds at the latest.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from vitrail.errors import ResourceError
from vitrail.serve.store.base import Event, Served, Store, StoreAway, StoreFull

logger = logging.getLogger("vitrail.serve")

FLUSH = 0.2
"""Seconds a served answer may wait."""
MOST_EVENTS = 50_000
"""Events that may wait; more are refused."""
MOST_SERVED = 100_000
"""Served answers that may wait while the store is full or away; the oldest are lost first."""
RETRY = 1.0
"""Seconds before served answers are tried again after the store refused them."""


class Writer:
    """Writes to `store` from one thread; `close` writes what waits."""

    def __init__(self, store: Store, flush: float = FLUSH) -> None:
        self.store, self.flush = store, flush
        self.lost = 0
        """served answers that were not kept"""
        self.trouble: str | None = None
        """why the newest write failed; none where it went well"""
        self._events: list[tuple[Sequence[Event], Future[int]]] = []
        self._served: deque[Served] = deque()
        self._waiting = 0
        self._due: float | None = None
        self._stopped = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    async def append(self, events: Sequence[Event]) -> int:
        """Keep `events`; returns, once they are durable, how many were new. Raises StoreFull or StoreAway."""
        done: Future[int] = Future()
        with self._changed:
            if self._waiting + len(events) > MOST_EVENTS:
                raise StoreAway(f"{self._waiting:,} events wait for the store already: send again in a moment.")
            self._waiting += len(events)
            self._events.append((events, done))
            self._wake()
        return await asyncio.wrap_future(done)

    def log(self, served: Served) -> None:
        """Keep a served answer, soon."""
        with self._changed:
            self._served.append(served)
            if self._due is None:
                self._due = time.monotonic() + self.flush
                self._wake()

    def _wake(self) -> None:
        if self._thread is None and not self._stopped:
            self._thread = threading.Thread(target=self._run, name="vitrail-writer", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._events or self._stopped or (self._due is not None and time.monotonic() >= self._due)):
                    self._changed.wait(None if self._due is None else max(self._due - time.monotonic(), 0.0))
                events, self._events, self._waiting = self._events, [], 0
                served, self._due = list(self._served), None
                self._served.clear()
                last = self._stopped
            if events or served:
                self._write(events, served)
            if last:
                # counted once, here: a pass that began before the stop is followed by one more, which tries them again
                self.lost += len(self._served)
                return

    def _write(self, events: Sequence[tuple[Sequence[Event], Future[int]]], served: list[Served]) -> None:
        events = [(batch, done) for batch, done in events if done.set_running_or_notify_cancel()]
        try:
            fresh = self.store.write([batch for batch, _ in events], served)
        except (StoreFull, StoreAway) as error:
            self._note(error)
            for _, done in events:
                done.set_exception(error)
            self._keep(served)
        except Exception as error:
            # one record that the store cannot take must not keep the others out
            self._note(error)
            self._singly(events, served)
        else:
            self.trouble = None
            for (_, done), new in zip(events, fresh, strict=True):
                done.set_result(new)

    def _singly(self, events: Sequence[tuple[Sequence[Event], Future[int]]], served: list[Served]) -> None:
        for batch, done in events:
            try:
                done.set_result(self.store.write([batch])[0])
            except Exception as error:
                done.set_exception(error)
        for one in served:
            try:
                self.store.write([], [one])
            except Exception:
                self.lost += 1

    def _keep(self, served: list[Served]) -> None:
        """Served answers that could not be written wait on, as many as may."""
        with self._changed:
            self._served.extendleft(reversed(served))
            while len(self._served) > MOST_SERVED:
                self._served.popleft()
                self.lost += 1
            if self._served:
                self._due = time.monotonic() + RETRY

    def _note(self, error: Exception) -> None:
        sentence = str(error) if isinstance(error, ResourceError) else type(error).__name__
        if sentence != self.trouble:
            logger.error("the store refuses writes", extra={"facts": {"reason": sentence}})
        self.trouble = sentence

    def close(self) -> None:
        """Write what waits, and stop."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=30)
