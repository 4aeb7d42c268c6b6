"""The HTTP service: what a recommender answers, over FastAPI."""

# No `from __future__ import annotations` here: the request types are made per service, and FastAPI reads them as objects.

import importlib.resources
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from vitrail.errors import ResourceError, VitrailError, did_you_mean
from vitrail.serve.guard import Guard, Meter
from vitrail.serve.shapes import Answer, Problem, SimilarAnswer, request_shapes, similar_items

ROUTES = ("/recommend", "/similar", "/health", "/metrics", "/docs", "/openapi.json")
PROBLEMS: dict[int | str, dict[str, Any]] = {422: {"model": Problem, "description": "The request is not understood: one sentence says why."}}
ABSENT: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is no such item."}, **PROBLEMS}


class Answering(Protocol):
    """What the service asks of a recommender."""

    info: dict[str, Any]
    items: Any
    item_ids: Any

    @property
    def name(self) -> str:
        """The system's name."""
        ...

    def answer(self, user: str | None, history: list[str] | None, k: int, include_seen: bool, filter: str | None) -> dict[str, Any]:
        """{user, fallback, items: [{item, rank, score, sources, why}]} as plain Python."""
        ...

    def similar(self, items: Sequence[str], k: int = 10, *, filter: str | None = None) -> Any:
        """A table of query, item, rank, score."""
        ...


def create_app(recommender: Answering, *, token: str | None = None, max_k: int = 100, max_body: int = 64 * 1024, max_history: int = 1000) -> FastAPI:
    """The application over a loaded recommender.

    `token`: what `Authorization: Bearer` must carry everywhere but at /health and the empty /docs page; none: no token is asked.
    `max_k`: the most items of an answer. `max_body`: bytes of a request body. `max_history`: events of a history.
    Answers are computed on the event loop: one takes about a millisecond, and handing it to a thread costs more than it saves.
    """
    shapes = request_shapes(max_k, max_history)
    meter = Meter(recommender.name, len(recommender.items), _facts(recommender.info))
    app = FastAPI(title="Vitrail", version=_version(), description=f'Recommendations of the system "{recommender.name}".', docs_url=None, redoc_url=None)
    app.add_middleware(Guard, meter=meter, token=token, max_body=max_body, routes=frozenset(ROUTES))
    _add_handlers(app)
    _add_recommend(app, recommender, shapes)
    _add_similar(app, recommender, shapes)

    @app.get("/items/{id:path}", responses=ABSENT, summary="The attributes of an item")
    async def item(id: str) -> Response:
        code = recommender.item_ids.code(id)
        if code < 0:
            return _problem(404, _no_item(id))
        return _json(recommender.items.row(code, named=True))

    @app.get("/health", summary="Whether the service answers")
    async def health() -> Response:
        return _json({"status": "ok", "system": recommender.name, "items": len(recommender.items), "version": app.version})

    @app.get("/metrics", summary="Counts and times for Prometheus")
    async def metrics() -> Response:
        return Response(generate_latest(meter.registry), media_type=CONTENT_TYPE_LATEST)

    page = importlib.resources.files("vitrail.serve").joinpath("docs.html").read_bytes()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        rule = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        return Response(page, media_type="text/html; charset=utf-8", headers={"content-security-policy": rule})

    return app


def _add_recommend(app: FastAPI, recommender: Answering, shapes: Any) -> None:
    recommend_shape, query_shape = shapes.recommend, shapes.recommend_query

    def answered(request: Request, question: Any, history: list[str] | None) -> Response:
        found = recommender.answer(question.user, history, question.k, question.include_seen, question.filter)
        return _json({"user": found["user"], "request_id": request.state.request_id, "fallback": found["fallback"], "items": found["items"]})

    @app.post("/recommend", responses={200: {"model": Answer}, **PROBLEMS}, summary="Recommend for a user or a history")
    async def recommend(request: Request, question: recommend_shape) -> Response:  # type: ignore[valid-type]
        asked: Any = question
        if (asked.user is None) == (asked.history is None):
            return _problem(422, 'Give either "user" or "history", one of the two.')
        return answered(request, asked, asked.history)

    @app.get("/recommend", responses={200: {"model": Answer}, **PROBLEMS}, summary="Recommend for a user")
    async def recommend_user(request: Request, question: Annotated[query_shape, Query()]) -> Response:  # type: ignore[valid-type]
        return answered(request, question, None)


def _add_similar(app: FastAPI, recommender: Answering, shapes: Any) -> None:
    similar_shape = shapes.similar

    def answered(request: Request, question: Any) -> Response:
        if recommender.item_ids.code(question.item) < 0:
            return _problem(404, _no_item(question.item))
        items = similar_items(recommender, question.item, question.k, question.filter)
        return _json({"item": question.item, "request_id": request.state.request_id, "items": items})

    @app.post("/similar", responses={200: {"model": SimilarAnswer}, **ABSENT}, summary="Items similar to an item")
    async def similar(request: Request, question: similar_shape) -> Response:  # type: ignore[valid-type]
        return answered(request, question)

    @app.get("/similar", responses={200: {"model": SimilarAnswer}, **ABSENT}, summary="Items similar to an item")
    async def similar_to(request: Request, question: Annotated[similar_shape, Query()]) -> Response:  # type: ignore[valid-type]
        return answered(request, question)


def _add_handlers(app: FastAPI) -> None:
    # Starlette types a handler by the base class of all exceptions.
    handlers: dict[type[Exception], Callable[[Request, Any], Any]] = {
        RequestValidationError: _on_invalid,
        HTTPException: _on_http,
        VitrailError: _on_known,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _on_invalid(_request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    where, key = place[0] if place else "request", ".".join(place[1:])
    message = str(first["msg"])
    if first["type"] == "json_invalid":
        return _problem(422, "The body is not valid JSON.")
    if first["type"] == "missing" and not key:
        return _problem(422, 'The body is missing: send a JSON object with Content-Type: application/json, such as {"user": "42", "k": 10}.')
    if first["type"] in ("model_attributes_type", "dict_type", "model_type") and not key:
        return _problem(422, "The body must be a JSON object, sent with Content-Type: application/json.")
    if first["type"] == "missing":
        return _problem(422, f'"{key}" is missing in the {where}: add it.')
    if first["type"] == "extra_forbidden":
        return _problem(422, f'Unknown key "{_short(key)}" in the {where}.{did_you_mean(key, ("user", "history", "k", "include_seen", "filter", "item"))}')
    given = first.get("input")
    got = f", got {_short(repr(given))}" if isinstance(given, str | int | float | bool) else ""
    return _problem(422, f'Bad value for "{_short(key)}" in the {where}: {message[:1].lower()}{message[1:]}{got}.')


async def _on_http(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        return _problem(404, f"There is nothing at {_short(request.url.path)}: /docs lists what there is.")
    if error.status_code == 405:
        return _problem(405, f"{_short(request.url.path)} does not take {_short(request.method)}: /docs lists what there is.", error.headers)
    if error.status_code == 400:
        return _problem(400, "The body cannot be read as JSON in UTF-8.")
    return _problem(error.status_code, str(error.detail), error.headers)


async def _on_known(_request: Request, error: VitrailError) -> Response:
    return _problem(503 if isinstance(error, ResourceError) else 422, str(error))


def _json(value: Any, status: int = 200, headers: Any = None) -> Response:
    return Response(orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY), status, headers, "application/json")


def _problem(status: int, sentence: str, headers: Any = None) -> Response:
    return _json({"error": sentence.encode("utf-8", "replace").decode()}, status, dict(headers) if headers else None)


def _no_item(id: str) -> str:
    return f'There is no item "{_short(id)}" in the catalogue.'


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _facts(info: dict[str, Any]) -> dict[str, str]:
    return {key: str(info[key]) for key in ("stage", "family", "fingerprint", "split") if isinstance(info.get(key), str)}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vitrail")
    except PackageNotFoundError:
        return "0"
