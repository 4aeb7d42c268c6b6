"""The HTTP service: what an answerer answers, over FastAPI."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST

from vitrail.serve.answerer import Answerer
from vitrail.serve.ask import add_recommend, add_search, add_similar
from vitrail.serve.guard import Guard
from vitrail.serve.keep import add_events, add_items, add_models
from vitrail.serve.limits import Limits
from vitrail.serve.live import Live
from vitrail.serve.meter import Meter
from vitrail.serve.models import Load, Models, version_of
from vitrail.serve.page.api import add_api
from vitrail.serve.page.static import add_static, built
from vitrail.serve.replies import add_handlers, problem, reply
from vitrail.serve.shapes import request_shapes
from vitrail.serve.store.base import Store
from vitrail.serve.tokens import Tokens
from vitrail.serve.writer import FLUSH

ROUTES = ("/recommend", "/similar", "/search", "/events", "/items", "/models", "/health", "/ready", "/metrics", "/docs", "/openapi.json")


def create_app(
    answerer: Answerer,
    *,
    name: str = "model",
    store: Store | None = None,
    models: Path | None = None,
    runs: Path | None = None,
    load: Load | None = None,
    token: str | None = None,
    tokens: Tokens | None = None,
    open_admin: bool = True,
    rate: float = 0.0,
    flush: float = FLUSH,
    budget_ms: float | None = None,
    history_kinds: frozenset[str] = frozenset(),
    max_k: int = 100,
    max_body: int = 64 * 1024,
    max_history: int = 1000,
    max_picture: int = 8 * 2**20,
) -> FastAPI:
    """The application over a loaded answerer, the first version of the model, called `name`.

    `store`: where events and served answers are kept (none: nowhere). `models`: folder of further versions, read by `load`. `runs`: folder of
    runs and comparisons that the studio shows.
    `token`: one that may do everything; `tokens`: such with roles; neither: nobody is asked for one, and `open_admin` says whether items
    and models may be changed. `rate`: requests a second of one client (0: any). `flush`: seconds a served answer may wait for the disk.
    `budget_ms`: after which the popular items are answered. `history_kinds`: kinds of events that are history (empty: all).
    `max_k`: the most items of an answer. `max_body`: bytes of a request body, 16 times as many for batches, and `max_picture` for a
    picture. `max_history`: events of a history.
    Without a budget, answers are computed on the event loop: one takes about a millisecond, and handing it to a thread costs more than it saves.
    """
    shapes = request_shapes(max_k, max_history)
    files = built()
    meter = Meter(answerer.name, len(answerer.items), _facts(answerer.info))
    live = Live(
        Models(version_of(name, answerer), models, load), meter, store, flush=flush, budget_ms=budget_ms, max_history=max_history, history_kinds=history_kinds
    )
    description = f'Recommendations of the system "{answerer.name}".'
    app = FastAPI(title="Vitrail", version=_version(), description=description, docs_url=None, redoc_url=None, lifespan=live.running)
    app.state.live = live
    app.add_middleware(
        Guard, meter=meter, tokens=tokens or Tokens.of(token), limits=Limits(rate) if rate else None, max_body=max_body, max_picture=max_picture,
        open_admin=open_admin, routes=frozenset(ROUTES), pages=frozenset((*files, "/studio")),
    )  # fmt: skip
    add_handlers(app)
    add_recommend(app, live, shapes)
    add_similar(app, live, shapes)
    add_search(app, live, shapes)
    add_events(app, live)
    add_items(app, live)
    add_models(app, live)
    _add_state(app, live)
    add_static(app, files)
    add_api(app, live, shapes, runs)
    return app


def _add_state(app: FastAPI, live: Live) -> None:
    @app.get("/health", summary="Whether the process answers")
    async def health() -> Response:
        answerer = live.models.current.asker.answerer
        return reply({"status": "ok", "system": answerer.name, "items": len(answerer.items), "version": app.version})

    @app.get("/ready", summary="Whether it can do its work: a model is loaded, the store takes events")
    async def ready() -> Response:
        store, trouble = live.store, None
        if store is not None and live.writer is not None:
            await live.aside(store.ping)
            trouble = live.writer.trouble
        return problem(503, trouble) if trouble else reply({"status": "ready", "variant": live.models.current.name, "store": store is not None})

    @app.get("/metrics", summary="Counts and times for Prometheus")
    async def metrics() -> Response:
        return Response(await live.page(), media_type=CONTENT_TYPE_LATEST)

    page = importlib.resources.files("vitrail.serve").joinpath("docs.html").read_bytes()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        rule = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        return Response(page, media_type="text/html; charset=utf-8", headers={"content-security-policy": rule})


def _facts(info: dict[str, Any]) -> dict[str, str]:
    return {key: str(info[key]) for key in ("stage", "family", "fingerprint", "split") if isinstance(info.get(key), str)}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vitrail")
    except PackageNotFoundError:
        return "0"
