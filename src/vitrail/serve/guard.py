"""What stands between the network and the routes: request id, token and role, rate and body limits, time, counts, and one shape of error."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitrail.serve.limits import Limits
from vitrail.serve.meter import Meter
from vitrail.serve.tokens import Role, Tokens

logger = logging.getLogger("vitrail.serve")

SECONDS_FOR_BODY = 10.0
"""A body must have arrived in this time."""
OPEN = ("/health", "/ready", "/docs")
"""What is answered without a token and never limited; the docs page is the same for everybody and holds nothing."""
LARGE = {"/events": 16, "/items": 16}
"""Routes that take batches: their body may be so many times as large."""

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


class Refused(Exception):
    """A request that ends here with a status and a sentence."""

    def __init__(self, status: int, sentence: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


class Guard:
    """ASGI middleware around the whole application. `scope["state"]["request_id"]` is set for the routes.

    `routes`: the paths that are counted by name; any other counts as "other", so that nobody can fill the memory with labels.
    `pages`: paths of files that are the same for everybody and hold nothing. `open_admin`: without tokens, items and models may be changed by
    whoever reaches the service. `max_picture`: bytes of a picture to search by.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        meter: Meter,
        tokens: Tokens,
        limits: Limits | None,
        max_body: int,
        max_picture: int,
        open_admin: bool,
        routes: frozenset[str],
        pages: frozenset[str] = frozenset(),
    ) -> None:
        self.app, self.meter, self.max_body, self.max_picture, self.routes = app, meter, max_body, max_picture, routes
        self.tokens, self.limits, self.open_admin, self.open = tokens, limits, open_admin, pages.union(OPEN)

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
            self._admit(scope, headers)
            await self.app(scope, await self._read(self._largest(scope["path"], headers), headers, receive), send_marked)
        except Refused as refusal:
            await _refuse(send_marked, refusal)
        except Exception:
            logger.exception("a request failed", extra={"facts": {"request_id": request_id, "route": self._route(scope["path"])}})
            if status:
                raise
            await _refuse(send_marked, Refused(500, f"The service failed on this request; its log has the reason under {request_id}."))
        finally:
            route, method, seconds = self._route(scope["path"]), _method(scope["method"]), time.perf_counter() - begin
            self.meter.count(route, method, status, seconds)
            if logger.isEnabledFor(logging.INFO):
                facts = {"request_id": request_id, "route": route, "method": method, "status": status, "ms": round(1e3 * seconds, 3)}
                logger.info("request", extra={"facts": facts | scope["state"].get("facts", {})})

    def _route(self, path: str) -> str:
        if path in self.routes:
            return path
        if path in self.open:
            return "/studio"
        return "/items/{id}" if path.startswith("/items/") else "/studio/api" if path.startswith("/studio/api/") else "other"

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raises Refused for a request without a token that may do this, or of a client that asks too often."""
        path = scope["path"]
        if path in self.open:
            return
        role, client = needed(path, scope["method"]), (scope.get("client") or ("unknown",))[0]
        if self.tokens:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            holder = self.tokens.holder(given.strip()) if scheme.lower() == b"bearer" else None
            if holder is None:
                sentence = "This service wants a token: send the header Authorization: Bearer TOKEN."
                raise Refused(401, sentence, [(b"www-authenticate", b"Bearer")])
            if not holder.may(role):
                raise Refused(403, f'This token may not do that: it wants the role "{role}".')
            client = f"token {holder.name}"
        elif role == "admin" and not self.open_admin:
            raise Refused(403, "Items and models are changed with a token of the role admin only: start the service with --tokens FILE.")
        if self.limits is not None and (wait := self.limits.wait(client, time.monotonic())):
            seconds = str(math.ceil(wait))
            raise Refused(429, f"Too many requests: ask again in {seconds} s.", [(b"retry-after", seconds.encode())])

    def _largest(self, path: str, headers: dict[bytes, bytes]) -> int:
        if path == "/search" and headers.get(b"content-type", b"").startswith(b"image/"):
            return self.max_picture
        return self.max_body * LARGE.get(path, 1)

    async def _read(self, most: int, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Takes in the body, counting its bytes whatever its headers claim, and gives a `receive` that replays it."""
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            return receive
        too_large = Refused(413, f"The body is larger than {most:,} bytes: send less.")
        claimed = headers.get(b"content-length", b"0")
        if claimed.isdigit() and int(claimed[:20]) > most:
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
                    if size > most:
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


def needed(path: str, method: str) -> Role:
    """The role a request needs."""
    if path == "/models" or path.startswith("/studio/api/") or ((path == "/items" or path.startswith("/items/")) and method not in ("GET", "HEAD")):
        return "admin"
    return "events" if path == "/events" else "read"


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
    headers += refusal.headers
    if refusal.status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not worth reading
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
