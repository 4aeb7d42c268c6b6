"""LightGCN. He et al., SIGIR 2020, arXiv:2002.02126. Every training event once an epoch (as RecBole and MMRec do; the
authors' code draws users with replacement). Users never seen in training are an extension of ours: their vector is one
propagation of their history, layer 0 left at zero. Numbers: recipes/lightgcn.*.yaml."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vitrail.blocks.embed import Init, bag, rows, table
from vitrail.blocks.graph import bipartite_adjacency, layers, mean_of_layers
from vitrail.blocks.loss import l2_of_batch
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveFloat
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, Given, Sizes, system
from vitrail.systems.skeletons import Graph, zero_absent


@system("lightgcn", stage="retrieve", family="collaborative", paper="2002.02126", year=2020)
class LightGCN(Graph):
    """User and item vectors smoothed over the interaction graph, without weights or non-linearities."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True)

    class Config(Graph.Config):
        """Settings of lightgcn."""

        layers: NonNegativeInt = 3
        """Propagations; 0 is BPR-MF."""
        l2: NonNegativeFloat = 1e-4
        """Weight of the regulariser on layer-0 vectors."""
        init: Init = "normal"
        """How layer-0 vectors start."""
        init_scale: PositiveFloat = 0.1
        """Standard deviation of a normal start."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        self.users = table(sizes.users, config.dim, config.init, config.init_scale)
        self.items = table(sizes.items, config.dim, config.init, config.init_scale)
        zero_absent(self.users, given.indptr)
        self.register_buffer("adjacency", bipartite_adjacency(given.indptr, given.items, sizes.items), persistent=False)
        counts = torch.bincount(given.items, minlength=sizes.items)
        self.register_buffer("degrees", counts.clamp(min=1).float(), persistent=False)

    def _layers(self) -> list[Tensor]:
        return layers(self.adjacency, torch.cat([self.users, self.items]), self.config.layers)  # type: ignore[arg-type]

    def nodes(self) -> tuple[Tensor, Tensor]:
        mean = mean_of_layers(self.adjacency, torch.cat([self.users, self.items]), self.config.layers)  # type: ignore[arg-type]
        return mean[: len(self.users)], mean[len(self.users) :]

    def regulariser(self, batch: Pairs) -> Tensor | float:
        if not self.config.l2 or not self.config.layers:
            return 0.0
        items = rows(self.items, torch.stack([batch.items, batch.negatives[..., 0].expand_as(batch.items)]))
        return self.config.l2 * l2_of_batch(rows(self.users, batch.users), items[0], items[1])

    def penalty(self, u: Tensor, positive: Tensor, negative: Tensor) -> Tensor | float:
        return 0.0 if self.config.layers else self.config.l2 * l2_of_batch(u, positive, negative)

    def prepare(self) -> None:
        super().prepare()
        # what an unseen user with history h gets: sum over layers 0..L-1 of item vectors, each by its own degree
        below = self._layers()[:-1] or [torch.cat([self.users, self.items])]
        scale = (self.degrees.sqrt() * (self.config.layers + 1))[:, None]  # type: ignore[union-attr,operator]
        self._folding = torch.stack(below).sum(0)[len(self.users) :] / scale

    def fold_in(self, histories: Sets) -> Tensor:
        return bag(self._folding, histories.items, histories.indptr) / histories.lengths.clamp(min=1).sqrt()[:, None]
