"""The stages behind retrieval: ranking candidates, laying out the page, leaving it to chance. Each sees item codes and numbers only.

Letters: B requests, K candidates, k places, S sources, N items, D width.
"""

from __future__ import annotations

import inspect
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.evaluation.ranking import refuse_nan
from vitrail.funnel.fuse import Fused
from vitrail.funnel.rules import Ruling
from vitrail.systems.base import Given, System
from vitrail.systems.policy import Choice, Policy
from vitrail.systems.slate import NOTHING, Candidates, Slate

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
CONSTANT = 60.0
"""Of the reciprocal ranks by which the ranker's order and that of retrieval are mixed."""


def signals(fused: Fused) -> dict[str, pl.Series]:
    """What retrieval says of each candidate, as columns of B x K numbers for a ranker: `retrieval score`, `retrieval sources` (how many found it), and of
    each source `rank SOURCE` and `score SOURCE`; NaN where the source lacks the item. No query of polars is run for it: one takes longer than the rest.
    """
    found = fused.ranks > 0
    columns = {"retrieval score": np.where(np.isfinite(fused.scores), fused.scores, np.nan), "retrieval sources": found.sum(2).astype(np.float64)}
    for place, name in enumerate(fused.names):
        columns[f"rank {name}"] = np.where(found[:, :, place], fused.ranks[:, :, place].astype(np.float64), np.nan)
        columns[f"score {name}"] = fused.values[:, :, place].astype(np.float64)
    return {name: pl.Series(name, np.ascontiguousarray(values).ravel()) for name, values in columns.items()}


class Ranking:
    """Orders candidates by a ranker, or by the scores of any other system; in time, or not at all."""

    def __init__(self, model: System, *, mix: float = 0.0, budget_ms: float | None = None, given: Given | None = None) -> None:
        """`mix`: weight of the retrieval order in the final one; `given`: what the model was built from, without which it takes in no new items."""
        asked: Any = model.eval()
        self.model, self.given = asked, given
        self.knows: int = asked.sizes.items if hasattr(asked, "sizes") else np.iinfo(np.int64).max
        """Items from code 0 on that it can score."""
        self.mix, self.budget_ms = mix, budget_ms
        self.ranker = hasattr(model, "score")
        self._takes = set(inspect.signature(asked.score).parameters) if self.ranker else set()
        self._worker: ThreadPoolExecutor | None = None
        self._busy: Future[Float64] | None = None

    def mixing(self, mix: float) -> Ranking:
        """The same model, with another weight of the retrieval order."""
        other = copy(self)
        other.mix = mix
        return other

    @property
    def name(self) -> str:
        """The name of its system."""
        card = getattr(self.model, "card", None)
        return "rank" if card is None else str(card.name)

    def observe(self, known: Log, table: pl.DataFrame | None = None) -> None:
        """Let a ranker that counts what happened count from `known` on, whose events are rows of `table`: the state of a service that has seen more than the
        fit. What a request sees of it lies strictly before its moment."""
        if known.times is not None and hasattr(self.model, "observe"):
            self.model.observe(known, *(() if table is None else (table,)))

    def hear(self, events: pl.DataFrame) -> None:
        """Let a ranker that counts what happens count `events` too: user and item (codes), timestamp (microseconds), and what else is known of them."""
        if hasattr(self.model, "hear"):
            self.model.hear(events)

    def scores(self, histories: Sets, fused: Fused, now: Int64 | None) -> Float64:
        """(B, K) scores, -inf where no candidate is; chances where the model is a ranker. Candidates that the model does not know come last."""
        if not fused.codes.shape[1]:
            return np.empty(fused.codes.shape)
        there = fused.codes >= 0
        strange = fused.codes >= self.knows
        codes = torch.from_numpy(np.where(there & ~strange, fused.codes, 0))
        histories = histories.before(self.knows)
        with torch.inference_mode():
            if self.ranker:
                more: dict[str, Any] = {"context": signals(fused)} if "context" in self._takes else {}
                found = self.model.score(histories, codes, None if now is None else torch.from_numpy(now), **more).cpu()
            else:
                own = self.model.answerable(histories).cpu()
                # whom the system cannot answer, retrieval orders
                found = torch.where(own[:, None], self.model.scores(histories).cpu().gather(1, codes), torch.from_numpy(fused.scores).float())
        refuse_nan(found[torch.from_numpy(there)])
        scores = np.where(there, found.double().numpy(), -np.inf)
        if strange.any():
            least = np.where(there & ~strange, scores, np.inf).min(1, keepdims=True)
            scores = np.where(strange, np.where(np.isfinite(least), least, 0.0), scores)
        return scores

    def in_time(self, histories: Sets, fused: Fused, now: Int64 | None, budget_ms: float | None) -> Float64 | None:
        """The scores, or none where they take longer than the budget. While a late answer is still being made nothing is asked: the ranker is not buried
        under requests that nobody waits for."""
        if budget_ms is None:
            return self.scores(histories, fused, now)
        if self._busy is not None and not self._busy.done():
            return None
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="rank")
        self._busy = self._worker.submit(self.scores, histories, fused, now)
        try:
            return self._busy.result(max(budget_ms, 0.0) / 1000)
        except Late:
            return None

    def order(self, fused: Fused, scores: Float64) -> Int64:
        """(B, K) places, best first: by score, equal ones as retrieval had them; or both orders mixed by reciprocal ranks."""
        order = np.argsort(-scores, axis=1, kind="stable")
        if self.mix == 0.0:
            return order
        return mixed(order, self.mix)


def mixed(order: Int64, mix: float) -> Int64:
    """(B, K) places by (1 - mix) / (60 + rank in `order`) + mix / (60 + place); `order` (B, K) of the candidates as retrieval had them."""
    b, width = order.shape
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(width), (b, width)), axis=1)
    worth = (1 - mix) / (CONSTANT + 1 + rank) + mix / (CONSTANT + 1 + np.arange(width))
    return np.argsort(-worth, axis=1, kind="stable")


class Layout:
    """Lays out pages: a slate, then rules."""

    def __init__(self, slate: Slate | None, ruling: Ruling | None, vectors: npt.NDArray[np.float32]) -> None:
        """`vectors` (N, D) of length 1 or zero, by which items are alike."""
        self.slate, self.ruling, self.vectors = slate, ruling, vectors

    def arrange(self, codes: Int64, scores: Float64, k: int) -> Int64:
        """(B, K) candidates, best first -> (B, K) items as the slate puts them, the first 2k places arranged, the rest as they were."""
        if self.slate is None or not codes.shape[1]:
            return codes
        width = min(codes.shape[1], 2 * k if self.ruling is not None else k)
        places = self.slate.arrange(Candidates(scores, self.vectors[np.maximum(codes, 0)]), width)
        rest = np.ones(codes.shape, dtype=bool)
        rows, where = np.nonzero(places >= 0)
        rest[rows, places[rows, where]] = False
        order = np.argsort(~rest, axis=1, kind="stable")
        taken = (places >= 0).sum(1)[:, None]
        at = np.arange(codes.shape[1])
        left = np.take_along_axis(order, np.maximum(at - taken, 0), axis=1)
        first = np.pad(places, ((0, 0), (0, codes.shape[1] - width)), constant_values=NOTHING)
        return np.take_along_axis(codes, np.where(at < taken, np.maximum(first, 0), left), axis=1)

    def rule(self, codes: Int64, k: int, users: Int64, allowed: Bool | None) -> tuple[Int64, Bool]:
        """(B, k) pages, -1 where short, and which items are pinned."""
        if self.ruling is not None:
            return self.ruling.apply(codes, k, users, allowed)
        page = np.pad(codes[:, :k], ((0, 0), (0, max(k - codes.shape[1], 0))), constant_values=-1)
        return page, np.zeros(page.shape, dtype=bool)


def explore(
    policy: Policy, page: Int64, pinned: Bool, codes: Int64, scores: Float64, depth: int, counts: Float64, rng: np.random.Generator
) -> tuple[Int64, Float64]:
    """Leave the places that are not pinned to a policy: it draws from the page and the `depth` best candidates `codes` (B, K) behind it.

    `counts` (N,) how often items were seen. -> (B, k) pages and the chance of each item at its place, 1 where it is pinned, NaN where nothing stands.
    Rules other than pins and exclusions shape the page it starts from and can be broken by what it draws.
    """
    result, chance = page.copy(), np.where(page >= 0, 1.0, np.nan)
    open_ = (page >= 0) & ~pinned
    for free in np.unique(open_.sum(1)):
        rows = np.flatnonzero(open_.sum(1) == free)
        if not free:
            continue
        front = page[rows][open_[rows]].reshape(len(rows), free)
        shown = page[rows]
        behind = codes[rows, :depth]
        fresh = (behind >= 0) & ~(behind[:, :, None] == np.where(shown < 0, -2, shown)[:, None, :]).any(2)
        pool = np.concatenate([front, np.where(fresh, behind, -1)], axis=1)
        pool = np.take_along_axis(pool, np.argsort(pool < 0, axis=1, kind="stable"), axis=1)
        worth = _scores_of(pool, codes[rows], scores[rows])
        action = policy.act(Choice(worth, shown=counts[np.maximum(pool, 0)]), int(free), rng)
        picked = np.take_along_axis(pool, np.maximum(action.places, 0), axis=1)
        where = np.nonzero(open_[rows])
        result[rows[where[0]], where[1]] = picked.ravel()
        chance[rows[where[0]], where[1]] = action.marginal.ravel()
    return result, chance


def _scores_of(pool: Int64, codes: Int64, scores: Float64) -> Float64:
    """(B, P) the score of each item of `pool` among the candidates; -inf where none stands, and the lowest of its row where it was no candidate."""
    order = np.argsort(codes, axis=1, kind="stable")
    found = np.full(pool.shape, -np.inf)
    finite = np.where(np.isfinite(scores), scores, np.nan)
    for row in range(len(pool)):
        ranked = codes[row, order[row]]
        place = np.minimum(np.searchsorted(ranked, pool[row]), max(len(ranked) - 1, 0))
        known = (ranked[place] == pool[row]) if len(ranked) else np.zeros(len(pool[row]), dtype=bool)
        low = np.nanmin(finite[row]) if np.isfinite(finite[row]).any() else 0.0
        values = finite[row, order[row][place]] if len(ranked) else np.zeros(len(pool[row]))
        found[row] = np.where(pool[row] < 0, -np.inf, np.where(known, values, low))
    return found
