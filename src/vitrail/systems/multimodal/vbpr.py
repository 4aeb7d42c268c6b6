"""VBPR. He and McAuley, AAAI 2016, arXiv:1510.01784. The loss is the paper's over the batch, which Adam does not notice. `form=mmrec` is the variant of the
MMRec tables, without biases and with one user vector for both halves. An item without content has a content half of 0 in both (MMRec gives it the bias
alone). An item without a training event starts, and stays, without id vector and bias: it answers by its content. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vitrail.blocks.embed import Init, rows, table
from vitrail.blocks.loss import emb_loss, l2_of_batch
from vitrail.blocks.modality import side_by_side
from vitrail.config import NonNegativeFloat, PositiveInt
from vitrail.data.batches import Pairs
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, system
from vitrail.systems.ids import IdSettings, met_in, zero_unmet
from vitrail.systems.skeletons import TwoTower, zero_absent


@system("vbpr", stage="retrieve", family="multimodal", paper="1510.01784", year=2016, status="works")
class VBPR(TwoTower):
    """BPR-MF whose items have a second vector, projected from their content."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(cold_items=True)
    space: ClassVar[dict[str, Any]] = {"l2": [1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5]}
    toy: ClassVar[dict[str, Any]] = {"content_dim": 4, "l2": 1e-3, "standardise": True}

    class Config(TwoTower.Config, IdSettings, ContentSettings):
        """Settings of vbpr."""

        form: Literal["paper", "mmrec"] = "paper"
        """Item biases, one from the id and one from content, and factors alone; or no bias of items and one of the projection."""
        dim: PositiveInt = 64
        """Width of the vectors of ids."""
        content_dim: PositiveInt = 64
        """Width of the projected content."""
        l2: NonNegativeFloat = 0.01
        """Weight of the penalty on the batch's factors: half their squared norms (paper), or the norms (mmrec)."""
        l2_bias: NonNegativeFloat = 0.01
        """Weight of the penalty on item biases (paper)."""
        l2_content: NonNegativeFloat = 0.0
        """Weight of the penalty on the projection and the bias from content (paper)."""
        standardise: bool = False
        """Centre each kind of content and make all kinds equally long; off, the longest one leads."""
        init: Init = "xavier"
        """How vectors start."""

    content: Tensor
    has: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None
        met, (vectors, masks) = met_in(given, sizes), given.content(config.vectors)
        self.users = table(sizes.users, config.dim + config.content_dim, config.init, config.init_scale)
        self.items = table(sizes.items, config.dim, config.init, config.init_scale)
        zero_absent(self.users, given.indptr)
        zero_unmet(self.items, met)
        self.register_buffer("content", side_by_side(vectors, masks, met if config.standardise else None), persistent=False)
        self.register_buffer("has", torch.stack(list(masks.values())).any(0)[:, None], persistent=False)
        self.project = nn.Linear(self.content.shape[1], config.content_dim, bias=config.form == "mmrec")
        if config.form == "mmrec":
            nn.init.xavier_normal_(self.project.weight)
            nn.init.zeros_(self.project.bias)
        else:
            nn.init.xavier_uniform_(self.project.weight)
            self.bias = nn.Parameter(torch.zeros(max(sizes.items, 1), 1))
            self.lean = nn.Parameter(torch.zeros(self.content.shape[1], 1))  # b': one bias of all content

    def user(self, users: Tensor) -> Tensor:
        own = rows(self.users, users)
        if self.config.form == "mmrec":
            return own
        # the last place is for the biases of items; a person without training events keeps a row of zeros
        return torch.cat([own, own.detach().any(-1, keepdim=True).to(own.dtype)], -1)

    def item(self, items: Tensor | None = None) -> Tensor:
        items = torch.arange(self.sizes.items, device=self.content.device) if items is None else items
        codes, where = items.unique(return_inverse=True)  # each item of a batch is projected once
        content = self.content[codes]
        halves = [rows(self.items, items), rows(self.project(content) * self.has[codes], where)]
        if self.config.form == "paper":
            halves.append(rows(self.bias, items) + rows(content @ self.lean, where))
        return torch.cat(halves, -1)

    def regulariser(self, batch: Pairs) -> Tensor | float:
        c = self.config
        both = torch.stack([batch.items, batch.negatives[..., 0].expand_as(batch.items)])
        if c.form == "mmrec":
            return c.l2 * emb_loss(self.user(batch.users), *self.item(both))
        total = c.l2 * l2_of_batch(rows(self.users, batch.users), rows(self.items, both))
        if c.l2_bias:
            total = total + c.l2_bias * l2_of_batch(rows(self.bias, both)) * 2 / len(batch.items)
        if c.l2_content:
            total = total + c.l2_content * (self.project.weight.square().sum() + self.lean.square().sum()) / 2 / len(batch.items)
        return total

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        return super().memory(config, sizes, events) + 4 * sum(sizes.vectors.values()) * (2 * sizes.items + 6 * config.batch)
