"""MMR: maximal marginal relevance. Carbonell and Goldstein, SIGIR 1998 (card ranking/diversity).
Next is the item with the greatest  weight * relevance - (1 - weight) * (greatest similarity to what is on the page already).
The first item is the most relevant one. Differs from the original: relevance is brought to [0, 1] a request (`scale`), so that `weight` means
the same whatever scored the items. Numbers: docs/slates.md."""

from __future__ import annotations

import numpy as np

from vitrail.config import Settings, Share
from vitrail.systems.slate import NOTHING, Candidates, Int64, Scale, Slate, scaled, slate


@slate("mmr", paper="10.1145/290941.291025", year=1998, status="works")
class MMR(Slate):
    """Each next item is relevant and unlike the most similar one before it."""

    class Config(Settings):
        """Settings of mmr."""

        weight: Share = 0.7
        """The paper's lambda: 1 orders by relevance, 0 only by difference."""
        scale: Scale = "minmax"
        """How relevance is scaled within a request before it is weighed."""

    @property
    def diversity(self) -> float:
        return 1.0 - float(self.config.weight)

    def with_diversity(self, share: float) -> MMR:
        return MMR(self.config.but({"weight": 1.0 - share}))

    def arrange(self, candidates: Candidates, k: int) -> Int64:
        """One pass over the candidates a place: O(K D) a place and request."""
        weight = self.config.weight
        relevance = scaled(candidates.scores, self.config.scale)
        left = candidates.there.copy()
        vectors = candidates.vectors.astype(np.float64)
        rows = np.arange(len(relevance))
        page = np.full((len(relevance), k), NOTHING, dtype=np.int64)
        nearest = np.full(relevance.shape, -np.inf)
        gain = relevance  # the first item is the most relevant one, also at weight 0
        for place in range(min(k, relevance.shape[1])):
            best = np.where(left, gain, -np.inf).argmax(1)
            page[:, place] = np.where(left[rows, best], best, NOTHING)
            left[rows, best] = False
            nearest = np.maximum(nearest, np.einsum("bkd,bd->bk", vectors, vectors[rows, best]))
            with np.errstate(invalid="ignore"):  # 0 x -inf at places without a candidate, which are never looked at
                gain = weight * relevance - (1 - weight) * nearest
        return page
