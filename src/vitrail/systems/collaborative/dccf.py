"""DCCF. Ren et al., SIGIR 2023, arXiv:2305.02759; written from the authors' code (card collaborative/dccf). Every training event once an epoch, and
validation stops the run, where the authors draw users and report a fixed last epoch. The penalty is a sum over the batch, as theirs, so that its
weight goes with the batch. An edge whose ends are opposite weighs 0; a node of such edges alone hears nothing, where theirs divides by 0. Users
never seen in training are an extension of ours: they pass through the same layers with their own layer 0 at zero. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.edges import Edges
from vitrail.blocks.embed import bag, rows
from vitrail.blocks.graph import propagate
from vitrail.blocks.loss import info_nce, l2_of_batch
from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, id_graph, id_tables
from vitrail.systems.skeletons import Graph


def closeness(cosines: Tensor) -> Tensor:
    """Cosines of any shape -> weights in [0, 1]."""
    return (cosines + 1) / 2


@system("dccf", stage="retrieve", family="collaborative", paper="2305.02759", year=2023, status="works")
class DCCF(Graph, IdTables):
    """Vectors passed over the graph beside their latent intents, with edges weighed by what both views say, and the views contrasted."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True)
    space: ClassVar[dict[str, Any]] = {"contrast": {"low": 1e-3, "high": 1.0, "log": True}}
    toy: ClassVar[dict[str, Any]] = {"intents": 8, "contrast": 0.01, "epochs": 12, "lr": 0.05}

    class Config(Graph.Config, IdSettings):
        """Settings of dccf."""

        dim: PositiveInt = 32
        """Width D of user and item vectors."""
        intents: PositiveInt = 128
        """Intents K of users, and as many of items."""
        layers: PositiveInt = 2
        """Layers L; answers are the sum of layers 0 to L."""
        contrast: NonNegativeFloat = 0.1
        """Weight of the contrastive losses."""
        contrast_temperature: PositiveFloat = 1.0
        """Divides their cosines."""
        l2: NonNegativeFloat = 2.5e-5
        """Weight of the squared norms of the batch's layer-0 vectors, summed over the batch."""
        intent_l2: NonNegativeFloat = 5e-3
        """Weight of the squared norms of the intents."""
        batch: PositiveInt = 10240
        """Pairs a step."""

    adjacency: Tensor
    degrees: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        id_tables(self, config, sizes, given)
        id_graph(self, sizes, given)
        self.edges = Edges(given.indptr, given.items, sizes.items)
        self.intents = nn.ParameterList(nn.init.xavier_normal_(torch.empty(config.dim, config.intents)) for _ in range(2))

    def intent(self, side: int, x: Tensor) -> Tensor:
        """x (V, D) of users (side 0) or items (1) -> the mean of the intents by how near they are (V, D)."""
        return (x @ self.intents[side]).softmax(1) @ self.intents[side].T

    def weighed(self, view: Tensor, x: Tensor) -> Tensor:
        """The mean of neighbours of x (V, D), an edge counting by how alike its ends are in a view (V, D) -> (V, D)."""
        alpha = closeness(self.edges.cosines(view))
        return self.edges.spread(alpha, x) / self.edges.sums(alpha).clamp(min=1e-12)[:, None]

    def passes(self) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
        """Layers 0 to L, and the four views of each but the last: over the graph, by intents, and over either's weights; each (V, D)."""
        x = torch.cat([self.users, self.items])
        layers, views = [x], list[tuple[Tensor, ...]]()
        for _ in range(self.config.layers):
            near = propagate(self.adjacency, x)
            users, items = x.split([len(self.users), len(self.items)])
            meant = torch.cat([self.intent(0, users), self.intent(1, items)])
            views.append((near, meant, self.weighed(near, x), self.weighed(meant, x)))
            x = sum(views[-1], start=x)
            layers.append(x)
        return layers, views

    def nodes(self) -> tuple[Tensor, Tensor]:
        layers, self._views = self.passes()
        users, items = torch.stack(layers).sum(0).split([len(self.users), len(self.items)])
        return users * (self.edges.degrees[: len(users), None] > 0), items

    def loss_at(self, step: tuple[Tensor, Tensor], batch: Pairs) -> Tensor:
        try:
            return super().loss_at(step, batch)
        finally:
            self._views = []  # lets go of the step's graph

    def regulariser(self, batch: Pairs) -> Tensor | float:
        """The contrastive losses and the penalties."""
        c, negatives = self.config, batch.negatives[..., 0].expand_as(batch.items)
        total = c.intent_l2 * sum(prototypes.square().sum() for prototypes in self.intents)
        vectors = rows(self.users, batch.users), rows(self.items, batch.items), rows(self.items, negatives)
        total = total + 2 * len(batch.users) * c.l2 * l2_of_batch(*vectors)
        if c.contrast:
            for ids in (batch.users.unique(), batch.items.unique() + len(self.users)):
                for near, *others in self._views:
                    near = rows(near, ids)
                    total = total + c.contrast * sum(info_nce(near, rows(other, ids), c.contrast_temperature) for other in others)
        return total

    def prepare(self) -> None:
        super().prepare()
        (layers, views), users = self.passes(), len(self.users)
        self._met = [(x[users:], near[users:], meant[users:]) for x, (near, meant, *_) in zip(layers, views, strict=False)]
        self._views = []

    def fold_in(self, histories: Sets) -> Tensor:
        owner = torch.repeat_interleave(torch.arange(len(histories), device=histories.items.device), histories.lengths)
        x = total = torch.zeros(len(histories), self.config.dim, device=histories.items.device)
        for items, *views in self._met:
            near = bag(items / self.degrees.sqrt()[:, None], histories.items, histories.indptr) / histories.lengths.clamp(min=1).sqrt()[:, None]
            own = near, self.intent(0, x)
            x = x + own[0] + own[1]
            for mine, theirs in zip(own, views, strict=True):
                alpha = closeness(F.cosine_similarity(mine[owner], theirs[histories.items], dim=1))
                mass = alpha.new_zeros(len(histories)).index_add(0, owner, alpha)
                x = x + bag(items, histories.items, histories.indptr, alpha) / mass.clamp(min=1e-12)[:, None]
            total = total + x
        return total

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        nodes = sizes.users + sizes.items
        # the views of each layer with what their gradients need, intents of all nodes, weights of edges
        return super().memory(config, sizes, events) + config.layers * (40 * nodes * config.dim + 8 * nodes * config.intents + 80 * events)
