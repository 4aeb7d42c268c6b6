"""FREEDOM. Zhou and Shen, MM 2023, arXiv:2211.06924. Content missing is a mask: such an item has no neighbours of that kind, its other kinds take
their share, and it is in no loss of that kind (the authors give it the mean vector). Repeated events are one edge. Id vectors of items without a
training event start at 0, not at random, so that a cold item answers by its neighbours alone. Extensions, off by default: `edges=cosine` and
`fusion=learned` are LATTICE's (arXiv:2104.09036) on the frozen graph; people never seen fold in as in lightgcn. Numbers: recipes/freedom.*.yaml."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.blocks.graph import bipartite_adjacency, mean_of_layers, mean_of_tables
from vitrail.blocks.item_graph import Edges, ItemGraph
from vitrail.blocks.modality import Modalities, mean_where
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveInt, Rate
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.systems.alike import Alike
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, fold, folding_of, id_graph, id_tables, met_in, zero_unmet
from vitrail.systems.skeletons import Graph


@system("freedom", stage="retrieve", family="multimodal", paper="2211.06924", year=2023, status="measured")
class FREEDOM(Graph, IdTables, Alike):
    """LightGCN on a thinned interaction graph, plus item vectors smoothed over a frozen graph of alike content."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True, cold_items=True)
    space: ClassVar[dict[str, Any]] = {"drop": [0.8, 0.9], "aux": [0.0, 1e-5, 1e-4, 1e-3], "neighbours": None}
    toy: ClassVar[dict[str, Any]] = {"drop": 0.2, "epochs": 20}

    class Config(Graph.Config, IdSettings, ContentSettings):
        """Settings of freedom."""

        layers: NonNegativeInt = 2
        """Propagations over the interaction graph."""
        drop: Rate = 0.8
        """Share of interactions left out of each epoch's graph, those of high degree rather."""
        neighbours: PositiveInt = 10
        """Alike items of each kind of content, the item itself counted."""
        graph_weights: tuple[NonNegativeFloat, ...] = (0.9, 0.1)
        """What each of `vectors` counts in the item graph; of no effect with one."""
        item_layers: NonNegativeInt = 1
        """Propagations over the item graph; 0: none."""
        edges: Edges = "binary"
        """Every neighbour alike, or by its cosine."""
        fusion: Literal["fixed", "learned"] = "fixed"
        """Whether graph_weights stay, or are where a learned softmax starts."""
        aux: NonNegativeFloat = 1e-3
        """Weight of the losses that rank items by their projected content."""
        features: Literal["trained", "frozen"] = "trained"
        """Whether content vectors are parameters in those losses."""

    adjacency: Tensor
    degrees: Tensor
    kept: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        weights = config.counts_of("graph_weights")
        id_tables(self, config, sizes, given)
        id_graph(self, sizes, given)
        zero_unmet(self.items, met_in(given, sizes))
        vectors, masks = given.content(config.vectors)
        self.content = Modalities(vectors, masks, config.dim, trained=config.features == "trained" and config.aux > 0)
        self.graph = ItemGraph(vectors, masks, weights, config.neighbours, edges=config.edges, learned=config.fusion == "learned")
        users = torch.repeat_interleave(torch.arange(sizes.users), given.indptr.diff())
        keys = (users * sizes.items + given.items).unique()
        self._edges = torch.stack([keys // max(sizes.items, 1), keys % max(sizes.items, 1)])
        share = int(self._edges.shape[1] * (1 - config.drop) + 1e-9)
        self.register_buffer("kept", torch.arange(share, dtype=torch.int32))
        self._thinned: Tensor | None = None

    def chances(self) -> np.ndarray:
        """(E,) of each edge to be drawn first: ~ 1 / sqrt(d_user d_item)."""
        users, items = self._edges.numpy()
        weights = 1 / np.sqrt(np.bincount(users)[users] * np.bincount(items)[items])
        return weights / weights.sum()

    def on_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        """Draw the edges of the epoch without replacement: the smallest of exponential times with those rates."""
        times = rng.exponential(size=self._edges.shape[1]) / self.chances()
        drawn = np.sort(np.argpartition(times, len(self.kept) - 1)[: len(self.kept)]) if len(self.kept) else np.empty(0, dtype=np.int64)
        self.kept.copy_(torch.from_numpy(drawn))
        self._thinned = None

    def thinned(self) -> Tensor:
        """The graph of the epoch, normalised by its own degrees."""
        if self._thinned is None or self._thinned.device != self.kept.device:
            users, items = self._edges[:, self.kept.cpu().long()]
            indptr = F.pad(torch.bincount(users, minlength=self.sizes.users).cumsum(0), (1, 0))
            self._thinned = bipartite_adjacency(indptr, items, self.sizes.items).to(self.kept.device)
        return self._thinned

    def nodes(self) -> tuple[Tensor, Tensor]:
        A = self.thinned() if self.training and self.config.drop > 0 else self.adjacency
        (users, items), alike = mean_of_tables(A, self.users, self.items, self.config.layers), self.items
        for _ in range(self.config.item_layers):
            alike = self.graph(alike)
        return users, items + (alike if self.config.item_layers else 0.0)

    def layered(self) -> dict[str, Tensor]:
        """What the vectors of items (N, D) are a sum of: `behaviour`, and by name what each kind of content carries over from alike items."""
        mean, alike = mean_of_layers(self.adjacency, torch.cat([self.users, self.items]), self.config.layers), self.items
        for _ in range(self.config.item_layers - 1):
            alike = self.graph(alike)
        parts = {"behaviour": mean[self.sizes.users :]}
        if self.config.item_layers:
            parts |= dict(zip(self.graph.names, self.graph.each(alike), strict=True))
        return parts

    def regulariser(self, batch: Pairs) -> Tensor | float:
        """BPR of the user against projected content, over pairs of which both items have that kind."""
        if not self.config.aux:
            return 0.0
        u, both = self.user(batch.users), torch.stack([batch.items, batch.negatives[..., 0]])
        total = u.new_zeros(())
        for place in range(len(self.content.names)):
            positive, negative = (u * self.content(place, both)).sum(-1)
            total = total + mean_where(F.softplus(negative - positive), self.content.has(place, both).all(0))
        return self.config.aux * total

    def added(self, first: int) -> None:
        self.graph.add(first)

    def prepare(self) -> None:
        super().prepare()
        self._folding = folding_of(self, torch.cat([self.users, self.items]), self.config.layers)

    def fold_in(self, histories: Sets) -> Tensor:
        return fold(self._folding, histories)

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        content = sum(sizes.vectors.values()) * sizes.items * 4 * (5 if config.features == "trained" else 1)
        return super().memory(config, sizes, events) + content + 4096 * sizes.items + 48 * len(config.vectors) * config.neighbours * sizes.items
