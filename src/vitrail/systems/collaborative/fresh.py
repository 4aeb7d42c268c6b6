"""Fresh: the newest items, by their first event in training. No paper; a source for people of whom nothing is known, and for items too new to have been
learned. In a funnel file an attribute of the catalogue can tell the date instead (`date: released`), which also reaches items without an event.
Numbers: none yet."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vitrail.config import PositiveInt, Settings
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, System, system
from vitrail.systems.skeletons import Table


@system("fresh", stage="retrieve", family="collaborative", status="works")
class Fresh(Table):
    """The newest items, by their first event."""

    needs = Needs(timestamp=True)
    can: ClassVar[Can] = Can(new_users=True, similar=False, personal=False)

    class Config(Settings):
        """Settings of fresh."""

        least: PositiveInt = 1
        """Events an item must have, so that what nobody took twice does not lead."""

    def fit(self, interactions: Log) -> Tensor:
        """(N,) scores: the place of an item in the order of first events; items with fewer events than asked come below 0, by their number."""
        log = interactions
        assert log.times is not None, "needs.timestamp promises times"
        first = np.full(log.n_items, np.iinfo(np.int64).max)
        np.minimum.at(first, log.items, log.times)
        counts = log.item_counts
        enough = counts >= self.config.least  # type: ignore[attr-defined]
        # equal times get an equal place, so that ties stay ties; places are small numbers, which float32 holds exactly
        place = np.unique(first, return_inverse=True)[1].astype(np.float64)
        return torch.from_numpy(np.where(enough, place, -1.0 / (1.0 + counts)))

    def similarity(self, items: Tensor) -> Tensor:
        return System.similarity(self, items)  # one score per item is no similarity: refuses
