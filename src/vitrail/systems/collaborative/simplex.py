"""SimpleX and, with `gamma=1`, MF-CCL. Mao et al., CIKM 2021, arXiv:2109.12613. gamma weighs the user's own vector, as in RecBole
(the authors' side of it is in a package that was not read). Attention masks by the place of an item, not by its vector being 0,
and is a stable softmax. The item that is asked for stays in its user's history in training, as in RecBole. People never seen
have their history alone. `shared_negatives` draws the many negatives once a batch. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.drop import dropout
from vitrail.blocks.loss import l2_of_batch
from vitrail.config import NonNegativeFloat, PositiveInt, Rate, Share
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, id_tables
from vitrail.systems.sampling import Loss
from vitrail.systems.skeletons import TwoTower


@system("simplex", stage="retrieve", family="collaborative", paper="2109.12613", year=2021, status="works")
class SimpleX(TwoTower, IdTables):
    """A user vector and the history's, fused, scored by cosine, with many negatives in the cosine contrastive loss."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True)
    space: ClassVar[dict[str, Any]] = {
        "gamma": {"low": 0.0, "high": 1.0},
        "margin": {"low": 0.0, "high": 0.95},
        "negative_weight": {"low": 1.0, "high": 500.0, "log": True},
    }
    toy: ClassVar[dict[str, Any]] = {"negatives": 16, "epochs": 30, "negative_weight": 5.0, "margin": 0.4}

    class Config(TwoTower.Config, IdSettings):
        """Settings of simplex."""

        loss: Loss = "ccl"
        """What the training minimises."""
        cosine: bool = True
        """Score by cosine instead of the dot product; ccl is meant for it."""
        negatives: PositiveInt = 1000
        """Sampled items K beside each positive."""
        shared_negatives: bool = True
        """Draw the K negatives once for the whole batch: far cheaper for a large K, and a user's own items may be among them."""
        batch: PositiveInt = 512
        """Pairs a step."""
        aggregate: Literal["mean", "user_attention", "self_attention"] = "mean"
        """How the history becomes one vector."""
        gamma: Share = 0.5
        """Weight of the user's own vector; 1: no history (MF-CCL)."""
        history: PositiveInt = 50
        """Newest items of the history that are read."""
        dropout: Rate = 0.1
        """On the fused user vector."""
        l2: NonNegativeFloat = 1e-6
        """Weight of the regulariser on the batch's vectors."""

    indptr: Tensor
    seen: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        id_tables(self, config, sizes, given)
        self.register_buffer("indptr", given.indptr, persistent=False)
        self.register_buffer("seen", given.items, persistent=False)
        if config.gamma < 1:
            self.out = nn.Linear(config.dim, config.dim, bias=False)
            if config.aggregate != "mean":
                self.key = nn.Linear(config.dim, config.dim)
            if config.aggregate == "self_attention":
                self.query = nn.Parameter(torch.randn(config.dim) * config.dim**-0.5)

    def pool(self, items: Tensor, mask: Tensor, own: Tensor) -> Tensor:
        """Histories items (B, T), mask (B, T), the users' own vectors (B, D) -> (B, D); 0 for an empty history."""
        vectors = F.embedding(items, self.items)
        if self.config.aggregate == "mean":
            weights = mask / mask.sum(1, keepdim=True).clamp(min=1)
        else:
            keys = torch.tanh(self.key(vectors))
            logits = keys @ self.query if self.config.aggregate == "self_attention" else (keys @ own[:, :, None])[:, :, 0]
            weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(1) * mask
        return (weights[:, None] @ vectors)[:, 0]

    def fuse(self, own: Tensor, items: Tensor, mask: Tensor) -> Tensor:
        """(B, D) vectors of users from their own vectors (B, D) and their histories (B, T)."""
        gamma = self.config.gamma
        fused = own if gamma == 1 else gamma * own + (1 - gamma) * self.out(self.pool(items, mask, own))
        return dropout(fused, self.config.dropout) if self.training else fused

    def user(self, users: Tensor) -> Tensor:
        own = F.embedding(users, self.users)
        stops = self.indptr[users + 1]
        lengths = (stops - self.indptr[users]).clamp(max=self.config.history)
        steps = torch.arange(max(int(lengths.max()), 1), device=users.device)
        mask = steps < lengths[:, None]
        where = ((stops - lengths)[:, None] + steps) * mask
        return self.fuse(own, self.seen[where] * mask, mask)

    def item(self, items: Tensor | None = None) -> Tensor:
        return self.items if items is None else F.embedding(items, self.items)

    def regulariser(self, batch: Pairs) -> Tensor | float:
        return self.config.l2 * l2_of_batch(F.embedding(batch.users, self.users), self.item(batch.items), self.item(batch.negatives[..., 0]))

    def tables(self) -> tuple[Tensor, Tensor]:
        blocks = torch.arange(self.sizes.users, device=self._device()).split(4096)
        return (torch.cat([self.user(users) for users in blocks]) if blocks else self.users), self.items

    def fold_in(self, histories: Sets) -> Tensor:
        newest = histories.last(self.config.history)
        return self.fuse(torch.zeros(len(histories), self.config.dim, device=newest.items.device), newest.items, newest.mask)

    def answerable(self, histories: Sets) -> Tensor:
        known = super().answerable(histories)
        users = histories.users.to(known.device)
        return known & (users >= 0) & self._seen[users.clamp(min=0)] if self.config.gamma == 1 else known
