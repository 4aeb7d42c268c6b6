"""The routes that keep: /events, /items, /models."""

# No `from __future__ import annotations` here: FastAPI reads the types as objects.

import uuid
from datetime import UTC
from typing import Any

import orjson
import polars as pl
from fastapi import FastAPI, Request, Response
from pydantic import ValidationError

from vitrail.errors import SettingError, did_you_mean
from vitrail.funnel.catalogue import as_kind
from vitrail.serve.ask import located
from vitrail.serve.live import Live, now
from vitrail.serve.models import Change
from vitrail.serve.replies import ABSENT, KEEPING, PROBLEMS, invalid, no_item, problem, reply, short
from vitrail.serve.shapes import FIRST, LAST, MAX_CONTEXT, MAX_ID, EventBody, EventsAnswer, EventsBody, ItemsAnswer, ItemsBody, ModelsAnswer, ModelsBody
from vitrail.serve.store.base import Event, ItemChange

NO_STORE = "This service keeps nothing: start it with --store."


def add_events(app: FastAPI, live: Live) -> None:
    """POST /events: one event, or several as {"events": [...]}."""
    one, several = EventBody.model_json_schema(), EventsBody.model_json_schema(ref_template="#/components/schemas/{model}")
    several.pop("$defs", None)
    body = {"required": True, "content": {"application/json": {"schema": {"anyOf": [{**one, "title": "Event"}, several]}}}}

    @app.post("/events", responses={200: {"model": EventsAnswer}, **KEEPING}, openapi_extra={"requestBody": body}, summary="Tell what users did")
    async def events(request: Request) -> Response:
        if live.writer is None:
            return problem(501, NO_STORE)
        # a form of another page cannot send this type without the browser asking first
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return problem(422, "The body must be a JSON object, sent with Content-Type: application/json.")
        content = await request.body()
        try:
            raw = orjson.loads(content)
        except orjson.JSONDecodeError:
            return problem(422, "The body is not valid JSON.")
        if not isinstance(raw, dict):
            return problem(422, "The body must be a JSON object, sent with Content-Type: application/json.")
        try:
            # as JSON, where a whole number is no text and a text no number
            given = EventsBody.model_validate_json(content).events if "events" in raw else [EventBody.model_validate_json(content)]
        except ValidationError as error:
            return invalid(located(error))
        kept, received = [], now()
        for place, event in enumerate(given):
            if event.timestamp is not None and not FIRST <= event.timestamp < LAST:
                return problem(422, f'Bad value for "events.{place}.timestamp" in the body: times go from 1970 to 2200.')
            context = None if event.context is None else orjson.dumps(event.context).decode()
            if context is not None and len(context) > MAX_CONTEXT:
                return problem(422, f'The "context" of event {place} is too long: keep it below {MAX_CONTEXT:,} characters.')
            kept.append(as_event(event, context, received))
        fresh = await live.append(kept)
        ids = [event.id for event in kept]
        return reply({"request_id": request.state.request_id, "event_ids": ids, "new": fresh, "known": len(kept) - fresh})


def as_event(given: EventBody, context: str | None, received: int) -> Event:
    """What the store keeps of an event; without a time it happened when it was received."""
    when = received
    if given.timestamp is not None:
        since = given.timestamp.astimezone(UTC) - FIRST
        when = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return Event(given.event_id or str(uuid.uuid4()), given.user, given.item, when, given.event, given.value, given.request_id, context)


def add_items(app: FastAPI, live: Live) -> None:
    """GET and DELETE /items/{id}, POST /items."""

    @app.get("/items/{id:path}", responses=ABSENT, summary="The attributes of an item")
    async def item(id: str) -> Response:
        row = live.row(id)
        return problem(404, no_item(id)) if row is None else reply(row)

    async def changed(request: Request, changes: list[ItemChange], told: ItemsBody | None = None) -> Response:
        version = await live.change_items(changes, told.vectors if told else None, told.pictures if told else None)
        known = live.models.current.asker.answerer.item_ids
        unknown = sum(known.code(change.item) < 0 for change in changes)
        withdrawn = sum(change.withdrawn for change in changes)
        counts = {"changed": len(changes) - withdrawn, "withdrawn": withdrawn, "unknown_to_model": unknown, "version": version}
        return reply({"request_id": request.state.request_id, **counts})

    @app.post("/items", responses={200: {"model": ItemsAnswer}, **KEEPING}, summary="Add, change or withdraw items")
    async def items(request: Request, told: ItemsBody) -> Response:
        if live.store is None:
            return problem(501, NO_STORE)
        schema = live.models.current.asker.answerer.items.schema
        changes = [item_change(values, schema) for values in told.items]
        shown = {change.item for change in changes}
        changes += [ItemChange(item) for item in {**told.vectors, **told.pictures} if item not in shown]
        changes += [ItemChange(item, withdrawn=True) for item in told.withdraw]
        if not changes:
            return problem(422, 'Give "items" with their attributes, or ids to "withdraw".')
        return await changed(request, changes, told)

    @app.delete("/items/{id:path}", responses={200: {"model": ItemsAnswer}, **ABSENT, **KEEPING}, summary="Withdraw an item")
    async def withdraw(request: Request, id: str) -> Response:
        if live.store is None:
            return problem(501, NO_STORE)
        if live.row(id) is None:
            return problem(404, no_item(id))
        return await changed(request, [ItemChange(id, withdrawn=True)])


def item_change(values: dict[str, Any], schema: pl.Schema) -> ItemChange:
    """What is said of an item, checked against the columns of the catalogue. Raises SettingError."""
    item = values.get("item")
    if not isinstance(item, str) or not 0 < len(item) <= MAX_ID or "\x00" in item:
        raise SettingError(f'Each of "items" wants its id as "item", a text of 1 to {MAX_ID:,} characters.')
    attributes = {name: value for name, value in values.items() if name != "item"}
    for name, value in attributes.items():
        if name not in schema:
            known = [column for column in schema if column != "item"]
            raise SettingError(f'The catalogue has no attribute "{short(name)}".{did_you_mean(name, known)}')
        try:
            as_kind(value, schema[name])
        except ValueError:
            place = f'"{short(name)}" of item "{short(item)}"'
            raise SettingError(f"Bad value for {place}: the catalogue has {schema[name]} there, got {short(repr(value))}.") from None
    return ItemChange(item, attributes)


def add_models(app: FastAPI, live: Live) -> None:
    """GET and POST /models."""

    @app.get("/models", responses={200: {"model": ModelsAnswer}}, summary="The versions of the model")
    async def models() -> Response:
        return reply(await live.shown_models())

    @app.post("/models", responses={200: {"model": ModelsAnswer}, **PROBLEMS}, summary="Load, switch, share, shadow or roll back a version")
    async def change(told: ModelsBody) -> Response:
        return reply(await live.change_models(Change(told.action, told.name, told.share)))
