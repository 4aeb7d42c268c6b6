"""How often one client may ask: a bucket of requests that fills at a steady rate."""

from __future__ import annotations

from collections import OrderedDict

MOST_CLIENTS = 10_000
"""Clients remembered; who has not asked for longest is forgotten first, and begins with a full bucket again."""


class Limits:
    """`rate` requests a second for each client, `burst` of them at once."""

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self.rate, self.burst = rate, max(burst if burst is not None else 2 * rate, 1.0)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """Takes a request out of the bucket of `client` at `now` (seconds); returns 0, or the seconds until there is one."""
        left, then = self._buckets.pop(client, (self.burst, now))
        left = min(self.burst, left + (now - then) * self.rate)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self.rate
