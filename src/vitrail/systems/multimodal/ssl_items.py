"""SSL for large-scale items. Yao et al., CIKM 2021, arXiv:2007.12865; the authors published no code. Two towers over what the catalogue says of items
(categories, lists of them, flags, numbers in buckets, the id), and a contrast of two views of items drawn uniformly, each of which hides the features
that the other shows. From memory: that floor(F / 2) features are hidden beside the seed, and the batch. In-batch negatives are drawn instead by
popularity for the whole batch, which is the same law, with logQ correction and without accidental hits. Differs: AdamW, not Adagrad; the query tower
reads the user's id; a masked feature is a learned vector of that feature. Extensions: items without a training event hide their id; people never seen
ask by the mean of what they had."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.blocks.embed import bag, rows, table
from vitrail.blocks.features import ListTable
from vitrail.blocks.loss import info_nce
from vitrail.blocks.masking import Masking, correlations, hidden
from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt, Rate
from vitrail.data.batches import Pairs, Sets
from vitrail.data.item_facts import ATTRIBUTE
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, Given, Sizes, system
from vitrail.systems.sampling import Loss
from vitrail.systems.skeletons import TwoTower, zero_absent

SCALE = 0.1
"""Standard deviation with which vectors of features start."""


@system("ssl-items", stage="retrieve", family="multimodal", paper="2007.12865", year=2021, status="works")
class SSLItems(TwoTower):
    """Two towers whose items are their attributes, held together by a contrast of views that hide what belongs together."""

    needs = Needs(given=("interactions", "attributes"))
    can: ClassVar[Can] = Can(new_users=True, cold_items=True)
    space: ClassVar[dict[str, Any]] = {"alpha": [0.1, 0.3, 1.0, 3.0], "ssl_temperature": [0.07, 0.1, 0.2, 0.5], "value_dropout": [0.1, 0.2, 0.4]}
    toy: ClassVar[dict[str, Any]] = {"dim": 8, "width": 8, "hidden": [16], "negatives": 16, "epochs": 30, "lr": 0.02}

    class Config(TwoTower.Config):
        """Settings of ssl-items."""

        dim: PositiveInt = 128
        """Width D of user and item vectors."""
        width: PositiveInt = 64
        """Numbers of each feature's vector."""
        hidden: tuple[PositiveInt, ...] = (1024,)
        """Layers of each tower before the last."""
        ids: bool = True
        """The item's id is a feature too."""
        masking: Masking = "correlated"
        """Which features the two views hide: a drawn one with those that tell most of it, or a random half."""
        alpha: NonNegativeFloat = 0.1
        """Weight of the contrast of views; 0: plain two towers."""
        ssl_temperature: PositiveFloat = 0.1
        """Divides the cosines of the contrast."""
        value_dropout: Rate = 0.1
        """Share of the values of a list that a view leaves out."""
        loss: Loss = "sampled_softmax"
        """What the training minimises."""
        negatives: PositiveInt = 1024
        """Sampled items K beside each positive, for the whole batch."""
        shared_negatives: bool = True
        """Draw the K negatives once for the whole batch."""
        power: NonNegativeFloat = 1.0
        """Negatives are drawn with chance ~ count ** power."""
        batch: PositiveInt = 1024
        """Pairs a step."""
        cosine: bool = True
        """Score by cosine."""
        temperature: PositiveFloat = 0.1
        """Divides the scores in the softmax losses."""

    met: Tensor
    correlation: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        coded = [values for name, values in given.tables.items() if name.startswith(ATTRIBUTE)]
        for place, values in enumerate(coded):
            self.register_buffer(f"codes_{place}", values, persistent=False)
        self.tables_of = nn.ModuleList(ListTable(max(int(values.max()), 1) + 1, config.width, SCALE) for values in coded)
        count = len(coded) + config.ids
        self.ids = table(sizes.items, config.width, "normal", SCALE) if config.ids else None
        self.masked = nn.Parameter(torch.randn(count, config.width) * SCALE)
        self.users = table(sizes.users, config.width, "normal", SCALE)
        zero_absent(self.users, given.indptr)
        self.of_items, self.of_users = (tower(n * config.width, config.hidden, config.dim) for n in (count, 1))
        self.register_buffer("met", torch.bincount(given.items, minlength=sizes.items) > 0, persistent=False)
        kinds = [np.unique(values.numpy(), axis=0, return_inverse=True)[1].ravel() for values in coded]
        self.register_buffer("correlation", correlations([*kinds, *([np.arange(sizes.items)] if config.ids else [])]), persistent=False)

    def features(self, items: Tensor, hide: Tensor | None = None) -> Tensor:
        """Item codes (...,), hide (..., F) or none -> (..., F * width): the vectors of an item's features one after another."""
        dropped = self.config.value_dropout if hide is not None else 0.0
        found = []
        for place, values in enumerate(self.tables_of):
            codes = self.get_buffer(f"codes_{place}")[items]
            if dropped and codes.shape[-1] > 1:
                codes = codes * (torch.rand(codes.shape, device=codes.device) >= dropped)
            found.append(values(codes))
        unknown = torch.zeros((*items.shape, len(self.masked)), dtype=torch.bool, device=items.device) if hide is None else hide
        if self.ids is not None:
            found.append(rows(self.ids, items))
            unknown = torch.cat([unknown[..., :-1], unknown[..., -1:] | ~self.met[items][..., None]], -1)
        return torch.where(unknown[..., None], self.masked, torch.stack(found, -2)).flatten(-2)

    def user(self, users: Tensor) -> Tensor:
        vectors: Tensor = self.of_users(rows(self.users, users))
        return vectors

    def item(self, items: Tensor | None = None) -> Tensor:
        vectors: Tensor = self.of_items(self.features(torch.arange(self.sizes.items, device=self.masked.device) if items is None else items))
        return vectors

    def regulariser(self, batch: Pairs) -> Tensor | float:
        """The contrast of two views of items drawn from the catalogue, not from the batch: the tail is asked as often as the head."""
        if not self.config.alpha:
            return 0.0
        items = torch.randperm(self.sizes.items, device=self.masked.device)[: len(batch.users)]
        hide = hidden(len(items), self.correlation, self.config.masking)
        one, two = (self.of_items(self.features(items, mask)) for mask in (hide, ~hide))
        return self.config.alpha * info_nce(one, two, self.config.ssl_temperature)

    def tables(self) -> tuple[Tensor, Tensor]:
        users, items = super().tables()
        return users * (self.users[: len(users)].abs().sum(1, keepdim=True) > 0), items

    def fold_in(self, histories: Sets) -> Tensor:
        return bag(self._items, histories.items, histories.indptr)

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        tower_numbers = 20 * (config.width * config.hidden[0] * 8 if config.hidden else config.width * config.dim)
        return super().memory(config, sizes, events) + 20 * (sizes.users + sizes.items) * config.width + tower_numbers


def tower(width: int, hidden: tuple[int, ...], dim: int) -> nn.Sequential:
    """(..., width) -> (..., D) through layers with ReLU between."""
    sizes = (width, *hidden, dim)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
