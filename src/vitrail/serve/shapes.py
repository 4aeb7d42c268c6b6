"""What requests and answers of the service look like. Bounds live in the types, so they stand in the OpenAPI page too."""

# No `from __future__ import annotations` here: the types are made inside a function, and FastAPI reads them as objects.

from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_ID = 1024
"""Characters of an id in a request."""
MAX_FILTER = 4000
"""Characters of a filter in a request."""

Id = Annotated[str, StringConstraints(max_length=MAX_ID)]
Filter = Annotated[str | None, Field(max_length=MAX_FILTER, description='A condition over item attributes, e.g. price < 20 and category == "lipstick".')]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(BaseModel):
    """Where a recommended item came from."""

    name: str
    rank: int
    score: float


class Item(BaseModel):
    """One recommended item."""

    item: str
    rank: int
    score: float
    sources: list[Source]
    why: Any | None = None


class Answer(BaseModel):
    """The answer to /recommend."""

    user: str | None
    request_id: str
    fallback: str | None
    items: list[Item]


class SimilarAnswer(BaseModel):
    """The answer to /similar."""

    item: str
    request_id: str
    items: list[Item]


class Problem(BaseModel):
    """What every refused request gets: one sentence."""

    error: str


class Shapes(NamedTuple):
    """The request types under the limits of one service."""

    recommend: Any
    recommend_query: Any
    similar: Any


def request_shapes(max_k: int, max_history: int) -> Shapes:
    """The request types of a service that answers at most `max_k` items and reads at most `max_history` events."""
    Count = Annotated[int, Field(ge=1, le=max_k, description=f"How many items to answer, 1 to {max_k}.")]
    History = Annotated[list[Id] | None, Field(max_length=max_history, description="Item ids, oldest first; in place of user.")]

    class Recommend(_Request):
        user: Annotated[Id | None, Field(description="A user id; an unknown one gets the popular items.")] = None
        history: History = None  # type: ignore[valid-type]
        k: Count = min(10, max_k)  # type: ignore[valid-type]
        include_seen: Annotated[bool, Field(description="Whether items of the history may come back.")] = False
        filter: Filter = None

    class RecommendQuery(_Request):
        user: Annotated[Id, Field(description="A user id; an unknown one gets the popular items.")]
        k: Count = min(10, max_k)  # type: ignore[valid-type]
        include_seen: Annotated[bool, Field(description="Whether items of the history may come back.")] = False
        filter: Filter = None

    class Similar(_Request):
        item: Annotated[Id, Field(description="An item id of the catalogue.")]
        k: Count = min(10, max_k)  # type: ignore[valid-type]
        filter: Filter = None

    return Shapes(Recommend, RecommendQuery, Similar)


def similar_items(recommender: Any, item: str, k: int, filter: str | None) -> list[dict[str, Any]]:
    """The k items most similar to `item`, best first, in the shape of a recommended item. Raises as `Recommender.similar`."""
    rows = recommender.similar([item], k, filter=filter).select("item", "rank", "score").rows()
    places = [(item, {"rank": rank, "score": score}) for item, rank, score in rows]
    return [{"item": found, **place, "sources": [{"name": recommender.name, **place}], "why": None} for found, place in places]
