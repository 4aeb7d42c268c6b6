"""A fitted system that answers: outside ids in, a table of outside ids out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from copy import copy
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from vitrail.data.batches import Sets
from vitrail.data.conditions import compile_condition
from vitrail.data.log import Log
from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import DataError, SettingError
from vitrail.evaluation.ranking import tie_ranks, top_k
from vitrail.funnel.artifact import load_artifact, save_artifact
from vitrail.funnel.bulk import AnswersEverybody
from vitrail.funnel.catalogue import with_changes
from vitrail.funnel.clock import Clock
from vitrail.funnel.why import carried
from vitrail.systems.base import Given, System

if TYPE_CHECKING:
    from vitrail.funnel.through_index import ThroughIndex
    from vitrail.index.base import Index

SOURCES = pl.List(pl.Struct({"name": pl.String, "rank": pl.Int32, "score": pl.Float32}))
BLOCK = 64 * 2**20
"""Bytes of scores held at once."""
SPREAD = 50
"""Candidates, at least, from which a diverse page is chosen."""
SMALL = 1 << 21
"""Scores under which one thread answers: waking others costs more than it brings, on a busy machine many times more."""


@contextmanager
def threads_for(scores: int) -> Iterator[None]:
    """One thread for a small question, all of them for a large one."""
    before = torch.get_num_threads()
    if scores >= SMALL or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def score_or_popular(model: System, popularity: Tensor, histories: Sets) -> tuple[Tensor, Tensor]:
    """(B, N) scores of a prepared `model`, popularity (N,) in the rows it cannot answer; and (B,) bool: it could."""
    own = model.answerable(histories)
    if not bool(own.any()):
        return popularity.expand(len(histories), -1), own
    scores = model.scores(histories)
    return (scores if bool(own.all()) else torch.where(own.to(scores.device)[:, None], scores, popularity.to(scores.device))), own


class Recommender(AnswersEverybody):
    """Answers `recommend` and `similar`. Known users are asked by id, anybody by a history of item ids."""

    def __init__(self, model: System, given: Given, known: Log, popularity: Tensor, items: pl.DataFrame, users: pl.DataFrame, info: dict[str, Any]) -> None:
        """`items` and `users` in code order; `known` what the system may know of each user; `popularity` (N,) train counts."""
        self.model, self.given, self.known, self.items, self.info = model.eval(), given, known, items, info
        self.popularity = popularity.float()
        self.item_ids, self.user_ids = Vocabulary(items["item"]), Vocabulary(users["user"])
        self._users = users
        self._catalogue = items
        self._withdrawn: Tensor | None = None
        self._ties = tie_ranks(self.item_ids.hashes, 0)
        self._allowed = lru_cache(maxsize=64)(self._allow)
        self._through: ThroughIndex | None = None
        with torch.no_grad():
            model.prepare()

    @property
    def name(self) -> str:
        """The system's name."""
        return self.model.card.name

    def __repr__(self) -> str:
        return f"Recommender({self.name!r}: {len(self.item_ids):,} items, {len(self.user_ids):,} users)"

    def with_index(self, index: Index) -> Self:
        """The same system, whose answers come through `index`, made from its item vectors (`vitrail.funnel.through_index.index_of`).

        Raises SettingError where the system's scores are no inner products, or the index was made from something else.
        """
        from vitrail.funnel.through_index import ThroughIndex

        through = copy(self)
        through._through = ThroughIndex(self, index)
        return through

    # scoring

    def score(self, histories: Sets) -> tuple[Tensor, Tensor]:
        """(B, N) scores, and (B,) bool: answered by the system itself; the other rows hold popularity."""
        return score_or_popular(self.model, self.popularity, histories)

    def _allow(self, condition: str) -> Tensor:
        keep = self.items.select(compile_condition(condition, self.items.columns).alias("keep"))["keep"].fill_null(False).to_numpy()
        if not keep.any():
            raise DataError(f"No item passes the filter `{condition}`: loosen it.")
        return torch.from_numpy(np.array(keep))

    def _best(self, scores: Tensor, k: int, condition: str | None, seen: Sets | None) -> tuple[Tensor, Tensor]:
        if k < 1:
            raise SettingError(f"k is {k}: ask for at least 1 item.")
        given = scores
        if condition:
            scores = scores.masked_fill(~self._allowed(condition), -torch.inf)
        if (withdrawn := self._withdrawn) is not None:
            scores = scores.masked_fill(withdrawn, -torch.inf)
        if seen is not None and len(seen.items):
            rows = torch.repeat_interleave(torch.arange(len(seen)), seen.lengths)
            scores = scores.clone() if scores is given else scores
            scores[rows, seen.items] = -torch.inf
        return top_k(scores, min(k, len(self.item_ids)), self._ties)

    def _find(self, questions: Sets, k: int, include_seen: bool, condition: str | None) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (B, K), values (B, K), and (B,) bool: answered by the system itself."""
        seen = None if include_seen else questions
        if self._through is not None:
            return self._through.find(questions, k, seen, condition)
        scores, own = self.score(questions)
        return (*self._best(scores, k, condition, seen), own)

    def _questions(self, users: Sequence[str] | None, histories: Sequence[Sequence[str]] | None) -> Sets:
        if (users is None) == (histories is None):
            raise SettingError("Ask for users or for histories, one of the two.")
        if users is not None:
            if isinstance(users, str):
                raise SettingError("users is a list of ids, not one id: write users=[...].")
            return self.known.histories(self.user_ids.encode(list(users)))
        assert histories is not None
        coded = [self.item_ids.encode(list(history)) for history in histories]
        coded = [codes[codes >= 0] for codes in coded]
        indptr = np.concatenate([[0], np.cumsum([len(codes) for codes in coded])]).astype(np.int64)
        flat = np.concatenate(coded) if coded else np.empty(0, dtype=np.int64)
        return Sets(torch.full((len(coded),), -1), torch.from_numpy(indptr), torch.from_numpy(flat))

    # answers

    @torch.inference_mode()
    def recommend(
        self,
        users: Sequence[str] | None = None,
        histories: Sequence[Sequence[str]] | None = None,
        k: int = 10,
        *,
        include_seen: bool = False,
        filter: str | None = None,
    ) -> pl.DataFrame:
        """The k best items for each of `users` (ids) or `histories` (lists of item ids, oldest first).

        One row an item: query (row of the question), user, item, rank (from 1), score, sources, why, fallback. Who cannot
        be answered by the system (unknown user, empty history) gets the popular items, with fallback "popular".
        Raises SettingError for a bad `k` or filter, DataError for a filter that leaves nothing.
        """
        questions = self._questions(users, histories)
        block = max(1, BLOCK // (4 * max(len(self.item_ids), 1)))
        tables = [self._answer(questions.slice(i, min(i + block, len(questions))), k, include_seen, filter, i) for i in range(0, len(questions), block)]
        table = pl.concat(tables) if tables else self._table(torch.empty(0, k, dtype=torch.int64), torch.empty(0, k), torch.empty(0, dtype=torch.bool), 0)
        asked = pl.DataFrame(
            {
                "query": pl.int_range(len(questions), eager=True),
                "user": pl.Series(users, dtype=pl.String) if users is not None else pl.Series([None] * len(questions), dtype=pl.String),
            }
        )
        return table.join(asked, on="query", how="left", maintain_order="left").select("query", "user", "item", "rank", "score", "sources", "why", "fallback")

    def _answer(self, questions: Sets, k: int, include_seen: bool, condition: str | None, offset: int) -> pl.DataFrame:
        with threads_for(len(questions) * len(self.item_ids)):
            codes, values, own = self._find(questions, k, include_seen, condition)
        return self._table(codes, values, own, offset)

    def _table(self, codes: Tensor, values: Tensor, own: Tensor, offset: int) -> pl.DataFrame:
        there = (codes >= 0).numpy()
        query, place = np.nonzero(there)
        frame = pl.DataFrame(
            {
                "query": query + offset,
                "item": self.item_ids.decode_series(codes.numpy()[there]),
                "rank": (place + 1).astype(np.int32),
                "score": values.numpy()[there],
                "own": own.numpy()[query],
            }
        )
        name = pl.when("own").then(pl.lit(self.name)).otherwise(pl.lit("popular"))
        source = pl.struct(name=name, rank=pl.col("rank"), score=pl.col("score"))
        return frame.select(
            "query",
            "item",
            "rank",
            "score",
            pl.concat_list(source).cast(SOURCES).alias("sources"),
            pl.lit(None, dtype=pl.String).alias("why"),
            pl.when("own").then(None).otherwise(pl.lit("popular")).cast(pl.String).alias("fallback"),
        )

    @torch.inference_mode()
    def answer(
        self,
        user: str | None,
        history: Sequence[str] | None,
        k: int = 10,
        include_seen: bool = False,
        filter: str | None = None,
        *,
        explain: bool = False,
        diversity: float | None = None,
    ) -> dict[str, Any]:
        """One question, plain Python out, without tables on the way: the service's path.

        With both `user` and `history`, the history is what happened after that which is known of the user. `explain` fills in `why` and `trace`.
        `diversity`, 0 to 1, lays the best candidates out by maximal marginal relevance; `sources` keep the rank without it.
        -> {user, fallback, items: [{item, rank, score, sources: [{name, rank, score}], why}]}; raises as `recommend`.
        """
        if user is None or history is None:
            questions = self._questions(None if user is None else [user], None if history is None else [history])
        else:
            questions = self._followed(user, history)
        clock = Clock()
        with threads_for(len(self.item_ids)):
            wide = k if diversity is None else max(SPREAD, 5 * k)
            codes, values, own = self._find(questions, wide, include_seen, filter)
            clock.lap("retrieve")
            before = {code: rank for rank, code in enumerate(codes[0].tolist(), start=1)}
            if diversity is not None:
                codes, values = self._spread(codes, values, k, diversity)
                clock.lap("arrange")
        itself = bool(own[0])
        name = self.name if itself else "popular"
        rows = []
        for rank, (code, value) in enumerate(zip(codes[0].tolist(), values[0].tolist(), strict=True), start=1):
            if code < 0:
                break
            source = {"name": name, "rank": before[code], "score": value}
            rows.append({"item": self.item_ids.ids[code], "rank": rank, "score": value, "sources": [source], "why": None})
        answer: dict[str, Any] = {"user": user, "fallback": None if itself else "popular", "items": rows}
        if explain:
            if itself:
                carried(rows, codes[0, : len(rows)], questions, self.item_ids.ids, [(self.name, self.model)])
            retrieved = sum(code >= 0 for code in before)
            stages = [{"stage": f"retrieve {name}", "count": retrieved}, *([] if diversity is None else [{"stage": "arrange mmr", "count": len(rows)}])]
            answer["trace"] = {"known": len(questions.items), "catalogue": len(self.item_ids), "milliseconds": dict(clock.rounded()), "stages": stages}
        return answer

    def _followed(self, user: str, history: Sequence[str]) -> Sets:
        """One history: what is known of `user`, then `history`; its times are not known, and it weighs 1 an event."""
        known, later = self.known.histories(self.user_ids.encode([user])), self.item_ids.encode(list(history))
        fresh = torch.from_numpy(later[later >= 0])
        items = torch.cat([known.items, fresh])
        weights = None if known.weights is None else torch.cat([known.weights, torch.ones(len(fresh))])
        return Sets(known.users, torch.tensor([0, len(items)]), items, None, weights)

    @cached_property
    def _vectors(self) -> npt.NDArray[np.float32]:
        """(N, D) vectors by which a page is made diverse: categories, or who has an item, as diversity is measured."""
        from vitrail.evaluation.evaluator import diversity_vectors

        return diversity_vectors(self.known, self._catalogue, self.info.get("columns") or {})

    def _spread(self, codes: Tensor, values: Tensor, k: int, diversity: float) -> tuple[Tensor, Tensor]:
        """The k of (1, K) candidates that maximal marginal relevance puts on a page."""
        from vitrail.systems.slate import Candidates
        from vitrail.systems.slates.mmr import MMR

        kept = values[0].isfinite() & (codes[0] >= 0)
        codes, values = codes[:, kept], values[:, kept]
        candidates = Candidates(values.double().numpy(), self._vectors[codes.numpy()])
        places = torch.from_numpy(MMR().with_diversity(diversity).arrange(candidates, min(k, codes.shape[1])))
        return codes.gather(1, places), values.gather(1, places)

    def known_events(self, user: str) -> set[tuple[str, int]]:
        """(item, microseconds since 1970) of the events of `user` that the artifact holds; empty where the data have no times."""
        known = self.known.histories(self.user_ids.encode([user]))
        if known.times is None:
            return set()
        return set(zip(self.item_ids.decode_series(known.items.numpy()).to_list(), known.times.tolist(), strict=True))

    def overlay(self, changes: Mapping[str, Mapping[str, Any]], withdrawn: Set[str]) -> None:
        """From now on attributes are those of the artifact with `changes` (item -> attribute -> value), and `withdrawn` items are never answered.

        Each call replaces the last; items and attributes that the artifact lacks are passed over.
        """
        codes = {item: self.item_ids.code(item) for item in changes}
        self.items = with_changes(self._catalogue, {item: values for item, values in changes.items() if codes[item] >= 0}, codes)
        gone = [code for code in map(self.item_ids.code, withdrawn) if code >= 0]
        mask = torch.zeros(len(self.item_ids), dtype=torch.bool)
        mask[gone] = True
        self._withdrawn = mask if gone else None
        self._allowed = lru_cache(maxsize=64)(self._allow)

    @torch.inference_mode()
    def similar(self, items: Sequence[str], k: int = 10, *, filter: str | None = None) -> pl.DataFrame:
        """The k items most similar to each of `items`: query (the item asked), item, rank, score (the system's own scale).

        Raises DataError for an item that is not in the catalogue, SettingError where the system has no similarity.
        """
        codes = self.item_ids.encode(list(items))
        missing = [item for item, code in zip(items, codes, strict=True) if code < 0]
        if missing:
            raise DataError(f'There is no item "{missing[0]}" in the catalogue of {len(self.item_ids):,} items.')
        asked = torch.from_numpy(codes)
        scores = self.model.similarity(asked).cpu()
        itself = Sets(torch.full_like(asked, -1), torch.arange(len(asked) + 1), asked)
        best, values = self._best(scores, k, filter, itself)
        table = self._table(best, values, torch.ones(len(asked), dtype=torch.bool), 0)
        return table.select(pl.Series("query", list(items), dtype=pl.String).gather(table["query"]), "item", "rank", "score")

    @property
    def content(self) -> dict[str, int]:
        """Names and widths of the vectors by which `with_items` takes items in; none where the system knows items from training alone."""
        return dict(self.model.sizes.vectors) if self.model.can.cold_items else {}

    def with_items(self, items: pl.DataFrame, vectors: Mapping[str, npt.NDArray[np.floating]]) -> Recommender:
        """A recommender that knows further items by their content, without training: see `vitrail.funnel.grow.with_items`."""
        from vitrail.funnel.grow import with_items

        return with_items(self, items, vectors)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the artifact folder, atomically. Raises DataError where `path` is taken."""
        info = {key: value for key, value in self.info.items() if key not in ("format", "files", "versions", "memory_bytes", "sizes")}
        save_artifact(path, self.model, self.given, self.known, self.popularity, self._catalogue, self._users, info, overwrite=overwrite)


def load(path: str | Path, *, dim: int | None = None) -> Recommender:
    """Open a run or artifact folder; no data set is needed. `dim`: answer by so many numbers of each vector, where the system was trained for it.

    Raises ArtifactError where it is damaged, newer or absent, SettingError where its vectors cannot be cut to `dim`.
    """
    parts = load_artifact(path)
    if dim is not None:
        parts[0].truncate(dim)
    return Recommender(*parts)
