"""SimGCL and, with `form=xsimgcl`, XSimGCL. Yu et al., SIGIR 2022, arXiv:2112.08679, and TKDE 2023, arXiv:2209.02544. BPR as
softplus instead of the authors' log(1e-5 + sigmoid), which flattens hard triples; the penalty is theirs: un-squared norms of the
batch's propagated rows. Users never seen in training are an extension of ours, as in lightgcn. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from vitrail.blocks.graph import nudge, propagate
from vitrail.blocks.loss import emb_loss, info_nce
from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt
from vitrail.data.batches import Pairs, Sets
from vitrail.data.schema import Needs
from vitrail.errors import SettingError
from vitrail.systems.base import Can, Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, fold, folding, id_graph, id_tables
from vitrail.systems.skeletons import Graph


@system("simgcl", stage="retrieve", family="collaborative", paper="2112.08679", year=2022, status="works")
class SimGCL(Graph, IdTables):
    """LightGCN without layer 0, and a contrastive loss between views whose layers are nudged by small noise."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True)
    space: ClassVar[dict[str, Any]] = {
        "contrast": {"low": 1e-5, "high": 3.0, "log": True},  # on a small and dense catalogue the best is far below that of the paper's data
        "noise": {"low": 0.01, "high": 0.5, "log": True},
        "contrast_temperature": {"low": 0.1, "high": 0.5},
    }
    toy: ClassVar[dict[str, Any]] = {"contrast": 0.05, "epochs": 25}

    class Config(Graph.Config, IdSettings):
        """Settings of simgcl."""

        form: Literal["simgcl", "xsimgcl"] = "simgcl"
        """Two noisy views beside a clean pass, or one noisy pass whose layer `view` is the other view."""
        layers: PositiveInt = 3
        """Propagations L; answers are the mean of layers 1 to L."""
        view: PositiveInt = 1
        """The layer that is contrasted with the mean (xsimgcl)."""
        contrast: NonNegativeFloat = 0.5
        """Weight of the contrastive loss."""
        noise: NonNegativeFloat = 0.1
        """Length of the step that every vector is nudged by in every layer."""
        contrast_temperature: PositiveFloat = 0.2
        """Divides the cosines of the contrastive loss."""
        l2: NonNegativeFloat = 1e-4
        """Weight of the penalty: norms of the batch's users and of its items, not squared, over the number of rows."""

    adjacency: Tensor
    degrees: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        if config.form == "xsimgcl" and config.view > config.layers:
            raise SettingError(f"view={config.view} is no layer of {config.layers}: choose 1 to {config.layers}.")
        id_tables(self, config, sizes, given)
        id_graph(self, sizes, given)

    def passes(self, noise: float) -> list[Tensor]:
        """Layers 1 to L, each (U + N, D); with `noise` every row of every layer is moved by it, and passed on so."""
        x, out = torch.cat([self.users, self.items]), []
        for _ in range(self.config.layers):
            x = propagate(self.adjacency, x)
            x = nudge(x, noise) if noise else x
            out.append(x)
        return out

    def split(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """(U + N, D) -> (U, D), (N, D)"""
        return nodes[: len(self.users)], nodes[len(self.users) :]

    def nodes(self) -> tuple[Tensor, Tensor]:
        x = self.config.form == "xsimgcl"
        # the view is kept for the loss: one noisy pass serves both
        self._inner = self.passes(self.config.noise if x and self.training else 0.0)
        return self.split(torch.stack(self._inner).mean(0))

    def loss_at(self, step: tuple[Tensor, Tensor], batch: Pairs) -> Tensor:
        try:
            return super().loss_at(step, batch)
        finally:
            self._inner = []  # lets go of the step's graph

    def _views(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        if self.config.form == "xsimgcl":
            return self._step, self.split(self._inner[self.config.view - 1])
        one, two = (self.split(torch.stack(self.passes(self.config.noise)).mean(0)) for _ in range(2))
        return one, two

    def regulariser(self, batch: Pairs) -> Tensor | float:
        """The contrastive loss and the penalty."""
        c = self.config
        total = c.l2 * emb_loss(self.user(batch.users), self.item(batch.items))
        if c.contrast:
            one, two = self._views()
            # an id twice would be its own false negative
            for side, ids in enumerate((batch.users.unique(), batch.items.unique())):
                total = total + c.contrast * info_nce(one[side][ids], two[side][ids], c.contrast_temperature)
        return total

    def prepare(self) -> None:
        super().prepare()
        below = [torch.cat([self.users, self.items]), *self._inner[:-1]]
        self._folding = folding(below, len(self.users), self.degrees, len(below))
        self._inner = []

    def fold_in(self, histories: Sets) -> Tensor:
        return fold(self._folding, histories)
