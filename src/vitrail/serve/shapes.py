"""What requests and answers of the service look like. Bounds live in the types, so they stand in the OpenAPI page too."""

# No `from __future__ import annotations` here: the types are made inside a function, and FastAPI reads them as objects.

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AwareDatetime, Base64Bytes, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from vitrail.serve.answerer import rows_of

MAX_ID = 1024
"""Characters of an id in a request."""
MAX_FILTER = 4000
"""Characters of a filter in a request."""

MAX_BATCH = 1000
"""Events, or items, of one request."""
MAX_CONTEXT = 4000
"""Characters of a context as JSON."""
FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""Times an event can have."""

Id = Annotated[str, StringConstraints(max_length=MAX_ID, pattern=r"^[^\x00]*$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID, pattern=r"^[^\x00]*$")]
RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Dial = Annotated[
    float | None, Field(ge=0, le=1, description="How diverse the page is, or how much is left to chance, where the model has such a stage.")
]
Context = Annotated[dict[str, JsonValue] | None, Field(description="What else is known of the moment: page, device, campaign. Kept with the answer.")]
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
    variant: str
    """Version of the model that answered."""
    fallback: str | None
    degraded: str | None
    """Why the answer is less than it could be, such as a time budget that ran out."""
    items: list[Item]
    propensities: list[float]
    """The chance with which each item was put where it is."""
    trace: dict[str, Any] | None = None
    """What each stage did and how long it took, where `explain` was asked."""


class SimilarAnswer(BaseModel):
    """The answer to /similar."""

    item: str
    request_id: str
    items: list[Item]


class SearchAnswer(BaseModel):
    """The answer to /search."""

    request_id: str
    items: list[Item]


class EventsAnswer(BaseModel):
    """The answer to /events: they are on disk."""

    request_id: str
    event_ids: list[str]
    """Of the events as they were sent; an event without one got one."""
    new: int
    known: int
    """Events whose id was there already; they stay as they were."""


class ItemsAnswer(BaseModel):
    """The answer to /items."""

    request_id: str
    changed: int
    withdrawn: int
    unknown_to_model: int
    """Items that the model cannot recommend before it is updated, for want of training; one that answers by content takes new items in at once."""
    version: int


class ModelRow(BaseModel):
    """A loaded version."""

    name: str
    system: str
    items: int
    share: float
    shadow: bool


class RateRow(BaseModel):
    """What became of a variant's answers of the last 7 days."""

    requests: int
    shown: int
    """Items."""
    clicked: int
    clicked_requests: int
    click_rate: float
    """Share of requests with a clicked item."""
    interval: list[float]
    """Its 95 % Wilson interval."""


class ModelsAnswer(BaseModel):
    """The answer to /models."""

    current: str
    previous: str | None
    versions: list[ModelRow]
    offered: list[str]
    """Models in the service's folder that could be loaded."""
    rates: dict[str, RateRow]


class EventBody(_Request):
    """Something a user did with an item."""

    event_id: Annotated[Name | None, Field(description="Says which event it is: sent again, it counts once. Without one each sending counts.")] = None
    user: Name
    item: Name
    event: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00]*$"), Field(description="Its kind.")] = "click"
    timestamp: Annotated[AwareDatetime | None, Field(description="When, as 2026-01-31T12:00:00Z, from 1970 to 2200; without one: now.")] = None
    value: Annotated[float | None, Field(allow_inf_nan=False, description="A rating or count.")] = None
    request_id: Annotated[RequestId | None, Field(description="Of the answer that showed the item.")] = None
    context: Context = None


class EventsBody(_Request):
    """Several events; all are kept, or none."""

    events: Annotated[list[EventBody], Field(min_length=1, max_length=MAX_BATCH)]


class ItemsBody(_Request):
    """What changed of items."""

    items: Annotated[list[dict[str, JsonValue]], Field(max_length=MAX_BATCH, description='With new or other attributes: {"item": "i1", "price": 9.5}.')] = []
    vectors: Annotated[
        dict[Name, dict[str, list[Finite]]],
        Field(max_length=MAX_BATCH, description='Content of new items, where you have it as vectors: {"i1": {"text": [0.1, ...]}}.'),
    ] = {}
    pictures: Annotated[dict[Name, Base64Bytes], Field(max_length=MAX_BATCH, description='Pictures of new items, as base64: {"i1": "/9j/4AAQ..."}.')] = {}
    withdraw: Annotated[list[Name], Field(max_length=MAX_BATCH, description="Items that shall not be answered any more.")] = []


class ModelsBody(_Request):
    """What to do with a version of the model."""

    action: Annotated[
        Literal["load", "switch", "share", "shadow", "rollback", "unload"],
        Field(description="load it beside the others; let it answer everybody, or a share of users; let it listen; go back; let go of it."),
    ]
    name: Annotated[str | None, StringConstraints(max_length=255), Field(description="A version: one of those offered.")] = None
    share: Annotated[float | None, Field(ge=0, lt=1, description="Share of users it answers.")] = None


class SearchBody(_Request):
    """A text to search by."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    k: Annotated[int, Field(ge=1)] = 10
    filter: Filter = None


class Problem(BaseModel):
    """What every refused request gets: one sentence."""

    error: str


class Shapes(NamedTuple):
    """The request types under the limits of one service."""

    recommend: Any
    recommend_query: Any
    similar: Any
    search: Any
    picture_query: Any
    look: Any


def request_shapes(max_k: int, max_history: int) -> Shapes:
    """The request types of a service that answers at most `max_k` items and reads at most `max_history` events."""
    Count = Annotated[int, Field(ge=1, le=max_k, description=f"How many items to answer, 1 to {max_k}.")]
    History = Annotated[list[Id] | None, Field(max_length=max_history, description="Item ids, oldest first; after what is known of the user, if one is given.")]

    class Recommend(_Request):
        user: Annotated[Id | None, Field(description="A user id; an unknown one gets the popular items.")] = None
        history: History = None  # type: ignore[valid-type]
        k: Count = min(10, max_k)  # type: ignore[valid-type]
        include_seen: Annotated[bool, Field(description="Whether items of the history may come back.")] = False
        filter: Filter = None
        context: Context = None
        explain: Annotated[bool, Field(description="Whether `why` and `trace` are filled in.")] = False
        diversity: Dial = None
        explore: Dial = None

    class Look(_Request):
        user: Annotated[Id | None, Field(description="A user id.")] = None
        history: History = None  # type: ignore[valid-type]
        k: Count = min(10, max_k)  # type: ignore[valid-type]
        include_seen: bool = False
        filter: Filter = None
        diversity: Dial = None
        explore: Dial = None
        version: Annotated[str | None, StringConstraints(max_length=255), Field(description="Which loaded version is asked; none: whoever would be.")] = None

    class RecommendQuery(_Request):
        user: Annotated[Id, Field(description="A user id; an unknown one gets the popular items.")]
        k: Count = min(10, max_k)  # type: ignore[valid-type]
        include_seen: Annotated[bool, Field(description="Whether items of the history may come back.")] = False
        filter: Filter = None
        explain: Annotated[bool, Field(description="Whether `why` and `trace` are filled in.")] = False
        diversity: Dial = None
        explore: Dial = None

    class Similar(_Request):
        item: Annotated[Id, Field(description="An item id of the catalogue.")]
        k: Count = min(10, max_k)  # type: ignore[valid-type]
        filter: Filter = None

    class Search(SearchBody):
        k: Count = min(10, max_k)  # type: ignore[valid-type]

    class PictureQuery(_Request):
        k: Count = min(10, max_k)  # type: ignore[valid-type]
        filter: Filter = None

    return Shapes(Recommend, RecommendQuery, Similar, Search, PictureQuery, Look)


def similar_items(recommender: Any, item: str, k: int, filter: str | None) -> list[dict[str, Any]]:
    """The k items most similar to `item`, best first, in the shape of a recommended item. Raises as `Recommender.similar`."""
    return rows_of(recommender.similar([item], k, filter=filter), recommender.name)
