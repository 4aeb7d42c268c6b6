"""Pages shown in the simulated shop by a policy that explores, with clicks whose chances are known: the truth for off-policy estimates.

A person looks at place l with a chance that falls down the page, and clicks what is looked at with the sigmoid of the true utility.
Letters: U users, A items on offer, R requests, L places of a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.config import NonNegativeInt, PositiveInt, Settings, Share

if TYPE_CHECKING:
    from vitrail.data.dataset import Dataset

Float = npt.NDArray[np.float64]


class BanditSettings(Settings):
    """What is shown to whom."""

    requests: PositiveInt = 5_000
    """Pages shown, R."""
    users: PositiveInt = 200
    """People who ask, U."""
    items: PositiveInt = 50
    """Items on offer, A: the first of the catalogue."""
    places: PositiveInt = 3
    """Places of a page, L."""
    epsilon: Share = 0.3
    """Exploration of the logger, an epsilon-greedy policy over noisy utilities."""
    clicks: Share = 0.1
    """Mean click chance of an item that is looked at."""
    falls: Share = 0.7
    """Chance of looking at the next place, over that of looking at the one above."""
    seed: NonNegativeInt = 0
    """Seed of everything."""


@dataclass(frozen=True)
class World:
    """The truth behind a simulated log."""

    users: list[str]
    items: list[str]
    chance: Float
    """(U, A) click chance of an item that is looked at"""
    looks: Float
    """(L,) chance that a place is looked at"""
    scores: Float
    """(U, A) what the logger believes"""

    def value(self, target: Float) -> float:
        """Clicks an impression of a policy that shows item a at place l with chance `target`: (A,), (L, A) or (U, L, A)."""
        each = np.broadcast_to(target, (len(self.users), len(self.looks), len(self.items)))
        return float(np.einsum("ula,ua,l->", each, self.chance, self.looks) / (len(self.users) * len(self.looks)))


def make_world(dataset: Dataset, settings: BanditSettings) -> World:
    """The truth of a simulated shop seen as a bandit. Raises DataError where `dataset` was not simulated."""
    from vitrail.data.simulate import true_utility

    users, items = dataset.user_ids.ids[: settings.users].to_list(), dataset.item_ids.ids[: settings.items].to_list()
    utility = true_utility(dataset, users, items).astype(np.float64)
    low, high = -50.0, 50.0
    for _ in range(60):  # the level at which the mean chance is as asked
        level = (low + high) / 2
        low, high = (level, high) if _sigmoid(utility + level).mean() < settings.clicks else (low, level)
    noise = np.random.default_rng((settings.seed, 1)).normal(0.0, 1.0, utility.shape)
    return World(users, items, _sigmoid(utility + low), np.power(settings.falls, np.arange(settings.places, dtype=np.float64)), utility + noise)


def _sigmoid(x: Float) -> Float:
    return 1.0 / (1.0 + np.exp(-x))


def simulate_bandit(dataset: Dataset, settings: BanditSettings | None = None) -> tuple[pl.DataFrame, World]:
    """A log of impressions (the columns of evaluation.bandit_log, and `conditional`, the chance given the items above), and its truth."""
    from vitrail.systems.policy import Choice, find_policy

    settings = settings or BanditSettings()
    world = make_world(dataset, settings)
    rng = np.random.default_rng((settings.seed, 2))
    asks = rng.integers(len(world.users), size=settings.requests)
    order = np.argsort(-world.scores, axis=1, kind="stable")[asks]
    cls = find_policy("epsilon-greedy")
    policy: Any = cls(cls.Config.of({"epsilon": settings.epsilon}))
    action = policy.act(Choice(np.take_along_axis(world.scores[asks], order, axis=1)), settings.places, rng)
    shown = action.places >= 0
    codes = np.take_along_axis(order, np.maximum(action.places, 0), axis=1)
    looked = rng.random(codes.shape) < world.looks
    clicked = looked & (rng.random(codes.shape) < world.chance[asks[:, None], codes])
    row, place = np.nonzero(shown)
    impressions = pl.DataFrame(
        {
            "request_id": pl.Series(row).cast(pl.String),
            "user": pl.Series(world.users, dtype=pl.String).gather(asks[row]),
            "item": pl.Series(world.items, dtype=pl.String).gather(codes[shown]),
            "position": place.astype(np.int64) + 1,
            "clicked": clicked[shown].astype(np.float64),
            "propensity": action.marginal[shown],
            "conditional": action.conditional[shown],
        }
    )
    return impressions, world
