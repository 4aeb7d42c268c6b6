"""UltraGCN. Mao et al., CIKM 2021, arXiv:2110.15114. Written from a re-implementation and its settings (the authors' code was not
found); the paper's item weights are from memory. The loss is divided by the batch, penalty included, which Adam does not
notice. `shared_negatives` draws the many negatives once a batch, a user's own items among them as in the original; drawn for
each pair they are outside them. Degree 0 has weight 0. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from vitrail.blocks.embed import Init
from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt
from vitrail.data.batchers import Batcher
from vitrail.data.batches import Pairs
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, id_tables
from vitrail.systems.sampling import Loss, only_loss
from vitrail.systems.skeletons import TwoTower

Form = Literal["code", "paper"]


def item_weights(X: sparse.csr_array, k: int, form: Form, block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """X (U, N) of 0 and 1 -> the k items that weigh most beside each item, ids (N, K) int64 and weights (N, K) float32; an
    item with fewer has weight 0 at the rest. G = X^T X, g its row sums:

    `code`: G_ij sqrt(g_i + 1) / (g_i sqrt(g_j + 1)), the item itself among its neighbours; `paper`: G_ij / (g_i - G_ii)
    sqrt(g_i / g_j), without itself.
    """
    n = X.shape[1]
    T, g = sparse.csr_array(X.T), X.T @ X.sum(1)
    ids, weights = np.zeros((n, k), dtype=np.int64), np.zeros((n, k), dtype=np.float32)
    for start in range(0, n, block):
        G = sparse.coo_array(T[start : start + block] @ X)
        i, j, both = G.row + start, G.col, G.data
        if form == "code":
            omega = both * np.sqrt(g[i] + 1) / (g[i] * np.sqrt(g[j] + 1))
        else:
            i, j, both = i[i != j], j[i != j], both[i != j]
            omega = both / (g[i] - np.diff(T.indptr)[i]) * np.sqrt(g[i] / g[j])
        order = np.lexsort([j, -omega, i])
        i, j, omega = i[order], j[order], omega[order]
        place = np.arange(len(i)) - np.searchsorted(i, i)
        kept = place < k
        ids[i[kept], place[kept]], weights[i[kept], place[kept]] = j[kept], omega[kept]
    return ids, weights


@system("ultragcn", stage="retrieve", family="collaborative", paper="2110.15114", year=2021, status="works")
class UltraGCN(TwoTower, IdTables):
    """Matrix factorisation whose loss weighs pairs by degree and pulls users to the neighbours of their items."""

    needs = Needs(given=("interactions",))
    space: ClassVar[dict[str, Any]] = {
        "items_weight": {"low": 1e-4, "high": 10.0, "log": True},
        "negatives_weight": {"low": 1.0, "high": 500.0, "log": True},
        "neighbours": None,
    }
    toy: ClassVar[dict[str, Any]] = {"negatives": 16, "negatives_weight": 5.0}

    class Config(TwoTower.Config, IdSettings):
        """Settings of ultragcn."""

        loss: Loss = "bce"
        """What the training minimises; this system knows weighted bce alone."""
        negatives: PositiveInt = 800
        """Sampled items K beside each positive."""
        shared_negatives: bool = True
        """Draw the K negatives once for the whole batch: far cheaper for a large K, and a user's own items may be among them."""
        batch: PositiveInt = 1024
        """Pairs a step."""
        negatives_weight: NonNegativeFloat = 300.0
        """Weight of the mean over negatives."""
        w1: NonNegativeFloat = 1e-6
        """Constant weight of a positive pair."""
        w2: NonNegativeFloat = 1.0
        """Weight of a positive pair's degree factor."""
        w3: NonNegativeFloat = 1e-6
        """Constant weight of a negative pair."""
        w4: NonNegativeFloat = 1.0
        """Weight of a negative pair's degree factor."""
        items_weight: NonNegativeFloat = 1.0
        """lambda: weight of the pull to the neighbours of an item."""
        neighbours: PositiveInt = 10
        """Neighbours of each item."""
        omega: Form = "code"
        """How neighbours are weighed, as the authors' code or their paper has it."""
        l2: NonNegativeFloat = 1e-4
        """gamma: weight of half the squared norm of the whole tables, divided by the batch."""
        init: Init = "normal"
        """How vectors start."""
        init_scale: PositiveFloat = 1e-4
        """Standard deviation of a normal start."""

    beta_users: Tensor
    beta_items: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        only_loss("ultragcn", config, "bce")
        id_tables(self, config, sizes, given)
        X = Log(given.indptr.numpy(), given.items.numpy().astype(np.int32), sizes.items).matrix()
        of_users, of_items = torch.from_numpy(np.diff(X.indptr)).float(), torch.from_numpy(X.sum(0)).float()
        self.register_buffer("beta_users", torch.where(of_users > 0, (of_users + 1).sqrt() / of_users.clamp(min=1), 0), persistent=False)
        self.register_buffer("beta_items", torch.where(of_items > 0, (of_items + 1).rsqrt(), 0), persistent=False)

    def batcher(self, log: Log, seed: int, rank: int, world: int) -> Batcher:
        # only training needs the item graph: an artifact that answers never builds it
        ids, weights = item_weights(log.matrix(), self.config.neighbours, self.config.omega)
        self._near, self._omega = torch.from_numpy(ids).to(self._device()), torch.from_numpy(weights).to(self._device())
        return super().batcher(log, seed, rank, world)

    def user(self, users: Tensor) -> Tensor:
        return F.embedding(users, self.users)

    def item(self, items: Tensor | None = None) -> Tensor:
        return self.items if items is None else F.embedding(items, self.items)

    def loss(self, batch: Pairs) -> Tensor:
        c, u, beta = self.config, self.finish(self.user(batch.users)), self.beta_users[batch.users]
        positive, negatives = (u * self.finish(self.item(batch.items))).sum(1), self.finish(self.item(batch.negatives))
        negative = u @ negatives.T if negatives.ndim == 2 else torch.einsum("bd,bkd->bk", u, negatives)
        main = (c.w1 + c.w2 * beta * self.beta_items[batch.items]) * F.softplus(-positive)
        main = main + c.negatives_weight * ((c.w3 + c.w4 * beta[:, None] * self.beta_items[batch.negatives]) * F.softplus(negative)).mean(1)
        near = torch.einsum("bd,bkd->bk", u, self.finish(self.item(self._near[batch.items])))
        pull = (self._omega[batch.items] * F.softplus(-near)).sum(1)
        norms = self.users.square().sum() + self.items.square().sum()
        return (main + c.items_weight * pull).mean() + c.l2 / 2 * norms / len(batch.users)
