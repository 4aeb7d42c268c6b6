"""The skeleton Autoencoder: a history, read as a set, is mapped to scores of all items; a history is a user."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.config import PositiveInt
from vitrail.data.batchers import Batcher, SetBatcher
from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.systems.base import Can, Sizes, System, TrainSettings


def distinct(histories: Sets, n_items: int) -> Sets:
    """The same histories with every item once, in code order."""
    rows = torch.repeat_interleave(torch.arange(len(histories), device=histories.items.device), histories.lengths)
    keys = torch.unique(rows * n_items + histories.items)
    counts = torch.bincount(keys // max(n_items, 1), minlength=len(histories))
    return Sets(histories.users, F.pad(counts.cumsum(0), (1, 0)), keys % max(n_items, 1))


def multinomial(logits: Tensor, sets: Sets) -> Tensor:
    """(B, N) logits, the sets x that were drawn -> scalar: the mean over rows of -sum_i x_i log softmax(logits)_i."""
    rows = torch.repeat_interleave(torch.arange(len(sets), device=logits.device), sets.lengths)
    return (logits.logsumexp(1) @ sets.lengths.to(logits.dtype) - logits[rows, sets.items].sum()) / len(sets)


class Autoencoder(System):
    """Rebuilds the set of a person's items; what comes out beyond it is the answer."""

    can: ClassVar[Can] = Can(new_users=True)

    class Config(TrainSettings):
        """Settings of autoencoders."""

        batch: PositiveInt = 500
        """Users a step."""

    def encode(self, histories: Sets) -> Tensor:
        """B histories of distinct items -> (B, D), without noise."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """(B, D) -> (B, N) scores of all items."""
        raise NotImplementedError

    def item(self) -> Tensor:
        """(N, D) the vector of each item nearest to the scores, for similarity between items."""
        raise NotImplementedError

    def batcher(self, log: Log, seed: int, rank: int, world: int) -> Batcher:
        return SetBatcher(log, self.config.batch, seed, rank, world)

    def prepare(self) -> None:
        self._items = F.normalize(self.item().detach().float(), dim=1)

    def scores(self, histories: Sets) -> Tensor:
        return self.decode(self.encode(distinct(histories.to(self._items.device), self.sizes.items))).float()

    def similarity(self, items: Tensor) -> Tensor:
        return self._items[items.to(self._items.device)] @ self._items.T

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        return 4 * sizes.items * config.batch * 3 + 24 * events
