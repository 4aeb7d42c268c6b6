"""How the service says things: JSON, and one shape for every refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from vitrail.errors import ResourceError, VitrailError, did_you_mean
from vitrail.serve.shapes import Problem
from vitrail.serve.store.base import StoreFull

PROBLEMS: dict[int | str, dict[str, Any]] = {422: {"model": Problem, "description": "The request is not understood: one sentence says why."}}
ABSENT: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is no such item."}, **PROBLEMS}
KEEPING: dict[int | str, dict[str, Any]] = {
    501: {"model": Problem, "description": "The service cannot do this: it has no store, or no content."},
    503: {"model": Problem, "description": "The store is away or busy."},
    507: {"model": Problem, "description": "The store has no room; nothing of the request was kept."},
    **PROBLEMS,
}
KEYS = (
    "user", "history", "k", "include_seen", "filter", "item", "context", "explain", "event", "event_id", "events", "items", "withdraw", "name", "action",
    "share", "text", "timestamp", "request_id", "diversity", "explore", "version", "vectors", "pictures",
)  # fmt: skip
"""What may be meant by an unknown key."""


def add_handlers(app: FastAPI) -> None:
    """Errors of the framework and of the house as one sentence each."""
    # Starlette types a handler by the base class of all exceptions.
    handlers: dict[type[Exception], Callable[[Request, Any], Any]] = {
        RequestValidationError: _on_invalid,
        HTTPException: _on_http,
        VitrailError: _on_known,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _on_invalid(_request: Request, error: RequestValidationError) -> Response:
    return invalid(error.errors()[0])


def invalid(first: Any) -> Response:
    """The refusal for the first error of a validation."""
    place = [str(part) for part in first["loc"]]
    where, key = place[0] if place else "request", ".".join(place[1:])
    message = str(first["msg"])
    if first["type"] == "json_invalid":
        return problem(422, "The body is not valid JSON.")
    if first["type"] == "missing" and not key:
        return problem(422, 'The body is missing: send a JSON object with Content-Type: application/json, such as {"user": "42", "k": 10}.')
    if first["type"] in ("model_attributes_type", "dict_type", "model_type") and not key:
        return problem(422, "The body must be a JSON object, sent with Content-Type: application/json.")
    if first["type"] == "missing":
        return problem(422, f'"{key}" is missing in the {where}: add it.')
    if first["type"] == "extra_forbidden":
        return problem(422, f'Unknown key "{short(key)}" in the {where}.{did_you_mean(place[-1], KEYS)}')
    given = first.get("input")
    got = f", got {short(repr(given))}" if isinstance(given, str | int | float | bool) else ""
    return problem(422, f'Bad value for "{short(key)}" in the {where}: {message[:1].lower()}{message[1:]}{got}.')


async def _on_http(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        return problem(404, f"There is nothing at {short(request.url.path)}: /docs lists what there is.")
    if error.status_code == 405:
        return problem(405, f"{short(request.url.path)} does not take {short(request.method)}: /docs lists what there is.", error.headers)
    if error.status_code == 400:
        return problem(400, "The body cannot be read as JSON in UTF-8.")
    return problem(error.status_code, str(error.detail), error.headers)


async def _on_known(_request: Request, error: VitrailError) -> Response:
    return problem(507 if isinstance(error, StoreFull) else 503 if isinstance(error, ResourceError) else 422, str(error))


def reply(value: Any, status: int = 200, headers: Any = None) -> Response:
    """`value` as JSON."""
    return Response(orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY), status, headers, "application/json")


def problem(status: int, sentence: str, headers: Any = None) -> Response:
    """A refusal."""
    return reply({"error": sentence.encode("utf-8", "replace").decode()}, status, dict(headers) if headers else None)


def no_item(id: str) -> str:
    """The sentence for an item that is not there."""
    return f'There is no item "{short(id)}" in the catalogue.'


def short(text: str) -> str:
    """`text`, cut where it is long."""
    return text if len(text) <= 80 else text[:77] + "..."
