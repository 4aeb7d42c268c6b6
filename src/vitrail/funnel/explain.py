"""What each stage of a funnel did to one request: what it added, dropped and moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vitrail.errors import SettingError

if TYPE_CHECKING:
    from vitrail.funnel.funnel import Funnel, Trace
    from vitrail.funnel.sources import Ask

SHOWN = 10
"""Items of a stage that are listed."""


def explain(
    funnel: Funnel, user: str | None = None, history: Sequence[str] | None = None, k: int = 10, *, include_seen: bool = False, filter: str | None = None
) -> dict[str, Any]:
    """{user, known, fallback, degraded, milliseconds, stages: [{stage, count, added, dropped, moved, items}]} of one request.

    A retrieval stage says what it found and how much of that no other source did; the stages behind it what came onto and fell off the page of k.
    Raises as `Funnel.recommend`.
    """
    if (user is None) == (history is None):
        raise SettingError("Explain one user or one history, one of the two.")
    ask = funnel.ask(None if user is None else [user], None if history is None else [list(history)], include_seen, filter)
    trace = funnel.run(ask, k, in_time=True)
    return {"user": user, "fallback": None if trace.personal[0] else "popular", "degraded": trace.degraded, **told(funnel, ask, trace, k)}


def told(funnel: Funnel, ask: Ask, trace: Trace, k: int) -> dict[str, Any]:
    """{known, catalogue, milliseconds, stages} of the first request of a batch that was answered with a page of k."""
    ids = funnel.item_ids.ids

    def named(codes: Sequence[int]) -> list[str]:
        return [ids[code] for code in codes if code >= 0]

    allowed = len(ids) if ask.allowed is None else int(ask.allowed.sum())
    stages: list[dict[str, Any]] = [
        {"stage": "filter", "count": allowed - (0 if ask.seen is None else len(ask.seen.items.unique())), "dropped": len(ids) - allowed, "items": []}
    ]
    lists = [[code for code in one.codes[0].tolist() if code >= 0] for one in trace.found]
    for place, (one, codes) in enumerate(zip(trace.found, lists, strict=True)):
        others = {code for at, other in enumerate(lists) if at != place for code in other}
        stages.append({"stage": f"retrieve {one.name}", "count": len(codes), "added": len(set(codes) - others), "items": named(codes[:SHOWN])})
    fused = [code for code in trace.fused.codes[0].tolist() if code >= 0]
    stages.append({"stage": "fuse", "count": len(fused), "dropped": len({c for codes in lists for c in codes}) - len(fused), "items": named(fused[:SHOWN])})
    before = fused[:k]
    for stage, order in _behind(funnel, trace):
        after = [code for code in order[:k] if code >= 0]
        stages.append(
            {
                "stage": stage,
                "count": len([code for code in order if code >= 0]),
                "added": named([code for code in after if code not in before]),
                "dropped": named([code for code in before if code not in after]),
                "moved": sum(code in before and before.index(code) != place for place, code in enumerate(after)),
                "items": named(after[:SHOWN]),
            }
        )
        before = after
    return {"known": len(ask.histories.items), "catalogue": len(ids), "milliseconds": dict(trace.clock.rounded()), "stages": stages}


def _behind(funnel: Funnel, trace: Trace) -> list[tuple[str, list[int]]]:
    """The stages behind fusion that this funnel has, with the order each left."""
    found: list[tuple[str, np.ndarray]] = []
    if funnel.ranking is not None:
        found.append(("rank" if trace.degraded != "rank" else "rank (late, left out)", trace.ranked[0]))
    if funnel.layout.slate is not None:
        found.append((f"arrange {funnel.layout.slate.card.name}", trace.arranged[0]))
    if funnel.layout.ruling is not None or funnel.policy is not None:
        found.append(("page", trace.page[0]))
    return [(stage, order.tolist()) for stage, order in found]
