"""What CM3 and LIRDRec share: items made of content alone, one free block of each user beside each block of an item, one propagation whose layers are
summed, and the frozen graph of alike items. Each paper adds its shared block, how a user weighs the blocks, and its loss.

Letters: U users, N items, M kinds of content, D width, F = M + 1 blocks: one a kind, and one of all kinds together.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.graph import mean_of_layers
from vitrail.blocks.item_graph import ItemGraph
from vitrail.blocks.modality import Modalities
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveInt
from vitrail.data.batches import Sets
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, ContentSettings, Given, Sizes
from vitrail.systems.ids import fold, folding_of, id_graph
from vitrail.systems.skeletons import Graph


class ContentGraph(Graph):
    """A graph whose items have no vector of their own: everything is projected from content, so that an item nobody has met has one too."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True, cold_items=True)

    class Config(Graph.Config, ContentSettings):
        """Settings of both."""

        layers: NonNegativeInt = 3
        """Propagations over the interaction graph, whose layers are summed."""
        neighbours: PositiveInt = 10
        """Alike items of each kind of content, the item itself counted."""
        graph_weights: tuple[NonNegativeFloat, ...] = (0.9, 0.1)
        """What each of `vectors` counts in the item graph; of no effect with one."""
        item_layers: NonNegativeInt = 1
        """Propagations over the item graph, added to the items; 0: none."""

    adjacency: Tensor
    degrees: Tensor
    has_any: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None
        weights = config.counts_of("graph_weights")
        id_graph(self, sizes, given)
        vectors, masks = given.content(config.vectors)
        self.content = Modalities(vectors, masks, config.dim, trained=False, hidden=4 * config.dim)
        self.graph = ItemGraph(vectors, masks, weights, config.neighbours)
        self.register_buffer("has_any", torch.stack(list(masks.values())).any(0)[:, None], persistent=False)
        self.blocks = len(vectors) + self.shared_blocks(config)
        self.users = nn.Parameter(torch.empty(max(sizes.users, 1), self.blocks * config.dim))
        for block in self.users.data.split(config.dim, 1):
            block.copy_(nn.init.xavier_normal_(torch.empty_like(block)))
        self.leaning = nn.Parameter(nn.init.xavier_normal_(torch.empty(max(sizes.users, 1), self.blocks)))
        self.register_buffer("met", (given.indptr.diff() > 0)[:, None], persistent=False)

    def shared_blocks(self, config: Any) -> int:
        """Blocks beside those of the kinds."""
        return 1

    def together(self) -> Tensor | None:
        """(N, D) the block of all kinds together; none without one."""
        raise NotImplementedError

    def attention(self, blocks: Tensor, leaning: Tensor) -> Tensor:
        """Propagated users (B, F, D) and their rows of the free table (B, F) -> what each block counts (B, F)."""
        raise NotImplementedError

    def start(self) -> Tensor:
        """Layer 0, (U + N, F D): every block of a row at length 1, or 0 where an item lacks the kind or a user has no training event."""
        kinds = [self.content(n) * self.content.has(n)[:, None] for n in range(len(self.content.names))]
        shared = self.together()
        items = torch.stack(kinds if shared is None else [*kinds, shared * self.has_any], 1)
        users = self.users[: self.sizes.users].view(self.sizes.users, self.blocks, -1) * self.get_buffer("met")[..., None]
        return F.normalize(torch.cat([users, items]), dim=2).flatten(1)

    def weigh(self, users: Tensor, leaning: Tensor) -> Tensor:
        """(B, F D) -> (B, F D), each block by what it counts."""
        blocks = users.view(len(users), self.blocks, -1)
        return (self.attention(blocks, leaning)[..., None] * blocks).flatten(1)

    def nodes(self) -> tuple[Tensor, Tensor]:
        users, depth = self.sizes.users, self.config.layers
        summed = mean_of_layers(self.adjacency, self.start(), depth) * (depth + 1)
        items = alike = summed[users:]
        for _ in range(self.config.item_layers):
            alike = self.graph(alike)
        return self.weigh(summed[:users], self.leaning[:users]), items + alike if self.config.item_layers else items

    def added(self, first: int) -> None:
        self.graph.add(first)

    def prepare(self) -> None:
        super().prepare()
        self._folding = folding_of(self, self.start(), self.config.layers, 1)
        self._typical = self.leaning[: self.sizes.users][self.get_buffer("met")[:, 0]].mean(0)

    def fold_in(self, histories: Sets) -> Tensor:
        """As somebody who leans like people do on the whole, without a block of their own."""
        return self.weigh(fold(self._folding, histories), self._typical.expand(len(histories), -1))

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        wide = len(config.vectors) + 1
        content = sizes.items * 4 * (2 * sum(sizes.vectors.values()) + 24 * config.dim * wide)
        return super().memory(config, sizes, events) * wide + content + 4096 * sizes.items
