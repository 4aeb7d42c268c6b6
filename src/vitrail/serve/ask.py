"""The routes that answer: /recommend, /similar, /search."""

# No `from __future__ import annotations` here: the request types are made per service, and FastAPI reads them as objects.

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from pydantic import ValidationError

from vitrail.serve.answerer import Question
from vitrail.serve.live import Live
from vitrail.serve.replies import ABSENT, KEEPING, PROBLEMS, invalid, no_item, problem, reply
from vitrail.serve.shapes import MAX_CONTEXT, Answer, SearchAnswer, Shapes, SimilarAnswer

PICTURES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp")
NO_CONTENT = "This model has no vectors of {0} to search: make them with `vitrail content encode` and serve a run of that data."


def add_recommend(app: FastAPI, live: Live, shapes: Shapes) -> None:
    """POST and GET /recommend."""
    recommend_shape, query_shape = shapes.recommend, shapes.recommend_query

    async def answered(request: Request, asked: Any, **more: Any) -> Response:
        question = Question(
            asked.user, more.get("history"), asked.k, asked.include_seen, asked.filter, more.get("context"), asked.explain,
            diversity=asked.diversity, explore=asked.explore,
        )  # fmt: skip
        found = await live.recommend(question, request.state.request_id)
        request.state.facts = {"variant": found["variant"]}
        return reply(found)

    @app.post("/recommend", responses={200: {"model": Answer}, **PROBLEMS}, summary="Recommend for a user or a history")
    async def recommend(request: Request, question: recommend_shape) -> Response:  # type: ignore[valid-type]
        asked: Any = question
        if asked.user is None and asked.history is None:
            return problem(422, 'Give either "user" or "history", or both.')
        if asked.context is not None and len(str(asked.context)) > MAX_CONTEXT:
            return problem(422, f'The "context" is too long: keep it below {MAX_CONTEXT:,} characters.')
        return await answered(request, asked, history=asked.history, context=asked.context)

    @app.get("/recommend", responses={200: {"model": Answer}, **PROBLEMS}, summary="Recommend for a user")
    async def recommend_user(request: Request, question: Annotated[query_shape, Query()]) -> Response:  # type: ignore[valid-type]
        return await answered(request, question)


def add_similar(app: FastAPI, live: Live, shapes: Shapes) -> None:
    """POST and GET /similar."""
    similar_shape = shapes.similar

    def answered(request: Request, question: Any) -> Response:
        asker = live.models.current.asker
        if asker.answerer.item_ids.code(question.item) < 0:
            return problem(404, no_item(question.item))
        items = asker.similar(question.item, question.k, question.filter)
        return reply({"item": question.item, "request_id": request.state.request_id, "items": items})

    @app.post("/similar", responses={200: {"model": SimilarAnswer}, **ABSENT}, summary="Items similar to an item")
    async def similar(request: Request, question: similar_shape) -> Response:  # type: ignore[valid-type]
        return answered(request, question)

    @app.get("/similar", responses={200: {"model": SimilarAnswer}, **ABSENT}, summary="Items similar to an item")
    async def similar_to(request: Request, question: Annotated[similar_shape, Query()]) -> Response:  # type: ignore[valid-type]
        return answered(request, question)


def add_search(app: FastAPI, live: Live, shapes: Shapes) -> None:
    """POST /search: a text as JSON, or a picture as it is."""
    text_shape, picture_shape = shapes.search, shapes.picture_query
    body = {
        "required": True,
        "content": {
            "application/json": {"schema": text_shape.model_json_schema()},
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in PICTURES},
        },
    }

    @app.post(
        "/search",
        responses={200: {"model": SearchAnswer}, **KEEPING, 415: {"description": "Neither JSON nor a picture."}},
        openapi_extra={"requestBody": body},
        summary="Items by text or picture",
    )
    async def search(request: Request, asked: Annotated[picture_shape, Query()]) -> Response:  # type: ignore[valid-type]
        question: Any = asked
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        content, text = await request.body(), None
        if kind == "application/json":
            try:
                given = text_shape.model_validate_json(content)
            except ValidationError as error:
                return invalid(located(error))
            text, question = given.text, given
        elif kind not in PICTURES:
            return problem(415, f"Send a text as application/json, or a picture as one of {', '.join(PICTURES)}.")
        elif not content:
            return problem(422, "The picture is empty: send its bytes as the body.")
        picture = content if text is None else None
        found = await asyncio.to_thread(live.search, text, picture, question.k, question.filter)
        if found is None:
            return problem(501, NO_CONTENT.format("text" if picture is None else "pictures"))
        return reply({"request_id": request.state.request_id, "items": found})


def located(error: ValidationError) -> Any:
    """The first error of a body that we validate ourselves, as FastAPI tells it."""
    first = error.errors(include_url=False)[0]
    return {**first, "loc": ("body", *first["loc"])}
