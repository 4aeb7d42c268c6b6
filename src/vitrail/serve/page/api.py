"""The questions of the page that the service has no other answer to, under /studio/api. They change nothing and log no answer; all of them want the
role admin where there are tokens, since they show what people did."""

# No `from __future__ import annotations` here: FastAPI reads the types as objects.

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from fastapi import FastAPI, Query, Request, Response
from pydantic import Field

from vitrail.errors import ResourceError, SettingError, VitrailError
from vitrail.evaluation.intervals import wilson
from vitrail.funnel.recommender import Recommender
from vitrail.serve.answerer import Question
from vitrail.serve.live import RATES_OVER, Live, now
from vitrail.serve.page.cards import Cards, Counts, count_values, matching
from vitrail.serve.page.data import distributions
from vitrail.serve.page.item_map import item_map
from vitrail.serve.page.pictures import SIZES, Pictures
from vitrail.serve.page.runs import read_runs
from vitrail.serve.page.static import HOME
from vitrail.serve.replies import no_item, problem, reply
from vitrail.serve.shapes import MAX_ID, Shapes

API = HOME + "api/"
MOST_POINTS = 1200
"""Items of the map, the popular ones first."""
NO_DATA = "The data set that this model was fitted on is not on this machine any more: facts about it cannot be shown."

Begins = Annotated[str, Query(max_length=200)]
Some = Annotated[int, Query(ge=1, le=100)]
Name = Annotated[str | None, Query(max_length=255)]
OneId = Annotated[str, Query(max_length=MAX_ID)]
Ids = Annotated[list[Annotated[str, Field(max_length=MAX_ID)]], Query(max_length=200)]


class Page:
    """What the page needs to know of the versions, made when it is first asked for."""

    def __init__(self, live: Live, runs: Path | None) -> None:
        self.live, self.runs = live, runs
        self._pictures: dict[str | None, Pictures] = {}
        self._cards: dict[str, tuple[Any, Cards]] = {}
        self._counts: tuple[Any, Counts] = (None, {})
        self._data: dict[str, dict[str, Any]] = {}
        self._map: tuple[Any, dict[str, Any]] = (None, {})
        self._lock = threading.Lock()

    @property
    def answerer(self) -> Any:
        """The current version."""
        return self.live.models.current.asker.answerer

    def data_path(self) -> str | None:
        """The data-set folder of the current version."""
        path = (self.answerer.info.get("data") or {}).get("path")
        return str(path) if path is not None else None

    def cards(self) -> Cards:
        """The catalogue of the current version."""
        answerer, name = self.answerer, self.live.models.current.name
        kept = self._cards.get(name)
        if kept is None or kept[0] is not answerer:
            with self._lock:
                path = self.data_path()
                pictures = self._pictures.setdefault(path, Pictures(path)) if path not in self._pictures else self._pictures[path]
                kept = self._cards[name] = (answerer, Cards.of(answerer, pictures))
        return kept[1]

    def rows(self, items: list[str]) -> list[Any]:
        """The rows of those that are there."""
        found = (self.live.row(item) for item in items)
        return [row for row in found if row is not None]

    def counts(self) -> Counts:
        """How many items have each value and each word."""
        items = self.answerer.items
        if self._counts[0] is not items:
            self._counts = items, count_values(items, self.cards().columns)
        return self._counts[1]

    def state(self) -> dict[str, Any]:
        """What the page shows of the service itself."""
        live, answerer = self.live, self.answerer
        columns, data = self.cards().columns, self.data_path()
        shown = live.models.shown()
        for row in shown["versions"]:
            one = live.models.version(row["name"]).asker
            row |= {"dials": one.dials(), "kind": "funnel" if one.answerer.info.get("stage") == "funnel" else "system"}
        categories: list[str] = []
        if columns.category is not None:
            column = answerer.items[columns.category]
            flat = (column.explode() if isinstance(column.dtype, pl.List) else column).cast(pl.String).drop_nulls()
            categories = flat.value_counts(sort=True).head(40)[flat.name].sort().to_list()
        users = getattr(answerer, "user_ids", None)
        return {
            **shown,
            "items": len(answerer.items),
            "users": 0 if users is None else len(users.ids),
            "store": live.store is not None,
            "pictures": len(self.cards().pictures),
            "data": data is not None and Path(data).is_dir(),
            "name": Path(data).name if data else shown["current"],
            "columns": {"title": columns.title, "category": columns.category, "price": columns.price, "groups": columns.groups},
            "categories": categories,
        }

    def users(self, begins: str, k: int) -> list[dict[str, Any]]:
        """Users whose id begins so, with how many events are known; without a beginning, some who have an ordinary number of them."""
        answerer = self.answerer
        ids, known = getattr(answerer, "user_ids", None), getattr(answerer, "known", None)
        if ids is None or known is None:
            return []
        lengths = pl.Series("events", known.indptr[1:] - known.indptr[:-1])
        table = pl.DataFrame({"user": ids.ids, "events": lengths})
        if begins:
            table = table.filter(pl.col("user").str.starts_with(begins)).sort("user")
        else:
            usual = table.filter(pl.col("events") >= 5)
            middle = usual["events"].median() or 0
            table = usual.sort((pl.col("events") - middle).abs(), maintain_order=True)
        return table.head(k).to_dicts()

    async def history(self, user: str, k: int) -> dict[str, Any]:
        """The newest events of a user, oldest first: those of the artifact, then those of the store."""
        live, answerer = self.live, self.answerer
        ids, known = getattr(answerer, "user_ids", None), getattr(answerer, "known", None)
        items: list[str] = []
        if ids is not None and known is not None and ids.code(user) >= 0:
            codes = known.histories(ids.encode([user])).items
            items = answerer.item_ids.ids.gather(codes.numpy()).to_list()
        seen = answerer.known_events(user) if hasattr(answerer, "known_events") else set()
        stored = []
        if live.store is not None and user:
            with contextlib.suppress(ResourceError):  # a store that is away takes no page with it
                stored = await asyncio.to_thread(live.store.history, user, k)
        kinds = live.history_kinds
        later = [event.item for event in stored if (event.item, event.timestamp) not in seen and (not kinds or event.kind in kinds)]
        every = [*items, *later]
        cards = self.cards()
        return {"user": user, "known": user in (ids.ids if ids is not None and ids.code(user) >= 0 else ()), "events": len(every),
                "live": len(later), "items": [cards.card(row) for row in self.rows(every[-k:])]}  # fmt: skip

    async def ask(self, question: Question, name: str | None) -> dict[str, Any]:
        """The answer of a version, with the cards of its items and of the history items it names, and what they have in common."""
        found = await self.live.look_at(question, name)
        history = await self.history(question.user, 50) if question.user else {"items": []}
        past = [card["item"] for card in history["items"]] + list(question.history or [])
        rows = {row["item"]: row for row in self.rows([row["item"] for row in found["items"]])}
        before = self.rows(list(dict.fromkeys(past[-50:])))
        cards, counts = self.cards(), await asyncio.to_thread(self.counts)
        told = matching(cards, [rows.get(row["item"], {"item": row["item"]}) for row in found["items"]], before, counts, len(self.answerer.items))
        for row, match, chance in zip(found["items"], told, found["propensities"], strict=True):
            row |= {"matches": match, "propensity": chance, "card": cards.card(rows.get(row["item"], {"item": row["item"]}))}
        named = {one["item"] for row in found["items"] for key in ("history", "attention", "neighbours") for one in ((row["why"] or {}).get(key) or [])}
        return {**found, "cards": {row["item"]: cards.card(row) for row in self.rows(sorted(named))}}

    def data(self) -> dict[str, Any]:
        """Facts and distributions of the data set. Raises DataError."""
        path = str(self.data_path())
        if path not in self._data:
            self._data[path] = distributions(path)
        return self._data[path]

    def map(self) -> dict[str, Any]:
        """The popular items on a plane, by the current version, or by the first source of a funnel. Raises SettingError."""
        answerer = self.answerer
        one = getattr(answerer, "base", answerer)
        if not isinstance(one, Recommender):
            raise SettingError(f'The model "{answerer.name}" tells no vectors of items, so they have no place on a map.')
        if self._map[0] is not one:
            made, cards = item_map(one, most=MOST_POINTS), self.cards()
            rows = {row["item"]: row for row in self.rows([point["item"] for point in made["points"]])}
            points = [{**point, "card": cards.card(rows[point["item"]])} for point in made["points"] if point["item"] in rows]
            self._map = one, {**made, "points": points}
        return self._map[1]

    def rates(self) -> list[dict[str, Any]]:
        """Click rates of the last week by variant, with their interval."""
        store = self.live.store
        found = {} if store is None else store.rates(now() - RATES_OVER * 1_000_000)
        rows = []
        for name, rate in sorted(found.items()):
            low, high = wilson(rate.clicked_requests, rate.requests)
            rows.append({"variant": name, "requests": rate.requests, "shown": rate.shown, "clicked": rate.clicked,
                         "rate": rate.clicked_requests / max(rate.requests, 1), "low": low, "high": high})  # fmt: skip
        return rows


def add_api(app: FastAPI, live: Live, shapes: Shapes, runs: Path | None) -> None:
    """The routes under /studio/api."""
    page = Page(live, runs)
    asked_shape = shapes.look

    @app.get(API + "state", include_in_schema=False)
    async def state() -> Response:
        return reply(await asyncio.to_thread(page.state))

    @app.get(API + "catalogue", include_in_schema=False)
    async def catalogue(q: Begins = "", category: Annotated[str | None, Query(max_length=400)] = None, k: Some = 24) -> Response:
        def find() -> list[dict[str, Any]]:
            cards, answerer = page.cards(), page.answerer
            popularity = getattr(answerer, "popularity", None)
            ids = cards.find(answerer.items, q, category, k, None if popularity is None else popularity.numpy())
            return [cards.card(row) for row in page.rows(ids)]

        return reply({"items": await asyncio.to_thread(find)})

    @app.get(API + "cards", include_in_schema=False)
    async def cards(item: Ids) -> Response:
        return reply({"items": [page.cards().card(row) for row in page.rows(item)]})

    @app.get(API + "picture", include_in_schema=False)
    async def picture(item: OneId, size: int = SIZES[1]) -> Response:
        if size not in SIZES:
            return problem(422, f"Pictures come in {', '.join(map(str, SIZES))} pixels: ask for one of these.")
        made = await asyncio.to_thread(page.cards().pictures.small, item, size)
        if made is None:
            return problem(404, no_item(item) if live.row(item) is None else "This item has no picture that can be read.")
        return Response(made, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    @app.get(API + "users", include_in_schema=False)
    async def users(q: Begins = "", k: Some = 20) -> Response:
        return reply({"users": await asyncio.to_thread(page.users, q, k)})

    @app.get(API + "history", include_in_schema=False)
    async def history(user: OneId, k: Some = 40) -> Response:
        return reply(await page.history(user, k))

    @app.post(API + "ask", include_in_schema=False)
    async def ask(request: Request, asked: asked_shape) -> Response:  # type: ignore[valid-type]
        told: Any = asked
        if told.user is None and told.history is None:
            return problem(422, 'Give either "user" or "history", or both.')
        question = Question(
            told.user, told.history, told.k, told.include_seen, told.filter, explain=True, diversity=told.diversity, explore=told.explore
        )  # fmt: skip
        return reply({"request_id": request.state.request_id, **await page.ask(question, told.version)})

    @app.get(API + "data", include_in_schema=False)
    async def data() -> Response:
        path = page.data_path()
        if path is None or not Path(path).is_dir():
            return problem(404, NO_DATA)
        try:
            return reply(await asyncio.to_thread(page.data))
        except VitrailError:
            return problem(404, NO_DATA)

    @app.get(API + "map", include_in_schema=False)
    async def map_() -> Response:
        try:
            return reply(await asyncio.to_thread(page.map))
        except SettingError as error:
            return problem(404, str(error))

    @app.get(API + "runs", include_in_schema=False)
    async def runs_() -> Response:
        return reply(await asyncio.to_thread(read_runs, page.runs))

    @app.get(API + "rates", include_in_schema=False)
    async def rates() -> Response:
        return reply({"rates": await asyncio.to_thread(page.rates)})
