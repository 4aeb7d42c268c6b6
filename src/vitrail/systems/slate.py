"""The skeleton Slate: orders the candidates of each request as one page. The arithmetic is numpy in float64, a batch of requests at a time.

A slate has typed settings, is found by name in a registry of its own, and is no fitted system: it sees the scores and the vectors of what was
retrieved and ranked, and gives places into them. Letters: B requests, K candidates a request, k places of the page, D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from vitrail.config import Settings
from vitrail.data.schema import Needs
from vitrail.errors import SettingError, unknown
from vitrail.systems.base import Can, Card, Status

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Scale = Literal["raw", "standard", "minmax", "rank"]

NOTHING = -1
"""The place where a page is shorter than asked."""


@dataclass(frozen=True)
class Candidates:
    """What may be shown to each of B requests, best first."""

    scores: npt.NDArray[np.floating]
    """(B, K) relevance, higher is better; -inf where a request has fewer than K candidates"""
    vectors: npt.NDArray[np.floating]
    """(B, K, D) vectors of length 1 (or zero: nothing is known of the item) by which two items are alike"""

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or self.vectors.ndim != 3 or self.vectors.shape[:2] != self.scores.shape:
            raise SettingError(f"Candidates need scores (B, K) and vectors (B, K, D), not {self.scores.shape} and {self.vectors.shape}.")

    @property
    def there(self) -> npt.NDArray[np.bool_]:
        """(B, K) where a candidate is."""
        return np.isfinite(self.scores)


def scaled(scores: npt.NDArray[np.floating], how: Scale) -> Float64:
    """(B, K) relevance in float64, each request on a scale of its own; -inf stays.

    `standard`: mean 0, deviation 1; `minmax`: 0 to 1; `rank`: 1 for the best down to 1 / K; equal scores give equal values in all but `rank`.
    """
    values = np.where(np.isfinite(scores), scores, np.nan).astype(np.float64)
    empty = np.isnan(values)
    if how == "rank":
        place = np.argsort(np.argsort(np.where(empty, np.inf, -values), axis=1, kind="stable"), axis=1, kind="stable")
        values = 1.0 - place / max(values.shape[1], 1)
    elif how != "raw" and values.size:
        filled = np.where(empty, 0.0, values)
        n = np.maximum((~empty).sum(1, keepdims=True), 1)
        if how == "standard":
            middle = filled.sum(1, keepdims=True) / n
            spread = np.sqrt(np.where(empty, 0.0, (filled - middle) ** 2).sum(1, keepdims=True) / n)
        else:
            middle = np.where(empty, np.inf, values).min(1, keepdims=True)
            spread = np.where(empty, -np.inf, values).max(1, keepdims=True) - middle
        with np.errstate(invalid="ignore"):
            # a spread of rounding alone would blow rounding up to relevance
            values = (values - middle) / np.where(spread > 1e-12 * np.maximum(np.abs(middle), 1e-300), spread, np.inf)
    return np.where(empty, -np.inf, values)


class Slate:
    """Base of all slates: `arrange` is what a method adds."""

    card: ClassVar[Card]

    class Config(Settings):
        """Settings of the slate."""

    def __init__(self, config: Any = None) -> None:
        """`config`: none for the defaults."""
        self.config: Any = self.Config() if config is None else config

    def arrange(self, candidates: Candidates, k: int) -> Int64:
        """-> (B, k) places into the K candidates, in the order of the page, each at most once; -1 where a page is short."""
        raise NotImplementedError

    @property
    def diversity(self) -> float | None:
        """How much difference counts beside relevance, 0 to 1; none where the slate has no such setting."""
        return None

    def with_diversity(self, share: float) -> Slate:
        """The same slate with that much diversity: 0 by relevance alone, 1 by difference alone. Raises SettingError where it has no such setting."""
        raise SettingError(f'The slate "{self.card.name}" has no setting for diversity: leave diversity out.')


S = TypeVar("S", bound=type[Slate])
_SLATES: dict[str, type[Slate]] = {}


def slate(name: str, *, paper: str | None = None, year: int | None = None, status: Status = "draft") -> Callable[[S], S]:
    """Class decorator: registers a slate under `name`."""

    def register(cls: S) -> S:
        cls.card = part_card(cls, name, "arrange", "slates", "Slate", paper, year, status)
        _SLATES[name] = cls
        return cls

    return register


def part_card(
    cls: type, name: str, stage: Literal["arrange", "explore"], family: str, skeleton: str, paper: str | None, year: int | None, status: Status
) -> Card:
    """The card of a part of the funnel that is not fitted."""
    summary = (cls.__doc__ or name).strip().split("\n\n")[0].replace("\n", " ")
    can = Can(new_users=True, cold_items=True, similar=False)
    return Card(
        name=name, stage=stage, family=family, paper=paper, year=year, status=status, summary=summary, skeleton=skeleton, needs=Needs(history=()), can=can
    )


def find_slate(name: str) -> type[Slate]:
    """The class of a slate. Raises SettingError with a suggestion."""
    from vitrail.systems import registry

    registry.discover()
    if name not in _SLATES:
        raise unknown("slate", name, _SLATES)
    return _SLATES[name]


def slates() -> list[str]:
    """Names of all slates, sorted."""
    from vitrail.systems import registry

    registry.discover()
    return sorted(_SLATES)
