"""DPP: greedy maximum a posteriori of a determinantal point process. Chen, Zhang and Zhou, NeurIPS 2018, arXiv:1709.05135 (card ranking/diversity).
Kernel L_ij = q_i S_ij q_j with q = exp(alpha r), alpha = theta / (2 (1 - theta)); each next item adds most to log det L.
Differs from the original: the Cholesky updates run on S alone and the quality enters as 2 alpha r when items are compared, which is the same
order and cannot overflow; where the rank of S is used up (items that what is shown spans), the page goes on by relevance; the window is conditioned
anew at each place (O(K w^2), w small) instead of by Givens rotations. No K x K matrix is made. Numbers: docs/slates.md."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from vitrail.config import PositiveInt, Settings
from vitrail.systems.slate import NOTHING, Candidates, Float64, Int64, Scale, Slate, scaled, slate

SPANNED = 1e-10
"""Conditional variance under which an item counts as one that the page holds already."""


def condition(vectors: Float64, left: Float64, known: Float64, picked: Int64) -> tuple[Float64, Float64]:
    """One Cholesky step of S = F F^T: what is left of each item's variance when `picked` (B,) is shown too.

    vectors (B, K, D), left (B, K) variances, known (B, K, s) rows of the factor so far -> left, known (B, K, s + 1). An item of no variance left
    adds nothing.
    """
    rows = np.arange(len(left))
    size = left[rows, picked]
    live = size > SPANNED
    covariance = np.einsum("bkd,bd->bk", vectors, vectors[rows, picked])
    covariance[rows, picked] = 1.0  # an item is itself, also one of which nothing is known
    update = (covariance - np.einsum("bks,bs->bk", known, known[rows, picked])) / np.sqrt(np.where(live, size, np.inf))[:, None]
    return np.maximum(left - update**2, 0.0), np.concatenate([known, update[:, :, None]], axis=2)


@slate("dpp", paper="1709.05135", year=2018, status="works")
class DPP(Slate):
    """The page with the greatest determinant, item by item: relevance times how much of an item the page does not span."""

    class Config(Settings):
        """Settings of dpp."""

        theta: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.7
        """Weight of relevance against difference; 0: difference alone."""
        scale: Scale = "standard"
        """How relevance is scaled within a request before it is weighed."""
        similarity: Literal["cosine", "half"] = "cosine"
        """cosine, or (1 + cosine) / 2: then opposite items are unlike, orthogonal ones half alike."""
        window: PositiveInt | None = None
        """Only the last so many items of the page repel; none: all of them."""

    @property
    def diversity(self) -> float:
        return 1.0 - float(self.config.theta)

    def with_diversity(self, share: float) -> DPP:
        return DPP(self.config.but({"theta": min(1.0 - share, 0.999)}))  # at 1 relevance would weigh infinitely much

    def arrange(self, candidates: Candidates, k: int) -> Int64:
        """O(K k D + K k^2) a request without a window."""
        config = self.config
        quality = scaled(candidates.scores, config.scale) * (config.theta / (1 - config.theta)) if config.theta else np.where(candidates.there, 0.0, -np.inf)
        vectors = candidates.vectors.astype(np.float64)
        if config.similarity == "half":
            vectors = np.concatenate([vectors, np.ones((*vectors.shape[:2], 1))], axis=2) * np.sqrt(0.5)
        rows = np.arange(len(quality))
        free = candidates.there.copy()
        page = np.full((len(quality), k), NOTHING, dtype=np.int64)
        whole, nothing = np.ones(quality.shape), np.empty((*quality.shape, 0))
        left, known = whole, nothing
        for place in range(min(k, quality.shape[1])):
            live = free & (left > SPANNED)
            gain = np.where(live, quality + np.log(np.maximum(left, SPANNED)), -np.inf)
            spent = ~live.any(1)
            gain[spent] = np.where(free[spent], candidates.scores[spent], -np.inf)
            best = gain.argmax(1)
            page[:, place] = np.where(free[rows, best], best, NOTHING)
            free[rows, best] = False
            if config.window is None or place < config.window:
                left, known = condition(vectors, left, known, best)
            else:
                left, known = whole, nothing
                for before in range(place - config.window + 1, place + 1):
                    left, known = condition(vectors, left, known, np.maximum(page[:, before], 0))
        return page
