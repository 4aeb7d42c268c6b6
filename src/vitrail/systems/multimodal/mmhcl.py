"""MMHCL. Xu et al., TOMM 2025, arXiv:2504.16576. Every training event once an epoch (theirs draw users), the learning rate stays (theirs falls by 4 % in
50 epochs), and neither hypergraph is ever built: each is two sparse products. `contrast_over=batch` contrasts the ids of a batch alone, where all of a
large catalogue are out of reach. Without ratios the hypergraphs are off, as in their code: LightGCN. Content missing is no hyperedge of that kind. Tables
of items without a training event start at 0; people never seen are joined with those who share their items, an extension. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.embed import bag, rows, table
from vitrail.blocks.graph import mean_of_tables
from vitrail.blocks.hypergraph import CoUsers, ItemHypergraph
from vitrail.blocks.loss import info_nce_within
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, fold, folding_of, id_graph, id_tables, met_in, zero_unmet
from vitrail.systems.skeletons import Graph, zero_absent


@system("mmhcl", stage="retrieve", family="multimodal", paper="2504.16576", year=2025, status="works")
class MMHCL(Graph, IdTables):
    """LightGCN plus second vectors, smoothed over a hypergraph of alike items and one of users with items in common."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True, cold_items=True)
    space: ClassVar[dict[str, Any]] = {"item_ratio": [0.07, 0.3, 0.7], "user_ratio": [0.03, 0.1, 0.3], "neighbours": [5, 10]}
    toy: ClassVar[dict[str, Any]] = {"neighbours": 4, "item_ratio": 0.05, "user_ratio": 0.05, "epochs": 20}

    class Config(Graph.Config, IdSettings, ContentSettings):
        """Settings of mmhcl."""

        lr: PositiveFloat = 1e-4
        """Learning rate of Adam."""
        batch: PositiveInt = 1024
        """Pairs a step."""
        layers: NonNegativeInt = 2
        """Propagations over the interaction graph."""
        item_layers: PositiveInt = 2
        """Propagations over the hypergraph of items."""
        user_layers: PositiveInt = 2
        """Propagations over the hypergraph of users."""
        neighbours: PositiveInt = 5
        """Alike items of each kind of content, the item itself counted."""
        item_ratio: NonNegativeFloat = 0.7
        """Weight of the contrastive loss of items."""
        user_ratio: NonNegativeFloat = 0.3
        """Weight of the contrastive loss of users."""
        contrast_temperature: PositiveFloat = 0.5
        """Divides the cosines of both."""
        contrast_over: Literal["all", "batch"] = "all"
        """Whether all users and items stand in each other's way at every step, as in the paper, or those of the batch."""
        l2: NonNegativeFloat = 1e-5
        """Weight of the regulariser on the vectors that are scored."""

    adjacency: Tensor
    degrees: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        id_tables(self, config, sizes, given)
        id_graph(self, sizes, given)
        met = met_in(given, sizes)
        zero_unmet(self.items, met)
        self.joined = config.item_ratio > 0 or config.user_ratio > 0
        self._second: tuple[Tensor, Tensor] | None = None
        if self.joined:
            self.users_2 = table(sizes.users, config.dim, config.init, config.init_scale)
            self.items_2 = table(sizes.items, config.dim, config.init, config.init_scale)
            zero_absent(self.users_2, given.indptr)
            zero_unmet(self.items_2, met)
            self.alike: nn.Module = ItemHypergraph(*given.content(config.vectors), config.neighbours)
            self.co: nn.Module = CoUsers(given.indptr, given.items, sizes.items)

    def second(self) -> tuple[Tensor, Tensor]:
        """(U, D), (N, D): the last layer of both hypergraphs."""
        users, items = self.users_2, self.items_2
        for _ in range(self.config.user_layers):
            users = self.co(users)
        for _ in range(self.config.item_layers):
            items = self.alike(items)
        return users, items

    def nodes(self) -> tuple[Tensor, Tensor]:
        users, items = mean_of_tables(self.adjacency, self.users, self.items, self.config.layers)
        if not self.joined:
            return users, items
        self._second = self.second()
        return users + F.normalize(self._second[0], dim=1), items + F.normalize(self._second[1], dim=1)

    def ridge(self) -> float:
        return float(self.config.l2)

    def regulariser(self, batch: Pairs) -> Tensor | float:
        """The vectors that are scored must find their own second vectors."""
        if self._second is None:
            return 0.0
        second, self._second = self._second, None
        c, total = self.config, second[0].new_zeros(())
        ids = (batch.users.unique(), torch.cat([batch.items, batch.negatives.flatten()]).unique())
        for side, ratio in enumerate((c.user_ratio, c.item_ratio)):
            if ratio:
                both = self._step[side], second[side]
                one, two = both if c.contrast_over == "all" else (rows(x, ids[side]) for x in both)
                total = total + ratio * info_nce_within(one, two, c.contrast_temperature)
        return total

    def added(self, first: int) -> None:
        if self.joined:
            self.alike.add(first)  # type: ignore[operator]

    def prepare(self) -> None:
        super().prepare()
        self._folding, self._second = folding_of(self, torch.cat([self.users, self.items]), self.config.layers), None
        if self.joined:
            users = self.users_2
            for _ in range(self.config.user_layers - 1):
                users = self.co(users)
            self._sent = self.co.to_items(users)  # type: ignore[operator]

    def fold_in(self, histories: Sets) -> Tensor:
        first = fold(self._folding, histories)
        # the scale of the second vector does not matter: it is read at length 1
        return first + F.normalize(bag(self._sent, histories.items, histories.indptr), dim=1) if self.joined else first

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        second = 4 * (sizes.users + sizes.items) * config.dim * (8 + 2 * (config.user_layers + config.item_layers))
        blocks = 16 * 1024 * max(sizes.users, sizes.items) if config.contrast_over == "all" else 0
        return super().memory(config, sizes, events) + second + blocks + 40 * events + 4096 * sizes.items
