"""Epsilon-greedy over pages without replacement: at each place, with chance epsilon any of the candidates left, else the best one left.
No paper (a textbook policy); propensities as the card base/off_policy asks for them. Both are exact. Numbers: docs/slates.md.

Conditional: (1 - epsilon) [it is the best left] + epsilon / (candidates left).
Marginal: let f be the best candidate left before place l. The l - f others that exploration took are a uniform draw from behind f, whatever
happened before: conditioning a uniform draw on the first few being in it and the next one not leaves it uniform. So f alone is a Markov
chain, and a page of k needs a table of k x (k + 1) chances that depend on the number of candidates, k and epsilon only.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vitrail.config import Settings, Share
from vitrail.systems.policy import Action, Choice, Policy, check_choice, policy
from vitrail.systems.slate import NOTHING, Float64


@lru_cache(maxsize=1024)
def marginals(n: int, k: int, epsilon: float) -> Float64:
    """(k, k + 1) chance that the candidate of rank r (columns; the last one: any rank from k on) stands at place l (rows), of n candidates."""
    table = np.zeros((k, k + 1))
    front = np.zeros(k + 1)  # chance that the best one left has rank f
    front[0] = 1.0
    ranks = np.arange(k + 1)
    for place in range(min(k, n)):
        left = n - place
        after = np.zeros(k + 1)
        for f in np.flatnonzero(front[: place + 1]):
            behind, taken = n - f - 1, place - f  # candidates behind f, and how many of them are gone
            best = 1 - epsilon + epsilon / left
            table[place, f] += front[f] * best
            if left > 1:
                table[place, ranks > f] += front[f] * (1 - taken / behind) * epsilon / left
            after[f] += front[f] * (1 - best)
            chance, run = front[f] * best, 0  # f is taken: the front moves over the ones behind it that are gone
            while run <= taken and behind > run and f + run + 1 <= k:
                gone = (taken - run) / (behind - run)
                after[f + run + 1] += chance * (1 - gone)
                chance, run = chance * gone, run + 1
        front = after
    table.flags.writeable = False
    return table


@policy("epsilon-greedy", status="works")
class EpsilonGreedy(Policy):
    """The page as it was arranged, each place given away to chance now and then."""

    class Config(Settings):
        """Settings of epsilon-greedy."""

        epsilon: Share = 0.1
        """Chance that a place is drawn from all candidates left."""

    @property
    def exploration(self) -> float:
        return float(self.config.epsilon)

    def with_exploration(self, share: float) -> EpsilonGreedy:
        return EpsilonGreedy(self.config.but({"epsilon": share}))

    def act(self, choice: Choice, k: int, rng: np.random.Generator) -> Action:
        """One draw a place and request."""
        check_choice(choice)
        epsilon = float(self.config.epsilon)
        counts = choice.counts
        b, width = choice.scores.shape
        free = np.isfinite(choice.scores)
        rows = np.arange(b)
        page = np.full((b, k), NOTHING, dtype=np.int64)
        conditional, marginal = np.full((b, k), np.nan), np.full((b, k), np.nan)
        for place in range(min(k, width)):
            left = counts - place
            live = left > 0
            explores = rng.random(b) < epsilon
            nth = np.where(explores, rng.integers(0, np.maximum(left, 1)), 0)  # the nth of those left; the best one is the first
            pick = (np.cumsum(free, axis=1) == nth[:, None] + 1).argmax(1)
            best = free.argmax(1)
            free[rows, pick] &= ~live
            page[:, place] = np.where(live, pick, NOTHING)
            conditional[:, place] = np.where(live, (1 - epsilon) * (pick == best) + epsilon / np.maximum(left, 1), np.nan)
        for n in np.unique(counts):
            same = np.flatnonzero(counts == n)
            table = marginals(int(n), k, epsilon)
            ranks = np.minimum(np.maximum(page[same], 0), k)
            marginal[same] = np.where(page[same] >= 0, table[np.arange(k), ranks], np.nan)
        return Action(page, conditional, marginal)
