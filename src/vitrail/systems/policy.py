"""The skeleton Policy: shows a page under uncertainty and says with what chance each item stood where it stands.

Two propensities are logged a place, because estimators of pages ask for different ones (card base/off_policy):
`conditional`, the chance of the item at its place given the items above it (RIPS and SIPS multiply these), and
`marginal`, the chance of the item at its place whatever stands above (IIPS and a click on one place ask for this one).
Letters: B requests, K candidates a request, k places of the page, M draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from vitrail.config import Settings
from vitrail.errors import SettingError, unknown
from vitrail.systems.base import Card, Status
from vitrail.systems.slate import Float64, Int64, part_card


@dataclass(frozen=True)
class Choice:
    """What a policy chooses from. Candidates of a request come in the order in which they would be shown without exploration."""

    scores: npt.NDArray[np.floating]
    """(B, K) what each is thought to be worth; -inf where a request has fewer than K candidates, all of these at the end"""
    shown: npt.NDArray[np.floating] | None = None
    """(B, K) how often each item was shown (or seen in training): how sure its score is"""
    clicked: npt.NDArray[np.floating] | None = None
    """(B, K) how often it was clicked then"""

    @property
    def counts(self) -> Int64:
        """(B,) candidates of each request."""
        return np.isfinite(self.scores).sum(1)


@dataclass(frozen=True)
class Action:
    """A page for each request."""

    places: Int64
    """(B, k) places into the candidates; -1 where a page is short"""
    conditional: Float64 | None
    """(B, k) chance of the item at its place given those above it; NaN where nothing stands; none where the policy cannot tell"""
    marginal: Float64
    """(B, k) chance of the item at its place"""


class Policy:
    """Base of all policies: `act` is what a method adds."""

    card: ClassVar[Card]

    class Config(Settings):
        """Settings of the policy."""

    def __init__(self, config: Any = None) -> None:
        """`config`: none for the defaults."""
        self.config: Any = self.Config() if config is None else config

    def act(self, choice: Choice, k: int, rng: np.random.Generator) -> Action:
        """A page of k for each request, drawn by `rng`, with its propensities."""
        raise NotImplementedError

    @property
    def exploration(self) -> float | None:
        """How much is left to chance, 0 to 1; none where the policy has no such setting."""
        return None

    def with_exploration(self, share: float) -> Policy:
        """The same policy with that much left to chance: 0 nothing. Raises SettingError where it has no such setting."""
        raise SettingError(f'The policy "{self.card.name}", as it is set, has no dial of exploration: leave explore out.')


P = TypeVar("P", bound=type[Policy])
_POLICIES: dict[str, type[Policy]] = {}


def policy(name: str, *, paper: str | None = None, year: int | None = None, status: Status = "draft") -> Callable[[P], P]:
    """Class decorator: registers a policy under `name`."""

    def register(cls: P) -> P:
        cls.card = part_card(cls, name, "explore", "slates", "Policy", paper, year, status)
        _POLICIES[name] = cls
        return cls

    return register


def find_policy(name: str) -> type[Policy]:
    """The class of a policy. Raises SettingError with a suggestion."""
    from vitrail.systems import registry

    registry.discover()
    if name not in _POLICIES:
        raise unknown("policy", name, _POLICIES)
    return _POLICIES[name]


def policies() -> list[str]:
    """Names of all policies, sorted."""
    from vitrail.systems import registry

    registry.discover()
    return sorted(_POLICIES)


def check_choice(choice: Choice) -> None:
    """Raises SettingError where a candidate stands behind an empty place: the order of candidates is the order without exploration."""
    there = np.isfinite(choice.scores)
    if (there[:, 1:] & ~there[:, :-1]).any():
        raise SettingError("Candidates of a policy stand at the front of each row, the empty places behind them.")
