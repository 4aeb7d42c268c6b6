"""NeuMF and, by `form`, GMF and MLP alone. He et al., WWW 2017, arXiv:1708.05031. With `pretrain` both halves are trained apart in the first epochs, side by
side, then joined by halving both output layers (RecBole halves the bias alone), and Adam goes on where the paper changes to SGD. The loss is the mean
over positives and sampled negatives; L2 is on the batch's vectors. Ranks are by logits: a sigmoid saturates into ties. A weak retriever, and says so:
put a tuned inner product beside it. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.blocks.drop import Dropout
from vitrail.blocks.embed import rows, table
from vitrail.blocks.loss import l2_of_batch
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveInt, Rate
from vitrail.data.batches import Pairs
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.pair_scorer import PairScorer
from vitrail.systems.sampling import Loss, only_loss


@system("neumf", stage="retrieve", family="collaborative", paper="1708.05031", year=2017, status="works")
class NeuMF(PairScorer):
    """A weighted product of vectors and a tower over them, added: scores that are no inner product."""

    space: ClassVar[dict[str, Any]] = {"layers": None, "pretrain": None}
    toy: ClassVar[dict[str, Any]] = {"layers": [8, 4], "epochs": 30, "dim": 8, "pretrain": 10}

    class Config(PairScorer.Config):
        """Settings of neumf."""

        form: Literal["neumf", "gmf", "mlp"] = "neumf"
        """Both halves, or one of them."""
        loss: Loss = "bce"
        """What the training minimises; this system knows bce alone."""
        negatives: PositiveInt = 4
        """Sampled items K beside each positive."""
        batch: PositiveInt = 256
        """Pairs a step."""
        dim: PositiveInt = 8
        """Width of the vectors that are multiplied."""
        layers: tuple[PositiveInt, ...] = (64, 32, 16, 8)
        """Widths of the tower; the first is both of its vectors together, so that each has half of it."""
        dropout: Rate = 0.0
        """Before every layer of the tower."""
        pretrain: NonNegativeInt = 0
        """Epochs in which both halves are trained apart."""
        l2: NonNegativeFloat = 0.0
        """Weight of the regulariser on the batch's vectors."""
        init_scale: float = 0.01
        """Standard deviation that vectors start with."""

    apart: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        only_loss("neumf", config, "bce")
        if not config.layers or config.layers[0] % 2:
            raise SettingError(f"layers={list(config.layers)}: the first width is that of a user's and an item's vector together, so name one that is even.")
        c, half = config, config.layers[0] // 2
        self.users, self.items = (table(n, c.dim, "normal", c.init_scale) for n in (sizes.users, sizes.items))
        self.tower_users, self.tower_items = (table(n, half, "normal", c.init_scale) for n in (sizes.users, sizes.items))
        self.tower = nn.ModuleList(nn.Linear(a, b) for a, b in zip(c.layers, c.layers[1:], strict=False))
        self.dropout = Dropout(c.dropout)
        self.product_out, self.tower_out = nn.Linear(c.dim, 1), nn.Linear(c.layers[-1], 1)
        for out in (self.product_out, self.tower_out):
            bound = (3 / out.in_features) ** 0.5  # LeCun uniform
            nn.init.uniform_(out.weight, -bound, bound)
            nn.init.zeros_(out.bias)
        self.register_buffer("apart", torch.tensor(c.form == "neumf" and c.pretrain > 0))

    def climb(self, users: Tensor, items: Tensor) -> Tensor:
        """Vectors of users and of items, whose leading shapes broadcast -> what comes out of the tower. The first layer is linear in both sides, so that it
        is made once a user and once an item, however many pairs there are."""
        if not self.tower:
            users, items = torch.broadcast_tensors(users, items)
            return torch.cat([users, items], -1)
        first, *rest = self.tower
        one, two = first.weight.chunk(2, 1)  # type: ignore[operator]
        h = torch.relu(self.dropout(users) @ one.T + self.dropout(items) @ two.T + first.bias)
        for layer in rest:
            h = torch.relu(layer(self.dropout(h)))
        return h

    def halves(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """The logits of each half that there is."""
        made: list[Tensor] = []
        if self.config.form != "mlp":
            made.append(self.product_out(rows(self.users, users) * rows(self.items, items))[..., 0])
        if self.config.form != "gmf":
            made.append(self.tower_out(self.climb(rows(self.tower_users, users), rows(self.tower_items, items)))[..., 0])
        return made

    def pair_scores(self, users: Tensor, items: Tensor) -> Tensor:
        """The sum of both halves; their mean while they are apart, which is what they will be joined to."""
        return torch.stack(self.halves(users, items)).sum(0) * (0.5 if self.apart else 1.0)

    def loss(self, batch: Pairs) -> Tensor:
        items = torch.cat([batch.items[:, None], batch.negatives], 1)
        halves = self.halves(batch.users[:, None], items)
        label = torch.zeros_like(halves[0])
        label[:, 0] = 1.0
        logits = halves if self.apart else [torch.stack(halves).sum(0)]
        value = torch.stack([nn.functional.binary_cross_entropy_with_logits(each, label) for each in logits]).sum()
        if self.config.l2:
            pairs = ((self.users, self.items), (self.tower_users, self.tower_items))
            value = value + self.config.l2 * sum((l2_of_batch(rows(u, batch.users), rows(i, items)) for u, i in pairs), start=value.new_zeros(()))
        return value

    def on_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        """Join the halves once they were trained apart: the scores stay what they are."""
        if self.apart and epoch >= self.config.pretrain:
            with torch.no_grad():
                for parameter in (*self.product_out.parameters(), *self.tower_out.parameters()):
                    parameter.mul_(0.5)
            self.apart.fill_(False)

    def item(self) -> Tensor:
        return {"gmf": self.items, "mlp": self.tower_items}.get(self.config.form, torch.cat([self.items, self.tower_items], 1))
