"""The skeleton PairScorer: scores of a user and an item where no inner product fits, trained in batches of pairs."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.config import PositiveInt
from vitrail.data.batchers import Batcher, PairBatcher
from vitrail.data.batches import Pairs, Sets
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.systems.base import Given, Sizes, System
from vitrail.systems.sampling import LossSettings, from_samples, log_chance

CELLS = 1 << 16
"""Pairs that are scored at once when the system answers: what a layer makes of them stays in the cache of a processor."""


class PairScorer(System):
    """Known users are asked against every item, pair by pair: no index, and far dearer than an inner product. At its best behind a source of candidates."""

    needs: ClassVar[Needs] = Needs(given=("interactions",))

    class Config(LossSettings):
        """Settings of pair scorers."""

        dim: PositiveInt = 64
        """Width D of user and item vectors."""

    def __init__(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().__init__(config, sizes, given)
        assert given.indptr is not None
        self.register_buffer("log_q", log_chance(config, given, sizes.items), persistent=False)
        self.register_buffer("seen", given.indptr.diff() > 0, persistent=False)

    def pair_scores(self, users: Tensor, items: Tensor) -> Tensor:
        """Codes of users and of items, of shapes that broadcast, such as (B, 1) and (1, N) -> scores of that shape, differentiable."""
        raise NotImplementedError

    def item(self) -> Tensor:
        """(N, D) the vector of each item, for similarity between items."""
        raise NotImplementedError

    def batcher(self, log: Log, seed: int, rank: int, world: int) -> Batcher:
        return PairBatcher(log, self.config.batch, self.config.negatives, seed, rank, world, power=self.config.power)

    def loss(self, batch: Pairs) -> Tensor:
        scores = self.pair_scores(batch.users[:, None], torch.cat([batch.items[:, None], batch.negatives], 1))
        log_q: Tensor | None = self.log_q  # type: ignore[assignment]
        return from_samples(self.config, scores[:, 0], scores[:, 1:], batch.items, batch.negatives, self.sizes.items, log_q)

    def prepare(self) -> None:
        self._unit = F.normalize(self.item().detach().float(), dim=1)

    def answerable(self, histories: Sets) -> Tensor:
        seen = self.get_buffer("seen")
        users = histories.users.to(seen.device)
        return (users >= 0) & seen[users.clamp(min=0)]

    def scores(self, histories: Sets) -> Tensor:
        users = histories.users.clamp(min=0).to(self._unit.device)[:, None]
        found = torch.empty(len(users), self.sizes.items, device=users.device)
        step = max(1, CELLS // max(len(users), 1))
        for items in torch.arange(self.sizes.items, device=users.device)[None].split(step, 1):
            found[:, items[0]] = self.pair_scores(users, items).float()
        return found

    def similarity(self, items: Tensor) -> Tensor:
        return self._unit[items.to(self._unit.device)] @ self._unit.T

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        return 40 * (sizes.users + sizes.items) * config.dim + 64 * config.batch * (1 + config.negatives) * config.dim + 32 * events
