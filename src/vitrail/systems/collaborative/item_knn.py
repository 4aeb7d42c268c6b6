"""Item-kNN. Sarwar et al., WWW 2001; TF-IDF and BM25 weightings as in the implicit library; shrinkage as in RecBole.
Keeps the k nearest history items of every TARGET item (RecBole's direction; implicit keeps them per history item), and
leaves the item itself out. Ties at the k-th place go by item code, a hash of the id. Numbers: recipes/item-knn.beauty.yaml."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from vitrail.blocks.neighbours import Weighting, gram_top_k, weigh
from vitrail.config import NonNegativeFloat, PositiveInt, Settings, Share
from vitrail.data.log import Log
from vitrail.systems.base import Sizes, system
from vitrail.systems.skeletons import Table


@system("item-knn", stage="retrieve", family="collaborative", paper="10.1145/371920.372071", year=2001, status="measured")
class ItemKNN(Table):
    """Items liked by the same people, by cosine, TF-IDF or BM25 weighted columns."""

    class Config(Settings):
        """Settings of item-knn."""

        k: PositiveInt = 100
        """Nearest history items kept for each target item."""
        weighting: Weighting = "cosine"
        """How item columns are weighted before the product."""
        shrink: NonNegativeFloat = 0.0
        """Added to the denominator of the cosine: pulls down pairs with little support."""
        k1: NonNegativeFloat = 1.2
        """Saturation of bm25."""
        b: Share = 0.75
        """Length correction of bm25."""

    def fit(self, interactions: Log) -> sparse.csr_array:
        config: Any = self.config
        X = interactions.matrix(binary=False)
        W = weigh(X, config.weighting, config.k1, config.b)
        norms = np.sqrt(X.multiply(X).sum(0)) if config.shrink else None
        return gram_top_k(W, config.k, config.shrink, norms)

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        return 12 * sizes.items * config.k * 3 + 40 * events
