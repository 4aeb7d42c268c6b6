"""What stands between the network and the routes: request id, token, body limit, time, counts, and one shape of error."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("vitrail.serve")

SECONDS_FOR_BODY = 10.0
"""A body must have arrived in this time."""
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
"""Upper edges of the latency histogram, in seconds."""

OPEN = ("/health", "/docs")
"""What is answered without the token; the docs page is the same for everybody and holds nothing."""

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


class Meter:
    """The Prometheus counts of one service, in a registry of its own."""

    def __init__(self, system: str, items: int, facts: dict[str, str]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("vitrail_requests", "Requests answered.", ["route", "method", "status"], registry=self.registry)
        self.seconds = Histogram("vitrail_request_seconds", "Seconds from a request to its answer.", ["route"], buckets=BUCKETS, registry=self.registry)
        Gauge("vitrail_catalogue_items", "Items in the catalogue.", registry=self.registry).set(items)
        Info("vitrail_model", "The system that answers.", registry=self.registry).info({"system": system, **facts})

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request done."""
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)


class Refused(Exception):
    """A request that ends here with a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Guard:
    """ASGI middleware around the whole application. `scope["state"]["request_id"]` is set for the routes.

    `routes`: the paths that are counted by name; any other counts as "other", so that nobody can fill the memory with labels.
    """

    def __init__(self, app: ASGIApp, *, meter: Meter, token: str | None, max_body: int, routes: frozenset[str]) -> None:
        self.app, self.meter, self.max_body, self.routes = app, meter, max_body, routes
        self.token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            self._check_token(scope["path"], headers)
            await self.app(scope, await self._read(headers, receive), send_marked)
        except Refused as refusal:
            await _refuse(send_marked, refusal)
        except Exception:
            logger.exception("request %s failed", request_id)
            if status:
                raise
            await _refuse(send_marked, Refused(500, f"The service failed on this request; its log has the reason under {request_id}."))
        finally:
            self.meter.count(self._route(scope["path"]), _method(scope["method"]), status, time.perf_counter() - begin)

    def _route(self, path: str) -> str:
        if path in self.routes:
            return path
        return "/items/{id}" if path.startswith("/items/") else "other"

    def _check_token(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self.token is None or path in OPEN:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.token):
            raise Refused(401, "This service wants a token: send the header Authorization: Bearer TOKEN.")

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Takes in the body, counting its bytes whatever its headers claim, and gives a `receive` that replays it."""
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            return receive
        too_large = Refused(413, f"The body is larger than {self.max_body:,} bytes: send less.")
        claimed = headers.get(b"content-length", b"0")
        if claimed.isdigit() and int(claimed[:20]) > self.max_body:
            raise too_large
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(SECONDS_FOR_BODY):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        break
                    piece = message.get("body", b"")
                    size += len(piece)
                    if size > self.max_body:
                        raise too_large
                    pieces.append(piece)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refused(408, f"The body did not arrive in {SECONDS_FOR_BODY:g} seconds: send it again.") from None
        body: bytes | None = b"".join(pieces)

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}

        return replay


def _request_id(given: bytes | None) -> str:
    if given is not None:
        text = given.decode("latin-1")
        if _SANE_ID.fullmatch(text):
            return text
    return str(uuid.uuid4())


def _method(name: str) -> str:
    return name if name in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH") else "other"


async def _refuse(send: Send, refusal: Refused) -> None:
    body = orjson.dumps({"error": refusal.sentence})
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not worth reading
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
