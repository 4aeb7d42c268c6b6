"""Sheaf4Rec. Purificato, Cassarà, Siciliano, Liò and Silvestri, 2023, arXiv:2304.09097; written from the authors' code (card collaborative/sheaf):
stalks have one dimension, and maps are made anew from each layer's vectors. Theirs adds the regulariser with weight 1 and leaves the weight it
defines, 1e-4, unused; ours is that weight, and `l2=1` is theirs. They draw users, where every training event comes once an epoch, and their ranking
puts seen items above unseen ones of negative score, where ours leaves them out. Users never seen in training are an extension of ours: they pass
through the same layers with their own layer 0 at zero. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitrail.blocks.edges import Edges
from vitrail.blocks.embed import Init, bag, rows
from vitrail.blocks.loss import l2_of_batch
from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, id_tables
from vitrail.systems.skeletons import Graph


def laplacian(edges: Edges, here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of each edge at its user `here` (E,) and at its item `there` (E,) -> the sheaf Laplacian over the root of its own diagonal
    plus 1 on both sides: its diagonal (V,), and what stands between both ends of each edge (E,)."""
    diagonal = edges.sums(here.square(), there.square())
    scale = (diagonal + 1).rsqrt()
    return diagonal * scale.square(), -here * there * scale.index_select(0, edges.users) * scale.index_select(0, edges.items)


@system("sheaf4rec", stage="retrieve", family="collaborative", paper="2304.09097", year=2023, status="works")
class Sheaf4Rec(Graph, IdTables):
    """Vectors diffused by a sheaf Laplacian, whose maps along edges are learned from the vectors at their ends."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True)
    toy: ClassVar[dict[str, Any]] = {"layers": 2, "epochs": 25, "lr": 0.05}

    class Config(Graph.Config, IdSettings):
        """Settings of sheaf4rec."""

        layers: PositiveInt = 5
        """Layers L; vectors that answer are dim * (L + 1) wide."""
        step: PositiveFloat = 1.0
        """How far a layer moves along the Laplacian."""
        l2: NonNegativeFloat = 1e-4
        """Weight of the regulariser on layer-0 vectors."""
        init: Init = "normal"
        """How layer-0 vectors start."""
        batch: PositiveInt = 1024
        """Pairs a step."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        id_tables(self, config, sizes, given)
        self.edges = Edges(given.indptr, given.items, sizes.items)
        self.maps = nn.ModuleList(nn.Linear(config.dim, 2, bias=False) for _ in range(config.layers))  # what an end says as source, as target
        self.linear = nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in range(config.layers))

    def layer(self, n: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (V, D) -> the next layer (V, D), and what `fold_in` wants of this one: both words of every node (V, 2), its scale (V,)."""
        said = self.maps[n](x).float()
        source, target = said.unbind(1)
        u, i = self.edges.users, self.edges.items
        here = torch.tanh(source.index_select(0, u) + target.index_select(0, i))
        there = torch.tanh(source.index_select(0, i) + target.index_select(0, u))
        diagonal, across = laplacian(self.edges, here, there)
        y = self.linear[n](x)
        return x - self.config.step * (diagonal[:, None] * y + self.edges.spread(across, y)), said, (1 - diagonal).clamp(min=1e-12).sqrt()

    def nodes(self) -> tuple[Tensor, Tensor]:
        out = [torch.cat([self.users, self.items])]
        for n in range(self.config.layers):
            out.append(self.layer(n, out[-1])[0])
        users, items = torch.cat(out, 1).split([len(self.users), len(self.items)])
        return users, items

    def regulariser(self, batch: Pairs) -> Tensor | float:
        if not self.config.l2:
            return 0.0
        items = rows(self.items, torch.stack([batch.items, batch.negatives[..., 0].expand_as(batch.items)]))
        return self.config.l2 * l2_of_batch(rows(self.users, batch.users), items)

    def prepare(self) -> None:
        super().prepare()
        x, users = torch.cat([self.users, self.items]), len(self.users)
        self._met = []
        for n in range(self.config.layers):
            after, said, scale = self.layer(n, x)
            self._met.append((said[users:], self.linear[n](x)[users:] * scale[users:, None]))
            x = after

    def fold_in(self, histories: Sets) -> Tensor:
        owner = torch.repeat_interleave(torch.arange(len(histories), device=histories.items.device), histories.lengths)
        x = torch.zeros(len(histories), self.config.dim, device=histories.items.device)
        out = [x]
        for n, (said, sent) in enumerate(self._met):
            own, theirs = self.maps[n](x)[owner], said[histories.items]
            here, there = torch.tanh(own[:, 0] + theirs[:, 1]), torch.tanh(theirs[:, 0] + own[:, 1])
            mass = here.new_zeros(len(histories)).index_add(0, owner, here.square())[:, None]
            heard = bag(sent, histories.items, histories.indptr, -here * there) / (mass + 1).sqrt()
            x = x - self.config.step * (mass / (mass + 1) * self.linear[n](x) + heard)
            out.append(x)
        return torch.cat(out, 1)

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        # the vectors of a batch are those of all layers side by side; maps and weights of edges with what their gradients need
        beside = 48 * config.batch * config.dim + 24 * (sizes.users + sizes.items) * config.dim + 80 * events
        return super().memory(config, sizes, events) + beside * config.layers
