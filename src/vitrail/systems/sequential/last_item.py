"""Last item: what people took next after the newest item. First-order Markov counts, or with a window the sequential rules
of Ludewig and Jannach (User Modeling and User-Adapted Interaction 2018, arXiv:1803.09587, weight 1 / distance; from memory), or
the newest item's nearest neighbours by cosine. Items that never followed come last, by popularity. A baseline without a
card of its own; see docs/cards/last_item.md. Numbers: recipes/last-item.*.yaml."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from vitrail.blocks.neighbours import gram_top_k, weigh
from vitrail.config import PositiveInt, Settings
from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, Given, Sizes, system
from vitrail.systems.skeletons import Table


def transitions(log: Log, window: int) -> sparse.csr_array:
    """(N, N) CSR: S[i, j] sums 1 / d over every event of j that came d places after an event of i, d up to `window`."""
    users, items = log.users, np.asarray(log.items, dtype=np.int64)
    total = sparse.csr_array((log.n_items, log.n_items))
    for d in range(1, min(window, int(log.lengths.max(initial=0)) - 1) + 1):
        same = users[d:] == users[:-d]
        pairs = (items[:-d][same], items[d:][same])
        total = total + sparse.csr_array((np.full(len(pairs[0]), 1 / d), pairs), shape=total.shape)
    return total


@system("last-item", stage="retrieve", family="sequential", paper="1803.09587", year=2018, status="measured")
class LastItem(Table):
    """The items that most often followed the newest item, then popular ones."""

    needs = Needs(history=("item",), order="sequence", given=("item_counts",))
    can: ClassVar[Can] = Can(new_users=True)
    space: ClassVar[dict[str, Any]] = {"by": ["transitions", "cosine"], "window": [1, 2, 5, 10, 20]}

    class Config(Settings):
        """Settings of last-item."""

        by: Literal["transitions", "cosine"] = "transitions"
        """What makes an item follow: events after it, or the people who have both, order ignored."""
        window: PositiveInt = 10
        """Events after an item that count, each 1 / its distance; 1: first-order Markov counts (by transitions)."""
        k: PositiveInt = 100
        """Nearest neighbours kept of each item (by cosine)."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.item_counts is not None
        # below every count of 1 / window, so that it orders only what the newest item leaves equal
        counts = given.item_counts.float()
        self.register_buffer("rest", counts / (counts.max() + 1) if len(counts) else counts, persistent=False)

    def fit(self, interactions: Log) -> sparse.csr_array:
        config: Any = self.config
        if config.by == "transitions":
            return transitions(interactions, config.window)
        return sparse.csr_array(gram_top_k(weigh(interactions.matrix(), "cosine"), config.k).T)  # row = the newest item

    def prepare(self) -> None:
        super().prepare()
        self._least = float(self._sparse.data.min()) if self._sparse.nnz else 1.0

    def scores(self, histories: Sets) -> Tensor:
        """From the newest event alone; a history without events gives a meaningless row."""
        newest = histories.last(1).items[:, 0].cpu().numpy()
        after = torch.from_numpy(np.asarray(self._sparse[newest].todense(), dtype=np.float32))
        return after + self._least * self.rest.cpu()  # type: ignore[operator]

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        return 36 * events * (config.window if config.by == "transitions" else 1)
