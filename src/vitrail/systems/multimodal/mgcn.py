"""MGCN. Yu et al., ACM MM 2023, arXiv:2308.03588. Content missing is a mask: an item that lacks a kind has no view of it, and its attention goes to the
others. Views are contrasted over the distinct ids of a batch (theirs counts a repeated id as its own negative), the learning rate stays (theirs falls by
4 % in 50 epochs), and a negative cosine is no edge (theirs may divide by 0). Id vectors of items without a training event start at 0, so that a cold
item answers by its neighbours alone; people never seen pass through the same views, an extension. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vitrail.blocks.embed import rows
from vitrail.blocks.graph import mean_of_layers, propagate
from vitrail.blocks.item_graph import ContentNeighbours
from vitrail.blocks.loss import info_nce
from vitrail.blocks.modality import Modalities, softmax_where
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, fold, folding_of, id_graph, id_tables, met_in, zero_unmet
from vitrail.systems.skeletons import Graph


@system("mgcn", stage="retrieve", family="multimodal", paper="2308.03588", year=2023, status="works")
class MGCN(Graph, IdTables):
    """LightGCN beside views of content that only gates ids, fused by attention and by what behaviour prefers."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True, cold_items=True)
    space: ClassVar[dict[str, Any]] = {"contrast": [0.001, 0.01, 0.1], "neighbours": None}
    toy: ClassVar[dict[str, Any]] = {"neighbours": 4, "epochs": 15}

    class Config(Graph.Config, IdSettings, ContentSettings):
        """Settings of mgcn."""

        layers: NonNegativeInt = 2
        """Propagations over the interaction graph."""
        item_layers: PositiveInt = 1
        """Propagations over the graphs of alike items."""
        neighbours: PositiveInt = 10
        """Alike items of each kind of content, the item itself counted."""
        contrast: NonNegativeFloat = 0.01
        """Weight of the contrastive loss between content and behaviour."""
        contrast_temperature: PositiveFloat = 0.2
        """Divides the cosines of that loss."""
        l2: NonNegativeFloat = 1e-4
        """Weight of the regulariser on the vectors that are scored."""
        features: Literal["trained", "frozen"] = "trained"
        """Whether content vectors are parameters; the graphs are always of those that were given."""

    adjacency: Tensor
    degrees: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        id_tables(self, config, sizes, given)
        id_graph(self, sizes, given)
        zero_unmet(self.items, met_in(given, sizes))
        vectors, masks = given.content(config.vectors)
        self.content = Modalities(vectors, masks, config.dim, trained=config.features == "trained")
        self.graph = ContentNeighbours(vectors, masks, config.neighbours, edges="cosine")
        self.gates = nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in vectors)
        self.prefer = nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in vectors)
        self.attend = nn.Sequential(nn.Linear(config.dim, config.dim), nn.Tanh(), nn.Linear(config.dim, 1, bias=False))
        self._views: tuple[Tensor, Tensor] | None = None

    def purified(self) -> list[Tensor]:
        """What each kind shows of the items (N, D): their ids, gated by content and smoothed over those alike."""
        kinds = []
        for place, gate in enumerate(self.gates):
            q = self.items[: self.sizes.items] * torch.sigmoid(gate(self.content(place))) * self.content.has(place)[:, None]
            for _ in range(self.config.item_layers):
                q = self.graph.of_kind(place, q)
            kinds.append(q)
        return kinds

    def fuse(self, behaviour: Tensor, kinds: list[Tensor], has: Tensor) -> Tensor:
        """behaviour (V, D), M views of content (V, D), which of them a node has (V, M) -> what is added to behaviour (V, D): what views have in common
        and, as far as behaviour prefers it, what each has alone, over M + 1."""
        M = torch.stack(kinds, 1)
        common = (softmax_where(self.attend(M)[..., 0], has)[..., None] * M).sum(1)
        alone = [torch.sigmoid(prefer(behaviour)) * (view - common) * has[:, n, None] for n, (prefer, view) in enumerate(zip(self.prefer, kinds, strict=True))]
        return (sum(alone) + common) / (len(kinds) + 1)

    def nodes(self) -> tuple[Tensor, Tensor]:
        x, users = torch.cat([self.users, self.items]), self.sizes.users
        behaviour, kinds = mean_of_layers(self.adjacency, x, self.config.layers), self.purified()
        sent = propagate(self.adjacency, torch.cat([self.users.new_zeros(users, len(kinds) * self.config.dim), torch.cat(kinds, 1)]))[:users]
        everywhere = [torch.cat(both) for both in zip(sent.split(self.config.dim, 1), kinds, strict=True)]
        has = torch.cat([self.graph.has.new_ones(users, len(kinds)), self.graph.has]).bool()
        side = self.fuse(behaviour, everywhere, has)
        self._views, final = (behaviour, side), behaviour + side
        return final[:users], final[users:]

    def ridge(self) -> float:
        return float(self.config.l2)

    def regulariser(self, batch: Pairs) -> Tensor | float:
        """Content must find behaviour, of the batch's users and of its positive items."""
        assert self._views is not None
        (behaviour, side), self._views = self._views, None
        total = side.new_zeros(())
        for ids in (batch.users.unique(), batch.items.unique() + self.sizes.users):
            total = total + info_nce(rows(side, ids), rows(behaviour, ids), self.config.contrast_temperature)
        return self.config.contrast * total

    def added(self, first: int) -> None:
        self.graph.add(first)

    def prepare(self) -> None:
        super().prepare()
        self._views = None
        behaviour = folding_of(self, torch.cat([self.users, self.items]), self.config.layers)
        self._folding = torch.cat([behaviour, *(kind / self.degrees.sqrt()[:, None] for kind in self.purified())], 1)

    def fold_in(self, histories: Sets) -> Tensor:
        behaviour, *kinds = fold(self._folding, histories).split(self.config.dim, 1)
        return behaviour + self.fuse(behaviour, kinds, torch.ones(len(histories), len(kinds), dtype=torch.bool, device=behaviour.device))

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        content = sum(sizes.vectors.values()) * sizes.items * 4 * (6 if config.features == "trained" else 2)
        views = 4 * (sizes.users + sizes.items) * config.dim * 12 * len(config.vectors)
        return super().memory(config, sizes, events) + content + views + 4096 * sizes.items
