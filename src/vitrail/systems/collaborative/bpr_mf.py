"""BPR-MF. Rendle et al., UAI 2009, arXiv:1205.2618. Adam instead of the paper's plain SGD, as in RecBole and LightGCN's
code; the regulariser is on the batch's vectors. Numbers: recipes/bpr-mf.*.yaml."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from vitrail.blocks.embed import Init, rows
from vitrail.config import NonNegativeFloat
from vitrail.data.schema import Needs
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.ids import IdSettings, IdTables, id_tables
from vitrail.systems.skeletons import TwoTower


@system("bpr-mf", stage="retrieve", family="collaborative", paper="1205.2618", year=2009, status="measured")
class BPRMF(TwoTower, IdTables):
    """Matrix factorisation trained to rank a user's items above others."""

    needs = Needs(given=("interactions",))
    ready: ClassVar[bool] = True

    class Config(TwoTower.Config, IdSettings):
        """Settings of bpr-mf."""

        l2: NonNegativeFloat = 1e-4
        """Weight of the regulariser."""
        init: Init = "normal"
        """How vectors start."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        id_tables(self, config, sizes, given)

    def user(self, users: Tensor) -> Tensor:
        return rows(self.users, users)

    def item(self, items: Tensor | None = None) -> Tensor:
        return self.items if items is None else rows(self.items, items)

    def ridge(self) -> float:
        return float(self.config.l2)
