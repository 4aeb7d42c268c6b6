"""BM3. Zhou et al., WWW 2023, arXiv:2207.05969. Content missing is a mask: such an item is in no term of that kind (the authors give it the mean
vector). Target views drop in every pass, as theirs do. Factors, not a Graph, because no negative is ever drawn. Extensions: `cold=content` gives
items without a training event the vector their content predicts, at the mean length of the others, off by default and in parity runs; people never
seen fold in as in lightgcn. Numbers: recipes/bm3.*.yaml."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.drop import dropout
from vitrail.blocks.embed import rows
from vitrail.blocks.graph import mean_of_tables
from vitrail.blocks.loss import emb_loss
from vitrail.blocks.modality import Modalities, mean_where
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveInt, Rate
from vitrail.data.batchers import Batcher, PairBatcher
from vitrail.data.batches import Pairs, Sets
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, TrainSettings, system
from vitrail.systems.ids import IdSettings, IdTables, fold, folding_of, id_graph, id_tables, met_in
from vitrail.systems.skeletons import Factors


@system("bm3", stage="retrieve", family="multimodal", paper="2207.05969", year=2023, status="measured")
class BM3(Factors, IdTables):
    """Users, items and their content drawn to each other's dropped-out views, without negatives."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True)
    space: ClassVar[dict[str, Any]] = {"layers": [1, 2], "dropout": [0.3, 0.5], "reg": [0.1, 0.01]}
    toy: ClassVar[dict[str, Any]] = {"dim": 16, "dropout": 0.3, "reg": 0.01}

    class Config(TrainSettings, IdSettings, ContentSettings):
        """Settings of bm3."""

        dim: PositiveInt = 64
        """Width D of user and item vectors."""
        layers: NonNegativeInt = 1
        """Propagations over the interaction graph."""
        dropout: Rate = 0.5
        """On the target views."""
        contrast: NonNegativeFloat = 2.0
        """Weight of the terms of content."""
        reg: NonNegativeFloat = 0.1
        """Weight of the norms, not squared, of all propagated users and items, over the number of items."""
        features: Literal["trained", "frozen"] = "trained"
        """Whether content vectors are parameters."""
        cold: Literal["none", "content"] = "none"
        """What stands for an item without a training event: nothing, or what its content predicts (an extension)."""

    met: Tensor
    adjacency: Tensor
    degrees: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        id_tables(self, config, sizes, given)
        id_graph(self, sizes, given)
        self.register_buffer("met", met_in(given, sizes), persistent=False)
        self.content = Modalities(*given.content(config.vectors), config.dim, trained=config.features == "trained")
        for module in self.content.maps:
            nn.init.xavier_normal_(module.weight)  # type: ignore[arg-type]
        self.predictor = nn.Linear(config.dim, config.dim)
        nn.init.xavier_normal_(self.predictor.weight)

    @classmethod
    def abilities(cls, config: Any) -> Can:
        return cls.can.but({"cold_items": config.cold == "content"})

    def batcher(self, log: Log, seed: int, rank: int, world: int) -> Batcher:
        return PairBatcher(log, self.config.batch, 0, seed, rank, world)

    def nodes(self) -> tuple[Tensor, Tensor]:
        """(U, D), (N, D): the mean over layers, and for items their own vector once more."""
        users, items = mean_of_tables(self.adjacency, self.users, self.items, self.config.layers)
        return users, items + self.items

    def target(self, vectors: Tensor) -> Tensor:
        """The view that is looked at and not moved: without gradient, dropped out."""
        return dropout(vectors.detach(), self.config.dropout)

    def loss(self, batch: Pairs) -> Tensor:
        c, (users, items) = self.config, self.nodes()
        u, i = rows(users, batch.users), rows(items, batch.items)
        target = self.target(i)
        total = away(self.predictor(u), target).mean() + away(self.predictor(i), self.target(u)).mean()
        for place in range(len(self.content.names)):
            e = self.content(place, batch.items)
            online, has = self.predictor(e), self.content.has(place, batch.items)
            total = total + c.contrast * (mean_where(away(online, target), has) + mean_where(away(online, self.target(e)), has))
        return total + c.reg * emb_loss(users, items)

    def tables(self) -> tuple[Tensor, Tensor]:
        users, items = self.nodes()
        seen = users.abs().sum(1, keepdim=True) > 0
        answers = self.predictor(items)
        if self.config.cold == "content":
            answers = torch.where(self.met[:, None], answers, self.predicted() * answers[self.met].norm(dim=1).mean())
        return self.predictor(users) * seen, answers

    def predicted(self) -> Tensor:
        """(N, D) directions that content predicts: the mean over kinds an item has; 0 where it has none."""
        kinds = range(len(self.content.names))
        return F.normalize(sum(F.normalize(self.predictor(self.content(n)), dim=1) * self.content.has(n)[:, None] for n in kinds), dim=1)  # type: ignore[arg-type]

    def prepare(self) -> None:
        super().prepare()
        self._folding = folding_of(self, torch.cat([self.users, self.items]), self.config.layers)

    def fold_in(self, histories: Sets) -> Tensor:
        vectors: Tensor = self.predictor(fold(self._folding, histories))
        return vectors

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        content = sum(sizes.vectors.values()) * sizes.items * 4 * (5 if config.features == "trained" else 1)
        return 20 * (sizes.users + sizes.items) * config.dim + content + 40 * events


def away(online: Tensor, target: Tensor) -> Tensor:
    """1 - cosine of rows (B, D), (B, D) -> (B,)"""
    return 1 - F.cosine_similarity(online, target, dim=-1)
