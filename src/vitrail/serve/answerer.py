"""What the service asks of whatever answers, be it one fitted system or a whole funnel, and how it asks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import polars as pl

from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import SettingError


class Answerer(Protocol):
    """Answers questions. Beside these, it may have the abilities below; `answer` may also take the keywords `context` (a mapping), `explain` (fill in
    `why`, and tell what each stage did in `trace`), `budget_ms` (after which it answers with what it has, and says so in `degraded`), `diversity` and
    `explore` (shares by which a page is made diverse, or left to chance).
    """

    info: dict[str, Any]
    """The manifest."""
    items: pl.DataFrame
    """The catalogue in code order: item and attributes."""
    item_ids: Vocabulary

    @property
    def name(self) -> str:
        """The system's name."""
        ...

    def answer(self, user: str | None, history: list[str] | None, k: int, include_seen: bool, filter: str | None) -> dict[str, Any]:
        """-> {user, fallback, items: [{item, rank, score, sources, why}]} as plain Python; an item may have `propensity`, an answer `degraded`.

        With both `user` and `history`, the history is what happened after that which is known of the user.
        """
        ...

    def similar(self, items: Sequence[str], k: int = 10, *, filter: str | None = None) -> Any:
        """A table of query, item, rank, score."""
        ...


@runtime_checkable
class Overlays(Protocol):
    """Can be told, while it serves, that items changed."""

    def overlay(self, changes: Mapping[str, Mapping[str, Any]], withdrawn: Set[str]) -> None:
        """From now on attributes are those of the artifact with `changes`, and `withdrawn` items are never answered. Each call replaces the last."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """Knows with what times the artifact holds a user's events, so that none is counted twice once it was trained on."""

    def known_events(self, user: str) -> set[tuple[str, int]]:
        """(item, microseconds) of the events of a user in the artifact; empty where it has no times."""
        ...


@runtime_checkable
class Grows(Protocol):
    """Can answer with items it never met, by their content."""

    @property
    def content(self) -> Mapping[str, int]:
        """Names and widths of the vectors by which new items are taken in; none: it takes none in."""
        ...

    def with_items(self, items: pl.DataFrame, vectors: Mapping[str, Any]) -> Any:
        """An answerer that knows the rows of `items` (a column item) too, by vectors name -> (n, D); this one stays as it is."""
        ...


@runtime_checkable
class Hears(Protocol):
    """Counts what happens while it serves."""

    counts: bool
    """Whether anything in it does; else it is told of nothing."""
    heard: int
    """The place in the store of the newest event it was told of."""

    def hear(self, events: pl.DataFrame) -> None:
        """Events in the order they came: user, item (ids), timestamp (microseconds), event, value. What it knows already it passes over."""
        ...


@runtime_checkable
class Searches(Protocol):
    """Finds items by text or picture."""

    def search(self, text: str | None, picture: bytes | None, k: int, *, filter: str | None = None) -> pl.DataFrame | None:
        """A table of item, rank, score, or none where the artifact has no content of that kind. Raises DataError for what is no picture."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """A question to an answerer."""

    user: str | None
    history: list[str] | None
    k: int = 10
    include_seen: bool = False
    filter: str | None = None
    context: Mapping[str, Any] | None = None
    explain: bool = False
    budget_ms: float | None = None
    diversity: float | None = None
    explore: float | None = None
    times: list[int] | None = None
    """When the events of the history happened, in microseconds, where that is known"""
    trouble: str | None = None
    """Why the history lacks the user's newest events, where it does."""


class Asker:
    """Asks an answerer, whatever of the optional keywords and abilities it has."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer
        self._takes = set(inspect.signature(answerer.answer).parameters)
        self._withdrawn: Set[str] = frozenset()
        self._overlays = isinstance(answerer, Overlays)

    def overlay(self, changes: Mapping[str, Mapping[str, Any]], withdrawn: Set[str]) -> None:
        """Hand on what is said of items; where the answerer cannot take it, withdrawn items are taken out of its answers here."""
        if isinstance(self.answerer, Overlays):
            self.answerer.overlay(changes, withdrawn)
        self._withdrawn = withdrawn

    def dials(self) -> dict[str, float | None]:
        """The dials a question may turn, and where they stand; a dial that is not named cannot be turned."""
        told = getattr(self.answerer, "dials", None)
        found = {name: getattr(told, name, 0.0) for name in ("diversity", "explore") if name in self._takes}
        return {name: value for name, value in found.items() if value is not None}

    def ask(self, question: Question) -> dict[str, Any]:
        """{user, fallback, degraded, items, propensities}, and the `trace` where the answerer tells one. Raises SettingError for a dial it lacks."""
        words: dict[str, Any] = {}
        for name, share in (("diversity", question.diversity), ("explore", question.explore)):
            if share is not None:
                if name not in self._takes:
                    raise SettingError(f'The model "{self.answerer.name}" has no stage that takes "{name}": leave it out.')
                words[name] = share
        for name, value in (("context", question.context), ("explain", question.explain or None), ("budget_ms", question.budget_ms), ("times", question.times)):
            if value is not None and name in self._takes:
                words[name] = value
        more = 0 if self._overlays else len(self._withdrawn)
        found = self.answerer.answer(question.user, question.history, question.k + more, question.include_seen, question.filter, **words)
        rows = self._kept(found["items"], question.k)
        chances = [float(row.pop("propensity", 1.0)) for row in rows]
        answer = {"user": found["user"], "fallback": found["fallback"], "degraded": found.get("degraded"), "items": rows, "propensities": chances}
        return answer | {"trace": found["trace"]} if "trace" in found else answer

    def similar(self, item: str, k: int, filter: str | None) -> list[dict[str, Any]]:
        """The k items most similar to `item`, best first, as recommended items. Raises as the answerer."""
        more = 0 if self._overlays else len(self._withdrawn)
        return self._kept(rows_of(self.answerer.similar([item], k + more, filter=filter), self.answerer.name), k)

    def _kept(self, rows: list[dict[str, Any]], k: int) -> list[dict[str, Any]]:
        if not self._overlays and self._withdrawn:
            rows = [row for row in rows if row["item"] not in self._withdrawn][:k]
            for rank, row in enumerate(rows, start=1):
                row["rank"] = rank
        return rows


def rows_of(table: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """A table of item, rank, score as recommended items whose one source is `name`."""
    places = [(item, {"rank": rank, "score": score}) for item, rank, score in table.select("item", "rank", "score").rows()]
    return [{"item": item, **place, "sources": [{"name": name, **place}], "why": None} for item, place in places]
