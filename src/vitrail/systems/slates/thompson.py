"""Thompson sampling over pages. Chapelle and Li, NeurIPS 2011; in-slate sampling of Eide, Leslie and Frigessi, Data Mining and Knowledge Discovery
2022, arXiv:2104.15046 (card ranking/bandits): place 1 shows the best item of the first draw, place 2 the best of the second that is not shown yet.
Posteriors: Beta over the click chance of an item from its counts, its prior centred on the score where scores are chances; or a normal one around
the score whose deviation falls with how often the item was seen. Differs from the original: no variational posterior is fitted here, the ranker's
score stands for its mean. Propensities: the marginal chance of each item at its place, by Monte Carlo over `draws` further pages with the page
shown counted in, (1 + hits) / (1 + draws), so none is 0; relative error about 1 / sqrt(hits). The conditional one is not told. Numbers: docs/slates.md."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt, Settings
from vitrail.errors import SettingError
from vitrail.systems.policy import Action, Choice, Policy, check_choice, policy
from vitrail.systems.slate import NOTHING, Float64, Int64


def in_slate(draws: Float64, k: int) -> Int64:
    """(..., k) pages from draws (..., k, K): of the list [best of draw 1, ..., best of draw k, second of draw 1, ...] the first k that differ."""
    width = draws.shape[-1]
    ranked = np.argsort(-draws, axis=-1, kind="stable")[..., : min(k, width)]
    order = np.swapaxes(ranked, -1, -2).reshape(*draws.shape[:-2], -1)  # rank by rank, draw by draw
    flat = order.reshape(-1, order.shape[-1])
    page = np.full((len(flat), k), NOTHING, dtype=np.int64)
    taken = np.zeros((len(flat), width), dtype=bool)
    filled = np.zeros(len(flat), dtype=np.int64)
    rows = np.arange(len(flat))
    for column in flat.T:
        fresh = ~taken[rows, column] & (filled < k)
        page[rows[fresh], filled[fresh]] = column[fresh]
        taken[rows, column] = True
        filled += fresh
        if (filled == min(k, width)).all():
            break
    return page.reshape(*draws.shape[:-2], k)


@policy("thompson", paper="2104.15046", year=2022, status="works")
class Thompson(Policy):
    """Shows what is best in a draw from what is believed of each item."""

    class Config(Settings):
        """Settings of thompson."""

        posterior: Literal["beta", "normal"] = "normal"
        """beta: click chances from counts; normal: around the score, as narrow as the item was seen often."""
        prior: PositiveFloat = 10.0
        """Impressions the prior of beta is worth."""
        mean: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
        """Click chance a priori; none: the item's score, which must then be a chance."""
        spread: NonNegativeFloat = 0.1
        """Deviation of a score never seen (normal), in deviations of the scores of its request."""
        in_slate: bool = True
        """A draw a place; else one draw orders the whole page."""
        draws: PositiveInt = 200
        """Further pages drawn to tell the propensities."""

    @property
    def exploration(self) -> float | None:
        return min(float(self.config.spread), 1.0) if self.config.posterior == "normal" else None

    def with_exploration(self, share: float) -> Policy:
        """The deviation of a score never seen, in deviations of the scores of its request; a beta posterior has its counts and no dial."""
        return Thompson(self.config.but({"spread": share})) if self.config.posterior == "normal" else super().with_exploration(share)

    def sampler(self, choice: Choice) -> Float64 | tuple[Float64, Float64]:
        """(B, K) parameters of the posterior: a and b of beta, or mean and deviation."""
        config = self.config
        there = np.isfinite(choice.scores)
        shown = np.zeros(choice.scores.shape) if choice.shown is None else np.asarray(choice.shown, dtype=np.float64)
        if config.posterior == "normal":
            mean = np.where(there, choice.scores, 0.0).astype(np.float64)
            deviation = np.where(there, mean, np.nan)
            with np.errstate(invalid="ignore"):
                scale = np.array([np.nanstd(row) if row_there.any() else 0.0 for row, row_there in zip(deviation, there, strict=True)])
            return mean, config.spread * scale[:, None] / np.sqrt(1.0 + shown)
        clicked = np.zeros(choice.scores.shape) if choice.clicked is None else np.asarray(choice.clicked, dtype=np.float64)
        mean = np.where(there, choice.scores, 0.5) if config.mean is None else np.full(choice.scores.shape, config.mean)
        if ((mean < 0) | (mean > 1)).any():
            raise SettingError("Thompson sampling with posterior beta takes scores that are chances, between 0 and 1: set mean, or use posterior normal.")
        mean = np.clip(mean, 1e-6, 1 - 1e-6)
        return config.prior * mean + clicked, config.prior * (1 - mean) + np.maximum(shown - clicked, 0.0)

    def pages(self, choice: Choice, k: int, count: int, rng: np.random.Generator) -> Int64:
        """(count, B, k) pages drawn independently."""
        first, second = self.sampler(choice)
        each = k if self.config.in_slate else 1
        shape = (count, first.shape[0], each, first.shape[1])
        draw = rng.beta if self.config.posterior == "beta" else rng.normal
        values: npt.NDArray[np.float64] = draw(first[:, None, :], second[:, None, :], size=shape)
        values = np.where(np.isfinite(choice.scores)[None, :, None, :], values, -np.inf)
        page = in_slate(values, k) if each > 1 or k == 1 else _padded(np.argsort(-values[:, :, 0], axis=-1, kind="stable")[..., :k], k)
        counts = choice.counts[None, :, None]
        return np.where(np.arange(k) < counts, page, NOTHING)

    def act(self, choice: Choice, k: int, rng: np.random.Generator) -> Action:
        """O(draws x k x K) random numbers a request where each place has a draw of its own."""
        check_choice(choice)
        page = self.pages(choice, k, 1, rng)[0]
        hits = (self.pages(choice, k, self.config.draws, rng) == page[None]).sum(0)
        marginal = np.where(page >= 0, (1.0 + hits) / (1.0 + self.config.draws), np.nan)
        return Action(page, None, marginal)


def _padded(pages: Int64, k: int) -> Int64:
    return np.pad(pages, ((0, 0), (0, 0), (0, k - pages.shape[-1])), constant_values=NOTHING)
