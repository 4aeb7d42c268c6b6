"""Why a fitted system recommends what it does: the page with its reasons, and how far each kind of content moves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitrail.errors import SettingError
from vitrail.funnel.altered import changed, with_content
from vitrail.funnel.recommender import Recommender
from vitrail.funnel.why import Adds


def explain_run(
    recommender: Recommender,
    user: str | None = None,
    history: Sequence[str] | None = None,
    k: int = 10,
    *,
    include_seen: bool = False,
    filter: str | None = None,
) -> dict[str, Any]:
    """{system, user, known, fallback, items: [{item, rank, score, why}], trace} of one request.

    `why` as in `funnel.why`. Where the system reads content and cannot tell what each kind adds, it is asked again without each: `without` has by kind how
    much lower the score is and at which rank the item would stand. Raises as `Recommender.recommend`.
    """
    if (user is None) == (history is None):
        raise SettingError("Explain one user or one history, one of the two.")
    found = recommender.answer(user, None if history is None else list(history), k, include_seen, filter, explain=True)
    if found["fallback"] is None and recommender.given.vectors and not isinstance(recommender.model, Adds):
        _without_each(recommender, found["items"], user, history, include_seen, filter)
    known = found["trace"]["known"]
    items = [{key: row[key] for key in ("item", "rank", "score", "why")} for row in found["items"]]
    return {"system": recommender.name, "user": user, "known": known, "fallback": found["fallback"], "items": items, "trace": found["trace"]}


def _without_each(
    recommender: Recommender, rows: list[dict[str, Any]], user: str | None, history: Sequence[str] | None, include_seen: bool, filter: str | None
) -> None:
    """Adds `without` to the `why` of each row."""
    for name in recommender.given.vectors:
        other = with_content(recommender, changed(recommender.given, "without", name, 1.0, 0))
        table = other.answer(user, None if history is None else list(history), len(recommender.item_ids), include_seen, filter)
        places = {row["item"]: row for row in table["items"]} if table["fallback"] is None else {}
        for row in rows:
            there = places.get(row["item"])
            told = {"modality": name, "score": None if there is None else row["score"] - there["score"], "rank": None if there is None else there["rank"]}
            row["why"] = {**(row["why"] or {}), "without": [*(row["why"] or {}).get("without", []), told]}
