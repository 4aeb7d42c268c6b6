"""SIGE (CEAA), a reconstruction. Zhang, Zhou, Zeng, Niyato and Shen, 2025, arXiv:2508.06154: neither equations nor code were reachable. The abstract
says: item graphs of each kind of content take up what the interaction graph knows; noise follows the length of a vector, and both noisy views are
contrasted; behaviour anchors the alignment of kinds with each other, and is aligned with what they say together. All else is ours, in the manner of
FREEDOM, MGCN and SimGCL (card collaborative/sige): the co-occurrence graph and its share, the mean over kinds, the sum of both vectors, which pairs
are drawn together. An item that lacks a kind is in no loss of it and hears of it from nobody. People never seen are folded in as in lightgcn, and are the
mean of what their items say. No number of the paper is known to us. Numbers: none yet."""

from __future__ import annotations

from itertools import combinations
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.edges import Edges
from vitrail.blocks.embed import rows
from vitrail.blocks.graph import layers, mean_of_layers, nudge
from vitrail.blocks.infused import Infused, together
from vitrail.blocks.loss import anchored, info_nce, l2_of_batch
from vitrail.blocks.modality import Modalities, mean_of_items
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, fold, folding, id_graph, id_tables
from vitrail.systems.skeletons import Graph


@system("sige", stage="retrieve", family="multimodal", paper="2508.06154", year=2025, status="reconstruction")
class SIGE(Graph, IdTables):
    """LightGCN beside content smoothed over graphs of alike items that know what goes together, contrasted and aligned with behaviour."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True, cold_items=True)
    space: ClassVar[dict[str, Any]] = {name: {"low": 1e-4, "high": 1e-1, "log": True} for name in ("contrast", "anchor", "align")} | {"neighbours": None}
    toy: ClassVar[dict[str, Any]] = {"neighbours": 4, "epochs": 15}

    class Config(Graph.Config, IdSettings, ContentSettings):
        """Settings of sige."""

        layers: NonNegativeInt = 2
        """Propagations over the interaction graph."""
        item_layers: PositiveInt = 1
        """Propagations over the graphs of alike items."""
        neighbours: PositiveInt = 10
        """Alike items of each kind of content, the item itself counted; and items that go together with one."""
        share: Share = 0.5
        """What items that go together count in those graphs."""
        noise: NonNegativeFloat = 0.1
        """Length of the step of each noisy view, over that of the vector."""
        contrast: NonNegativeFloat = 1e-2
        """Weight of the contrast between the noisy views."""
        anchor: NonNegativeFloat = 1e-2
        """Weight of the alignment of each two kinds with each other, through behaviour, which it does not move."""
        align: NonNegativeFloat = 1e-2
        """Weight of the alignment of behaviour with all kinds together."""
        contrast_temperature: PositiveFloat = 0.2
        """Divides the cosines of these three."""
        l2: NonNegativeFloat = 1e-4
        """Weight of the regulariser on layer-0 vectors."""

    adjacency: Tensor
    degrees: Tensor
    scale: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        id_tables(self, config, sizes, given)
        id_graph(self, sizes, given)
        met = torch.bincount(given.items, minlength=sizes.items) > 0
        with torch.no_grad():
            self.items[: sizes.items][~met] = 0.0
        vectors, masks = given.content(config.vectors)
        self.content = Modalities(vectors, masks, config.dim, trained=False)
        pairs = together(given.indptr, given.items, sizes.items, config.neighbours)
        self.graphs = nn.ModuleList(Infused(vectors[name], masks[name], config.neighbours, pairs, config.share) for name in vectors)
        self.edges = Edges(given.indptr, given.items, sizes.items)
        has = torch.stack(list(masks.values()), 1).float() if masks else torch.zeros(sizes.items, 0)
        counts = torch.cat([self.edges.spread(torch.ones(len(self.edges.users)), F.pad(has, (0, 0, sizes.users, 0)))[: sizes.users], has])
        self.register_buffer("scale", (counts > 0) / counts.clamp(min=1) / (counts > 0).sum(1, keepdim=True).clamp(min=1), persistent=False)

    def kinds(self) -> list[Tensor]:
        """What each kind says of the items, each (N, D)."""
        said = []
        for place, graph in enumerate(self.graphs):
            x = self.content(place) * self.content.has(place)[:, None]
            for _ in range(self.config.item_layers):
                x = graph(x)
            said.append(x)
        return said

    def nodes(self) -> tuple[Tensor, Tensor]:
        sides, users = [mean_of_layers(self.adjacency, torch.cat([self.users, self.items]), self.config.layers)], self.sizes.users
        said = self.kinds()
        if said:
            x = F.pad(torch.cat(said, 1), (0, 0, users, 0))
            heard = self.edges.spread(x.new_ones(len(self.edges.users)), x)[:users]
            everywhere = torch.cat([heard, x[users:]]).unflatten(1, (len(said), -1))
            sides.append((self.scale[:, :, None] * everywhere).sum(1))
        self._views = sides, said
        final = torch.stack(sides).sum(0)
        return final[:users], final[users:]

    def loss_at(self, step: tuple[Tensor, Tensor], batch: Pairs) -> Tensor:
        try:
            return super().loss_at(step, batch)
        finally:
            self._views = [], []  # lets go of the step's graph

    def regulariser(self, batch: Pairs) -> Tensor | float:
        """Contrast, alignment and the penalty."""
        c, t, (sides, said) = self.config, self.config.contrast_temperature, self._views
        negatives = batch.negatives[..., 0].expand_as(batch.items)
        total, items = c.l2 * l2_of_batch(rows(self.users, batch.users), rows(self.items, torch.stack([batch.items, negatives]))), batch.items.unique()
        if not said:
            return total
        for ids in (batch.users.unique(), items + self.sizes.users):
            there = ids[self.scale[ids].any(1)]
            if len(there):
                behaviour, content = (rows(side, there) for side in sides)
                one, two = (nudge(content, c.noise * content.norm(dim=1, keepdim=True)) for _ in range(2))
                total = total + c.contrast * info_nce(one, two, t) + c.align * info_nce(behaviour, content, t)
        for m, n in combinations(range(len(said)), 2):
            both = items[self.content.has(m, items) & self.content.has(n, items)]
            if len(both):
                behaviour = rows(sides[0], both + self.sizes.users).detach()
                total = total + c.anchor * anchored(behaviour, rows(said[m], both), rows(said[n], both), t)
        return total

    def added(self, first: int) -> None:
        for graph in self.graphs:
            graph.add(first)  # type: ignore[operator]

    def prepare(self) -> None:
        super().prepare()
        self._said, self._views = self._views[1], ([], [])
        passes = layers(self.adjacency, torch.cat([self.users, self.items]), self.config.layers)
        self._folding = folding(passes[:-1] or passes, self.sizes.users, self.degrees, self.config.layers + 1)

    def fold_in(self, histories: Sets) -> Tensor:
        heard = [mean_of_items(x, self.content.has(place), histories.indptr, histories.items) for place, x in enumerate(self._said)]
        kinds = torch.stack([has for _, has in heard]).sum(0).clamp(min=1)[:, None] if heard else 1
        return fold(self._folding, histories) + sum(mean for mean, _ in heard) / kinds

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        kinds = 20 * len(config.vectors) * (sizes.users + sizes.items) * config.dim + 72 * len(config.vectors) * config.neighbours * sizes.items
        return super().memory(config, sizes, events) + 8 * sum(sizes.vectors.values()) * sizes.items + kinds + 4096 * sizes.items
