"""LightGCN. He et al., SIGIR 2020, arXiv:2002.02126. Every training event once an epoch (as RecBole and MMRec do; the
authors' code draws users with replacement). Users never seen in training are an extension of ours: their vector is one
propagation of their history, layer 0 left at zero. `edge_drop` leaves out edges, in both directions at once, where the authors' code,
off by default too, draws each direction. Numbers: recipes/lightgcn.*.yaml."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from vitrail.blocks.edges import Edges
from vitrail.blocks.embed import Init
from vitrail.blocks.graph import layers, mean_of_tables
from vitrail.blocks.loss import l2_of_rows
from vitrail.config import NonNegativeFloat, NonNegativeInt, Rate
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, fold, folding, id_graph, id_tables
from vitrail.systems.skeletons import Graph


@system("lightgcn", stage="retrieve", family="collaborative", paper="2002.02126", year=2020, status="measured")
class LightGCN(Graph, IdTables):
    """User and item vectors smoothed over the interaction graph, without weights or non-linearities."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True)

    class Config(Graph.Config, IdSettings):
        """Settings of lightgcn."""

        layers: NonNegativeInt = 3
        """Propagations; 0 is BPR-MF."""
        l2: NonNegativeFloat = 1e-4
        """Weight of the regulariser on layer-0 vectors."""
        init: Init = "normal"
        """How layer-0 vectors start."""
        readout: Literal["mean", "sum"] = "mean"
        """How layers 0 to L come together."""
        edge_drop: Rate = 0.0
        """Share of edges left out of each step's graph; the others count for them."""

    adjacency: Tensor
    degrees: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        id_tables(self, config, sizes, given)
        id_graph(self, sizes, given)
        if config.edge_drop:
            assert given.indptr is not None and given.items is not None
            self.edges = Edges(given.indptr, given.items, sizes.items)

    def _layers(self) -> list[Tensor]:
        return layers(self.adjacency, torch.cat([self.users, self.items]), self.config.layers)

    def _thinned(self) -> Tensor:
        """The mean of layers over a graph of the edges that this step keeps (U + N, D)."""
        edges, drop, x = self.edges, self.config.edge_drop, torch.cat([self.users, self.items])
        scale = edges.degrees.clamp(min=1).float().rsqrt()
        kept = torch.rand(len(edges.users), device=x.device).ge_(drop).div_(1 - drop) * scale[edges.users] * scale[edges.items]
        total = x
        for _ in range(self.config.layers):
            total = edges.spread(kept, total) + x
        return total / (self.config.layers + 1)

    def nodes(self) -> tuple[Tensor, Tensor]:
        if self.training and self.config.edge_drop:
            mean = self._thinned()
            users, items = mean[: len(self.users)], mean[len(self.users) :]
        else:
            users, items = mean_of_tables(self.adjacency, self.users, self.items, self.config.layers)
        scale = self.config.layers + 1 if self.config.readout == "sum" else 1
        return (users, items) if scale == 1 else (users * scale, items * scale)

    def regulariser(self, batch: Pairs) -> Tensor | float:
        if not self.config.l2 or not self.config.layers:
            return 0.0
        items = torch.stack([batch.items, batch.negatives[..., 0].expand_as(batch.items)])
        return self.config.l2 * l2_of_rows(len(batch.items), (self.users, batch.users), (self.items, items))

    def ridge(self) -> float:
        return 0.0 if self.config.layers else float(self.config.l2)

    def prepare(self) -> None:
        super().prepare()
        # what an unseen user with history h gets: sum over layers 0..L-1 of item vectors, each by its own degree
        below = self._layers()[:-1] or [torch.cat([self.users, self.items])]
        self._folding = folding(below, len(self.users), self.degrees, 1 if self.config.readout == "sum" else self.config.layers + 1)

    def fold_in(self, histories: Sets) -> Tensor:
        return fold(self._folding, histories)
