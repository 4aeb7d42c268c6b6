"""A funnel that answers: retrieve from several sources, fuse, rank, arrange, explore; outside ids in and out, in the shape of a Recommender.

Every stage is timed. A ranker that is late leaves the retrieval order, and the answer says so (`degraded: "rank"`); a person of whom nothing is known
gets what the sources for everybody give (`fallback: "popular"`). Letters: B requests, K candidates, k places, N items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from vitrail.data.batches import Sets
from vitrail.errors import DataError, SettingError
from vitrail.evaluation.ranking import REMOVED, top_k
from vitrail.funnel.bulk import AnswersEverybody
from vitrail.funnel.clock import Clock
from vitrail.funnel.explain import told
from vitrail.funnel.file import FunnelFile
from vitrail.funnel.fuse import Found, Fused, fuse
from vitrail.funnel.newcomers import content_of, recommender_of, with_items
from vitrail.funnel.recommender import SOURCES, Recommender, threads_for
from vitrail.funnel.sources import Ask, DateSource, Elder, Source, block_for
from vitrail.funnel.stages import Layout, Ranking, explore
from vitrail.funnel.why import carried
from vitrail.systems.policy import Policy

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Dials:
    """What a request may turn, each 0 to 1; none: as the file says."""

    diversity: float | None = None
    explore: float | None = None


AS_THE_FILE_SAYS = Dials()


@dataclass(frozen=True)
class Trace:
    """What every stage made of a batch of requests."""

    found: list[Found]
    fused: Fused
    """candidates in the order of retrieval"""
    ranked: Int64
    """(B, K) candidates in the order of the ranker"""
    scores: npt.NDArray[np.float64]
    """(B, K) what they are worth, in that order"""
    arranged: Int64
    """(B, K) as the slate puts them"""
    page: Int64
    """(B, k) items shown, -1 where it is short"""
    chance: npt.NDArray[np.float64] | None
    """(B, k) chance of each item at its place, where a policy explores"""
    pinned: Bool
    """(B, k)"""
    personal: Bool
    """(B,) whether a source answered that knows the person"""
    degraded: str | None
    """the stage that was left out for lack of time"""
    clock: Clock = field(default_factory=Clock)

    @property
    def position(self) -> dict[str, Int64]:
        """Stage -> (B, K) or (B, k) items in its order."""
        return {"fuse": self.fused.codes, "rank": self.ranked, "arrange": self.arranged, "page": self.page}


class Funnel(AnswersEverybody):
    """Answers `recommend`, `answer`, `similar` and `explain`."""

    def __init__(
        self,
        file: FunnelFile,
        sources: Sequence[Source],
        base: Recommender,
        ranking: Ranking | None,
        layout: Layout,
        policy: Policy | None,
        info: dict[str, Any],
        *,
        seed: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        """`base` has the catalogue and what is known of people; `sources` stand in the order of the file. `seed` of exploration; none: never the same;
        `rng`: one that goes on."""
        self.file, self.sources, self.base, self.ranking, self.layout, self.policy, self.info = file, list(sources), base, ranking, layout, policy, info
        self.items, self.item_ids, self.user_ids, self.known, self.popularity = base.items, base.item_ids, base.user_ids, base.known, base.popularity
        self._ties = base._ties
        self._weights = [told.weight for told in file.retrieve]
        self._widths = [told.k for told in file.retrieve]
        self._counts = np.asarray(base.popularity.numpy(), dtype=np.float64)
        self._rng = rng or np.random.default_rng(seed)
        self._withdrawn: Tensor | None = None
        self._allowed = lru_cache(maxsize=64)(self._allow)
        self.heard = 0

    @property
    def name(self) -> str:
        """The funnel's name."""
        return self.file.funnel

    def __repr__(self) -> str:
        return f"Funnel({self.name!r}: {', '.join(source.name for source in self.sources)}; {len(self.item_ids):,} items, {len(self.user_ids):,} users)"

    def _allow(self, condition: str | None) -> Tensor | None:
        conditions = [text for text in (self.file.filter.condition, condition) if text]
        masks = [self.base._allow(text) for text in conditions] + ([] if self._withdrawn is None else [~self._withdrawn])
        if not masks:
            return None
        kept = torch.stack(masks).all(0)
        if not bool(kept.any()):
            raise DataError(f"No item passes the filters {' and '.join(f'`{text}`' for text in conditions)} together: loosen one.")
        return kept

    def overlay(self, changes: Mapping[str, Mapping[str, Any]], withdrawn: Set[str]) -> None:
        """From now on `withdrawn` items are never answered, and filters and dates see the `changes` (item -> attribute -> value).

        Each call replaces the last; items that the catalogue lacks are passed over.
        """
        for known in {id(one): one for one in (self.base, *self._alike())}.values():
            known.overlay(changes, withdrawn)
        if not self.items.equals(self.base.items):
            self.items = self.base.items
            for place, source in enumerate(self.sources):
                if isinstance(source, DateSource):
                    self.sources[place] = DateSource(source.name, self.items, source.column, self._ties)
        gone = [code for code in map(self.item_ids.code, withdrawn) if code >= 0]
        mask = torch.zeros(len(self.item_ids), dtype=torch.bool)
        mask[gone] = True
        self._withdrawn = mask if gone else None
        self._allowed = lru_cache(maxsize=64)(self._allow)

    def known_events(self, user: str) -> set[tuple[str, int]]:
        """(item, microseconds since 1970) of the events of `user` that are known; empty where the data have no times."""
        known = self.known.histories(self.user_ids.encode([user]))
        if known.times is None:
            return set()
        return {(self.item_ids.ids[code], time) for code, time in zip(known.items.tolist(), known.times.tolist(), strict=True)}

    @property
    def counts(self) -> bool:
        """Whether its ranker counts what happens."""
        return self.ranking is not None and hasattr(self.ranking.model, "hear")

    def hear(self, events: pl.DataFrame) -> None:
        """Let the ranker count `events` (user, item, timestamp in microseconds, event, value): what is known of people already is passed over."""
        users, items = self.user_ids.encode(events["user"]), self.item_ids.encode(events["item"])
        told = events.with_columns(user=users, item=items)
        people = np.unique(users[users >= 0])
        known = self.known.histories(people)
        if known.times is not None and len(people):
            seen = {"user": np.repeat(people, known.lengths.numpy()), "item": known.items.numpy(), "timestamp": known.times.numpy()}
            told = told.join(pl.DataFrame(seen), on=["user", "item", "timestamp"], how="anti", maintain_order="left")
        if self.ranking is not None and len(told):
            self.ranking.hear(told)

    # the stages

    def retrieve(self, ask: Ask) -> tuple[list[Found], Fused, Bool]:
        """What each source found, fused; and (B,) whether any source knew the person. Whoever gets nothing gets the popular items."""
        found = [source.search(ask, k) for source, k in zip(self.sources, self._widths, strict=True)]
        personal = np.zeros(len(ask), dtype=bool)
        for source, one in zip(self.sources, found, strict=True):
            if source.personal and one.codes.shape[1]:
                personal |= one.codes[:, 0] >= 0
        weights = self._weights
        bare = ~np.any([(one.codes >= 0).any(1) for one in found], axis=0)
        if bare.any():
            scores = ask.mask(self.popularity.expand(len(ask), -1)).masked_fill(~torch.from_numpy(bare)[:, None], REMOVED)
            codes, values = top_k(scores.contiguous(), min(self.file.fuse.k, scores.shape[1]), self._ties)
            found, weights = [*found, Found("popular items", codes.numpy(), values.numpy())], [*weights, 1.0]
        fused = fuse(found, weights, len(self.item_ids), self._ties.numpy(), self.file.fuse)
        own = len(self.sources)  # the popular items stand in for all sources; to a ranker they are candidates that none of them found
        return found, replace(fused, names=fused.names[:own], ranks=fused.ranks[:, :, :own], values=fused.values[:, :, :own]), personal

    @property
    def dials(self) -> Dials:
        """Where the dials of the file stand; none where the funnel has no such stage, or the stage no such setting."""
        slate = self.layout.slate
        return Dials(None if slate is None else slate.diversity, None if self.policy is None else self.policy.exploration)

    def _turned(self, dials: Dials) -> tuple[Layout, Policy | None]:
        """The last two stages as a request wants them. Raises SettingError where there is nothing to turn."""
        layout, policy = self.layout, self.policy
        if dials.diversity is not None:
            if layout.slate is None:
                raise SettingError(f'The funnel "{self.name}" has no slate to make more or less diverse: leave diversity out, or add arrange to its file.')
            layout = Layout(layout.slate.with_diversity(dials.diversity), layout.ruling, layout.vectors)
        if dials.explore is not None:
            if policy is None:
                raise SettingError(f'The funnel "{self.name}" leaves nothing to chance: leave explore out, or add explore to its file.')
            policy = policy.with_exploration(dials.explore)
        return layout, policy

    def run(
        self, ask: Ask, k: int, *, budget_ms: float | None = None, in_time: bool = False, explores: bool = True, dials: Dials = AS_THE_FILE_SAYS
    ) -> Trace:
        """All stages for a batch. With `in_time` the ranker has its budget (that of the file, or what `budget_ms` leaves), else all the time it takes."""
        if k < 1:
            raise SettingError(f"k is {k}: ask for at least 1 item.")
        layout, policy = self._turned(dials)
        clock = Clock()
        with torch.inference_mode(), threads_for(len(ask) * len(self.item_ids)):
            found, fused, personal = self.retrieve(ask)
            clock.lap("retrieve")
            ranked, scores, degraded = self._rank(ask, fused, clock, budget_ms, in_time)
            clock.lap("rank")
            # where the orders of ranker and retrieval are mixed, relevance follows the final order on the scale of the scores
            worth = -np.sort(-scores, axis=1)
            arranged = layout.arrange(ranked, worth, k)
            page, pinned = layout.rule(arranged, k, ask.histories.users.numpy(), None if ask.allowed is None else ask.allowed.numpy())
            clock.lap("arrange")
            chance = None
            if policy is not None and explores and self.file.explore is not None:
                page, chance = explore(policy, page, pinned, *self._drawable(ranked, worth), self.file.explore.depth, self._counts, self._rng)
                clock.lap("explore")
        return Trace(found, fused, ranked, scores, arranged, page, chance, pinned, personal, degraded, clock)

    def _drawable(self, ranked: Int64, scores: npt.NDArray[np.float64]) -> tuple[Int64, npt.NDArray[np.float64]]:
        """Candidates a policy may draw: what the rules exclude is not among them."""
        if self.layout.ruling is None or not ranked.shape[1]:
            return ranked, scores
        gone = self.layout.ruling.excluded[np.maximum(ranked, 0)] & (ranked >= 0)
        order = np.argsort(gone, axis=1, kind="stable")
        codes = np.take_along_axis(np.where(gone, -1, ranked), order, axis=1)
        return codes, np.take_along_axis(np.where(gone, -np.inf, scores), order, axis=1)

    def _rank(
        self, ask: Ask, fused: Fused, clock: Clock, budget_ms: float | None, in_time: bool
    ) -> tuple[Int64, npt.NDArray[np.float64], str | None]:
        if self.ranking is None:
            return fused.codes, fused.scores, None
        budget = None
        if in_time:
            whole = budget_ms if budget_ms is not None else self.file.budget_ms
            limits = [limit for limit in (self.ranking.budget_ms, None if whole is None else whole - clock.total) if limit is not None]
            budget = min(limits) if limits else None
        scores = self.ranking.in_time(ask.histories, fused, ask.now, budget)
        if scores is None:
            return fused.codes, fused.scores, "rank"
        order = self.ranking.order(fused, scores)
        return np.take_along_axis(fused.codes, order, axis=1), np.take_along_axis(scores, order, axis=1), None

    # answers

    def ask(
        self, users: Sequence[str] | None, histories: Sequence[Sequence[str]] | None, include_seen: bool = False, condition: str | None = None
    ) -> Ask:
        """Questions in outside ids as a batch. Raises SettingError where both or neither are given, DataError for a filter that leaves nothing."""
        questions = self.base._questions(users, histories)
        return Ask(questions, self._allowed(condition), None if include_seen or not self.file.filter.seen else questions)

    def _followed(self, user: str, history: Sequence[str], times: Sequence[int] | None) -> Sets:
        """One history: what is known of `user`, then `history` and its `times`, where they are known; it weighs 1 an event."""
        known, later = self.known.histories(self.user_ids.encode([user])), self.item_ids.encode(list(history))
        fresh = torch.from_numpy(later[later >= 0])
        when = None if times is None or known.times is None else torch.cat([known.times, torch.tensor(times, dtype=torch.int64)[torch.from_numpy(later >= 0)]])
        weights = None if known.weights is None else torch.cat([known.weights, torch.ones(len(fresh))])
        items = torch.cat([known.items, fresh])
        return Sets(known.users, torch.tensor([0, len(items)]), items, when, weights)

    def recommend(
        self,
        users: Sequence[str] | None = None,
        histories: Sequence[Sequence[str]] | None = None,
        k: int = 10,
        *,
        include_seen: bool = False,
        filter: str | None = None,
    ) -> pl.DataFrame:
        """The page of k for each of `users` (ids) or `histories` (lists of item ids, oldest first); columns and errors as Recommender.recommend.

        Nothing is cut short for lack of time here; `answer` has budgets.
        """
        asked = self.ask(users, histories, include_seen, filter)
        rows: list[dict[str, Any]] = []
        block = block_for(len(self.item_ids))
        for start in range(0, len(asked), block):
            stop = min(start + block, len(asked))
            seen = None if asked.seen is None else asked.seen.slice(start, stop)
            part = Ask(asked.histories.slice(start, stop), asked.allowed, seen)
            for at, answer in enumerate(self._rows(self.run(part, k), range(stop - start))):
                told = {"query": start + at, "user": None if users is None else users[start + at], "fallback": answer["fallback"], "why": None}
                rows += [{**row, **told} for row in answer["items"]]
        schema: dict[str, Any] = {"query": pl.Int64, "user": pl.String, "item": pl.String, "rank": pl.Int32, "score": pl.Float32}
        schema |= {"sources": SOURCES, "why": pl.String, "fallback": pl.String}
        return pl.DataFrame(rows, schema=schema)

    def _rows(self, trace: Trace, requests: Iterable[int], *, explain: bool = False) -> list[dict[str, Any]]:
        """{fallback, items} of each request."""
        answers = []
        names = trace.fused.names
        for b in requests:
            candidates = {code: place for place, code in enumerate(trace.fused.codes[b].tolist()) if code >= 0}
            worth = dict(zip(trace.ranked[b].tolist(), trace.scores[b].tolist(), strict=True))
            items = []
            for rank, code in enumerate(trace.page[b].tolist(), start=1):
                if code < 0:
                    break
                place = candidates.get(code)
                sources = [] if place is None else [
                    {"name": name, "rank": int(r), "score": float(v)}
                    for name, r, v in zip(names, trace.fused.ranks[b, place].tolist(), trace.fused.values[b, place].tolist(), strict=True) if r
                ]  # fmt: skip
                if trace.pinned[b, rank - 1]:
                    sources = [{"name": "pin", "rank": rank, "score": 0.0}, *sources]
                if not sources:
                    sources = [{"name": "popular items", "rank": rank, "score": float(worth.get(code, 0.0))}]
                row = {"item": self.item_ids.ids[code], "rank": rank, "score": float(worth.get(code, 0.0)), "sources": sources, "why": None}
                if trace.chance is not None:
                    row["propensity"] = float(trace.chance[b, rank - 1])
                if explain:
                    row["why"] = {"stages": {stage: _rank_of(order[b], code) for stage, order in trace.position.items()}}
                items.append(row)
            answers.append({"fallback": None if trace.personal[b] else "popular", "items": items})
        return answers

    def answer(
        self,
        user: str | None,
        history: Sequence[str] | None,
        k: int = 10,
        include_seen: bool = False,
        filter: str | None = None,
        *,
        explain: bool = False,
        budget_ms: float | None = None,
        diversity: float | None = None,
        explore: float | None = None,
        times: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """One question, plain Python out: the service's path. With both `user` and `history`, the history is what happened after that which is known, at
        `times` in microseconds, where that is known.

        -> {user, fallback, degraded, milliseconds: {stage: ms}, items: [{item, rank, score, sources, why, propensity where a policy explores}]}; `explain`
        puts the rank of an item at each stage, and the items of the history that carried it, into `why`, and what each stage did into `trace`.
        `diversity` and `explore`, 0 to 1, stand in for what the file says of its slate and its policy. Raises as `recommend`, and SettingError where the
        funnel has no such stage.
        """
        if user is not None and history is not None:
            questions = self._followed(user, history, times)
            asked = Ask(questions, self._allowed(filter), None if include_seen or not self.file.filter.seen else questions)
        else:
            asked = self.ask(None if user is None else [user], None if history is None else [history], include_seen, filter)
        trace = self.run(asked, k, budget_ms=budget_ms, in_time=True, dials=Dials(diversity, explore))
        (found,) = self._rows(trace, [0], explain=explain)
        answer = {"user": user, "fallback": found["fallback"], "degraded": trace.degraded, "milliseconds": dict(trace.clock.rounded()), "items": found["items"]}
        if explain:
            codes = torch.from_numpy(trace.page[0, : len(found["items"])])
            models = [(source.name, one.model) for source in self.sources if (one := getattr(source, "recommender", None)) is not None]
            if self.ranking is not None and trace.degraded is None and self.ranking.knows >= len(self.item_ids):
                models = [(self.ranking.name, self.ranking.model), *models]
            with torch.inference_mode():
                carried(found["items"], codes, asked.histories, self.item_ids.ids, models)
            answer["trace"] = told(self, asked, trace, k)
        return answer

    def similar(self, items: Sequence[str], k: int = 10, *, filter: str | None = None) -> pl.DataFrame:
        """The k items most similar to each of `items`, by the first source that knows their likeness. Raises as Recommender.similar."""
        found = self._alike()
        if not found:
            raise SettingError(f'No source of the funnel "{self.name}" has a similarity between items: add one such as item-knn or ease.')
        known = next((one for one in found if (one.item_ids.encode(list(items)) >= 0).all()), found[0])
        return known.similar(items, k, filter=filter)

    def _alike(self) -> list[Recommender]:
        """The systems of sources that know likeness between items."""
        inner = [source.source if isinstance(source, Elder) else source for source in self.sources]
        return [one for source in inner if (one := recommender_of(source)) is not None and one.model.can.similar]

    @property
    def content(self) -> dict[str, int]:
        """Names and widths of the vectors by which `with_items` takes items in; none where every source knows items from training alone."""
        return content_of(self.sources)

    def with_items(self, items: pl.DataFrame, vectors: Mapping[str, npt.NDArray[np.floating]]) -> Funnel:
        """A funnel that finds and ranks further items by their content, without training: see `vitrail.funnel.newcomers.with_items`."""
        return with_items(self, items, vectors)


def _rank_of(order: Int64, code: int) -> int | None:
    place = np.flatnonzero(order == code)
    return int(place[0]) + 1 if len(place) else None
