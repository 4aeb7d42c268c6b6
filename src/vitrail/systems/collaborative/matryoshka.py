"""Matryoshka representations (MRL). Kusupati et al., NeurIPS 2022, arXiv:2205.13147. The paper's heads are linear classifiers over classes; here the
classes are items, whose own vectors are the one head of all widths (its efficient form, MRL-E, without a bias), and each prefix is brought to length 1
after it is cut. This is the plain pair of id towers under that loss; any two-tower, graph or next-item system has it as the setting `nested`
(`vitrail fit sasrec --set nested=[8,16,32,64]`). Losses are summed, not averaged, as in the paper. Users never seen are not answered. Served at any
width: `load(RUN, dim=16)`, or `vitrail index build RUN --dim 16`, through which a shortlist is found that the full vectors rank (docs/nested.md).
Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from vitrail.blocks.embed import rows
from vitrail.blocks.nested import halvings
from vitrail.config import PositiveFloat, PositiveInt
from vitrail.data.schema import Needs
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, id_tables
from vitrail.systems.sampling import Loss
from vitrail.systems.skeletons import TwoTower


@system("matryoshka", stage="retrieve", family="collaborative", paper="2205.13147", year=2022, status="works")
class Matryoshka(TwoTower, IdTables):
    """Vectors of users and items of which every prefix, from 8 numbers on, answers by itself."""

    needs = Needs(given=("interactions",))
    toy: ClassVar[dict[str, Any]] = {"dim": 16, "smallest": 8}

    class Config(TwoTower.Config, IdSettings):
        """Settings of matryoshka."""

        smallest: PositiveInt = 8
        """The narrowest prefix that is trained, where `nested` names none: dim is halved down to it."""
        loss: Loss = "full_softmax"
        """What the training minimises, at every width."""
        cosine: bool = True
        """Score by cosine: prefixes are brought to length 1 after they are cut."""
        temperature: PositiveFloat = 0.1
        """Divides the scores in the softmax losses."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        id_tables(self, config, sizes, given)

    @property
    def widths(self) -> tuple[int, ...]:
        return self.config.nested or halvings(self.config.dim, self.config.smallest)

    def user(self, users: Tensor) -> Tensor:
        return rows(self.users, users)

    def item(self, items: Tensor | None = None) -> Tensor:
        return self.items if items is None else F.embedding(items, self.items)
