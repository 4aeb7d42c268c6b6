"""NGCF. Wang et al., SIGIR 2019, arXiv:1905.08108. `form=code` is the authors' layer (two activations, the un-normalised vector
goes on, biases drawn as weights are), `form=paper` the published equation as RecBole has it, its biases, which the equation lacks,
learned from 0; the paper's graph is `propagation=symmetric`. Every training event once an epoch; the authors draw users. Their node
dropout, off by default, is left out. Users never seen in training are an extension of ours: they pass through the same layers with
their own layer 0 at zero. Numbers: none yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vitrail.blocks.embed import bag, rows
from vitrail.blocks.graph import bilinear_layer, bipartite_adjacency, propagate, two_sided_layer
from vitrail.config import NonNegativeFloat, PositiveInt, Rate
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, id_tables
from vitrail.systems.skeletons import Graph


@system("ngcf", stage="retrieve", family="collaborative", paper="1905.08108", year=2019, status="works")
class NGCF(Graph, IdTables):
    """User and item vectors passed through weighted, non-linear layers over the interaction graph."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True)
    toy: ClassVar[dict[str, Any]] = {"epochs": 16}

    class Config(Graph.Config, IdSettings):
        """Settings of ngcf."""

        layers: PositiveInt = 3
        """Layers L; vectors that answer are dim * (L + 1) wide."""
        form: Literal["code", "paper"] = "code"
        """The layer of the authors' code or that of their paper."""
        propagation: Literal["norm", "ngcf", "gcmc", "plain", "symmetric"] = "norm"
        """D^-1 (A + I), D^-1 A + I, D^-1 A, A (the authors' names), or D^-1/2 A D^-1/2."""
        dropout: Rate = 0.1
        """On messages."""
        l2: NonNegativeFloat = 1e-5
        """Weight of the regulariser on the vectors that answer."""

    adjacency: Tensor
    degrees: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        id_tables(self, config, sizes, given)
        self.linear = nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in range(config.layers))
        self.bilinear = nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in range(config.layers))
        for module in [*self.linear, *self.bilinear]:
            nn.init.xavier_uniform_(module.weight)  # type: ignore[arg-type]
            # drawn as weights are, a bias is far longer than the vectors beside it, and for epochs all nodes look alike
            (nn.init.xavier_uniform_ if config.form == "code" else nn.init.zeros_)(module.bias[None])  # type: ignore[index]
        even = config.propagation == "symmetric"
        self.register_buffer("adjacency", bipartite_adjacency(given.indptr, given.items, sizes.items, normalise=even), persistent=False)
        self.register_buffer("degrees", self.adjacency.crow_indices().diff()[:, None].float(), persistent=False)

    def mix(self, total: Tensor, own: Tensor, degrees: Tensor) -> Tensor:
        """What neighbours sent in sum (V, D), which is overwritten, a node's own vector (V, D) and its degree (V, 1) -> what its layer reads (V, D)."""
        kind = self.config.propagation
        if kind == "norm":
            return total.add_(own).mul_(1 / (degrees + 1))
        if kind in ("ngcf", "gcmc"):
            total.div_(degrees.clamp(min=1))
        return total.add_(own) if kind == "ngcf" else total

    def layer(self, n: int, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors x (V, D) and what their neighbours send s (V, D) -> (what goes on (V, D), what answers (V, D), rows of length 1)."""
        one, two = self.linear[n], self.bilinear[n]
        rate = self.config.dropout if self.training else 0.0
        if self.config.form == "paper":
            unit = bilinear_layer(x, s, one.weight, two.weight, one.bias + two.bias, slope=0.2, dropout=rate)  # type: ignore[arg-type,operator]
            return unit, unit
        return two_sided_layer(x, s, one.weight, two.weight, one.bias, two.bias, slope=0.2, dropout=rate)  # type: ignore[arg-type]

    def _below(self) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """What each layer reads of a node itself, L of (V, D); what answers below the last layer, L of (V, D); what the last reads of neighbours (V, D)."""
        x = torch.cat([self.users, self.items])
        inner, answers = [x], [x]
        for n in range(self.config.layers - 1):
            x, unit = self.layer(n, x, self._sum(x))
            inner.append(x)
            answers.append(unit)
        return inner, answers, self._sum(x)

    def _sum(self, x: Tensor) -> Tensor:
        return self.mix(propagate(self.adjacency, x), x, self.degrees)

    def _passes(self) -> tuple[list[Tensor], Tensor]:
        inner, answers, s = self._below()
        x, unit = self.layer(self.config.layers - 1, inner[-1], s)
        return [*inner, x], torch.cat([*answers, unit], 1)

    def nodes(self) -> tuple[Tensor, Tensor]:
        users, items = self._passes()[1].split([len(self.users), len(self.items)])  # the gradient of a split is one copy
        return users * (self.degrees[: len(users)] > 0), items

    def loss(self, batch: Pairs) -> Tensor:
        if self.config.loss == "full_softmax" or self.log_q is not None:
            return super().loss(batch)
        # nobody reads the last layer but the nodes of the batch: it is passed for them alone, and no table of all answers is made
        users, at_users = batch.users.unique(return_inverse=True)
        items, at_items = torch.cat([batch.items, batch.negatives.flatten()]).unique(return_inverse=True)
        inner, below, s = self._below()
        read = torch.cat([users, items + len(self.users)])
        own, sent, *answers = [rows(x, read) for x in (inner[-1], s, *below)]
        both = torch.cat([*answers, self.layer(self.config.layers - 1, own, sent)[1]], 1)
        first, negatives = at_items.split([len(batch.items), batch.negatives.numel()])
        return self.loss_at(
            (both[: len(users)], both[len(users) :]), replace(batch, users=at_users, items=first, negatives=negatives.view_as(batch.negatives))
        )

    def ridge(self) -> float:
        return float(self.config.l2)

    def prepare(self) -> None:
        super().prepare()
        users, even = len(self.users), self.config.propagation == "symmetric"
        # where the graph's own weights hold the degrees, an item sends its vector over the square root of its own
        self._sent = [x[users:] / self.degrees[users:].clamp(min=1).sqrt() if even else x[users:] for x in self._below()[0]]

    def fold_in(self, histories: Sets) -> Tensor:
        degrees = histories.lengths[:, None].float()
        share = degrees.clamp(min=1).rsqrt() if self.config.propagation == "symmetric" else 1.0
        x = torch.zeros(len(histories), self.config.dim, device=histories.items.device)
        answers = [x]
        for n, sent in enumerate(self._sent):
            x, unit = self.layer(n, x, self.mix(share * bag(sent, histories.items, histories.indptr), x, degrees))
            answers.append(unit)
        return torch.cat(answers, 1)

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        # the vectors of a batch are those of all layers side by side, and a layer holds two products beside its own
        beside = 48 * config.batch * config.dim + 8 * (sizes.users + sizes.items) * config.dim
        return super().memory(config, sizes, events) + beside * config.layers
