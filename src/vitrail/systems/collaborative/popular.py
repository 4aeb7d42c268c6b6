"""Popular: the most popular items, of all time or with recent events counting more. No paper; a floor and a fallback.
The decay is this project's own addition (card base/popular): w * 2^(-age / half_life), age counted from the newest
training event, so that no clock is read. Numbers: recipes/popular.beauty.yaml."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from vitrail.config import PositiveFloat, Settings
from vitrail.data.log import Log
from vitrail.errors import DataError
from vitrail.systems.base import Can, System, system
from vitrail.systems.skeletons import Table

DAY = 86_400_000_000
"""Microseconds."""


def decayed_counts(log: Log, half_life: float | None, count: str) -> np.ndarray:
    """(N,) float64 scores: events, distinct users or summed weights of each item, halved every `half_life` days."""
    weights = np.ones(len(log)) if count != "weights" or log.weights is None else log.weights.astype(np.float64)
    if half_life is not None:
        if log.times is None:
            raise DataError('System "popular" with half_life needs clock times, and these data have none: leave it out, or ingest with --timestamp COLUMN.')
        weights = weights * np.exp2(-(log.times.max() - log.times) / (half_life * DAY))
    if count == "users":  # the newest event of each (user, item) pair, so a repeat never counts twice
        pairs = (log.users * log.n_items + log.items)[::-1]
        keep = np.zeros(len(log), dtype=bool)
        keep[len(log) - 1 - np.unique(pairs, return_index=True)[1]] = True
        return np.bincount(log.items[keep], weights=weights[keep], minlength=log.n_items)
    return np.bincount(log.items, weights=weights, minlength=log.n_items)


@system("popular", stage="retrieve", family="collaborative", status="measured")
class Popular(Table):
    """The most popular items, of all time or with recent events counting more."""

    can: ClassVar[Can] = Can(new_users=True, similar=False, personal=False)

    class Config(Settings):
        """Settings of popular."""

        count: Literal["events", "users", "weights"] = "events"
        """What is counted: events, distinct users, or the declared weights of events."""
        half_life: PositiveFloat | None = None
        """Days after which an event counts half; none: all time."""

    def fit(self, interactions: Log) -> Tensor:
        config: Any = self.config
        return torch.from_numpy(decayed_counts(interactions, config.half_life, config.count))

    def similarity(self, items: Tensor) -> Tensor:
        return System.similarity(self, items)  # one score per item is no similarity: refuses
