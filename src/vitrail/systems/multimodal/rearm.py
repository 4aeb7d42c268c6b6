"""REARM. Wang et al., MM 2025, arXiv:2508.13745. Negatives are outside the training items alone; the authors' are outside held-out items too, a leak that
is not offered. A row that shares items with fewer than K others weighs those it has; one that shares none is left to content (theirs fill up at random).
An item that lacks a kind hears it from its neighbours. Id vectors of items without a training event start at 0; people never seen are propagated from
their history, an extension. Numbers: none yet."""

from __future__ import annotations

from itertools import combinations
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.co_occurrence import CoNeighbours, EnrichedGraph
from vitrail.blocks.embed import Init, rows
from vitrail.blocks.graph import mean_of_layers
from vitrail.blocks.loss import info_nce, orthogonality
from vitrail.blocks.meta import CrossKinds, LowRank
from vitrail.blocks.modality import Modalities, mean_of_items
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, fold, folding_of, id_graph, id_tables, met_in, zero_unmet
from vitrail.systems.skeletons import Graph


@system("rearm", stage="retrieve", family="multimodal", paper="2508.13745", year=2025, status="works")
class REARM(Graph, IdTables):
    """Ids and content smoothed among users and among items, attended across kinds, propagated, and joined by a transform of each node's own."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True, cold_items=True)
    space: ClassVar[dict[str, Any]] = {"layers": [4, 5], "rank": [3, 7], "user_neighbours": [25, 40, 45], "weight_decay": [1e-5, 5e-4, 0.05]}
    toy: ClassVar[dict[str, Any]] = {"neighbours": 4, "user_neighbours": 4, "layers": 2, "rank": 2, "weight_decay": 0.0, "features": "frozen", "epochs": 6}

    class Config(Graph.Config, IdSettings, ContentSettings):
        """Settings of rearm; those of Baby."""

        lr: PositiveFloat = 5e-5
        """Learning rate of Adam."""
        weight_decay: NonNegativeFloat = 5e-4
        """Decoupled weight decay (AdamW), the only regulariser."""
        layers: NonNegativeInt = 4
        """Propagations over the interaction graph."""
        item_layers: PositiveInt = 1
        """Propagations among items; the last layer is read."""
        user_layers: PositiveInt = 1
        """Propagations among users."""
        neighbours: PositiveInt = 10
        """Alike items of each kind of content, the item itself counted; and items with most users in common."""
        user_neighbours: PositiveInt = 40
        """Users of alike interest in each kind of content; and users with most items in common."""
        graph_weights: tuple[NonNegativeFloat, ...] = (1.0, 0.0)
        """What each of `vectors` counts among alike items."""
        user_weights: tuple[NonNegativeFloat, ...] = (0.8, 0.2)
        """What each of `vectors` counts among alike users."""
        item_shared: Share = 0.2
        """What common users count among items, beside content."""
        user_shared: Share = 0.4
        """What common items count among users, beside content."""
        rank: PositiveInt = 3
        """Rank of the transform of each node."""
        self_drop: Share = 0.4
        """Dropout of the attention within a kind."""
        cross_drop: Share = 0.6
        """Dropout of the attention across kinds."""
        contrast: NonNegativeFloat = 5e-6
        """Weight of the contrastive loss between kinds."""
        contrast_temperature: PositiveFloat = 0.6
        """Divides the cosines of that loss."""
        orthogonal: NonNegativeFloat = 5e-5
        """Weight of the loss that keeps kinds apart."""
        features: Literal["trained", "frozen"] = "trained"
        """Whether content vectors, and what people like of them, are parameters."""
        init: Init = "normal"
        """How id vectors start."""

    adjacency: Tensor
    degrees: Tensor
    _views: tuple[Tensor, Tensor] | None

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        id_tables(self, config, sizes, given)
        id_graph(self, sizes, given)
        zero_unmet(self.items, met_in(given, sizes))
        c, (vectors, masks), trained = config, given.content(config.vectors), config.features == "trained"
        found = {name: mean_of_items(values.float(), masks[name], given.indptr, given.items) for name, values in vectors.items()}
        interests = {name: both[0] for name, both in found.items()}, {name: both[1] for name, both in found.items()}
        self.tastes, self.content = (Modalities(*of, c.dim, trained=trained) for of in (interests, (vectors, masks)))
        edges = given.indptr, given.items, sizes.items
        self.among_users = EnrichedGraph(interests, c.counts_of("user_weights"), c.user_shared, CoNeighbours(*edges, c.user_neighbours, "users"))
        self.among_items = EnrichedGraph((vectors, masks), c.counts_of("graph_weights"), c.item_shared, CoNeighbours(*edges, c.neighbours, "items"))
        for module in (*self.tastes.maps, *self.content.maps):
            nn.init.xavier_normal_(module.weight)  # type: ignore[arg-type]
        self.bend, self._views = nn.PReLU(), None
        self.attend = CrossKinds(c.dim, len(vectors), c.self_drop, c.cross_drop, self.bend)
        self.share = nn.ModuleList(LowRank(len(vectors) * c.dim, c.dim, c.rank) for _ in range(2))

    def smoothed(self, ids: Tensor, content: Modalities, among: EnrichedGraph, depth: int) -> list[Tensor]:
        """Ids and kinds (V, D) each, after `depth` layers among nodes of one sort, the row of all of them at length 1."""
        x = torch.cat([ids, *(content(n) * content.has(n)[:, None] for n in range(len(content.names)))], 1)
        return list(F.normalize(among(x, depth), dim=1).split(self.config.dim, 1))

    def start(self) -> Tensor:
        """Layer 0 of the interaction graph: [ids | kinds] (U + N, (M + 1) D)."""
        users, *tastes = self.smoothed(self.users[: self.sizes.users], self.tastes, self.among_users, self.config.user_layers)
        items, *kinds = self.smoothed(self.items[: self.sizes.items], self.content, self.among_items, self.config.item_layers)
        return torch.cat([torch.cat([users, *map(self.bend, tastes)], 1), torch.cat([items, *self.attend(kinds)], 1)])

    def finished(self, x: Tensor, side: int, whole: bool = True) -> Tensor:
        """Propagated [ids | kinds] of users (side 0) or items (1) -> what is scored: each kind, and what kinds share, on top of the ids."""
        ids, kinds = x[:, : self.config.dim], x[:, self.config.dim :]
        parts = [*kinds.split(self.config.dim, 1), self.share[side](ids, kinds, whole)]
        return torch.cat([self.bend(part) + ids for part in parts], 1)

    def nodes(self) -> tuple[Tensor, Tensor]:
        mean = mean_of_layers(self.adjacency, self.start(), self.config.layers)
        users, items = mean.split([self.sizes.users, self.sizes.items])
        self._views = users[:, self.config.dim :], items[:, self.config.dim :]
        return self.finished(users, 0), self.finished(items, 1)

    def regulariser(self, batch: Pairs) -> Tensor | float:
        """Kinds of one node must find each other, and yet not say the same."""
        (views, self._views), c, total = (self._views, None), self.config, 0.0
        assert views is not None
        met = batch.users.unique(), torch.cat([batch.items, batch.negatives.flatten()]).unique()
        for view, ids, asked in zip(views, met, (batch.users, batch.items), strict=True):
            for one, two in combinations(range(len(c.vectors)), 2):
                a, b = (view[:, n * c.dim : (n + 1) * c.dim] for n in (one, two))
                total = total + c.contrast * info_nce(rows(a, ids), rows(b, ids), c.contrast_temperature)
                total = total + c.orthogonal * orthogonality(rows(a, asked), rows(b, asked))
        return total

    def added(self, first: int) -> None:
        self.among_items.alike.add(first)

    def prepare(self) -> None:
        super().prepare()
        self._folding, self._views = folding_of(self, self.start(), self.config.layers), None

    def fold_in(self, histories: Sets) -> Tensor:
        return self.finished(fold(self._folding, histories), 0, whole=False)

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        content = 4 * sum(sizes.vectors.values()) * (sizes.items + sizes.users) * (6 if config.features == "trained" else 2)
        return super().memory(config, sizes, events) * (len(config.vectors) + 1) + content + 24 * sizes.items * config.dim**2 * len(config.vectors)  # attention
