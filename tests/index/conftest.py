"""Clustered vectors, and a plain reference of what an index is: a dictionary and a sort."""

import numpy as np
import polars as pl
import pytest

from vitrail.data.vocabulary import hash_ids, mix
from vitrail.index.ann import AnnIndex, Plan


def clustered(n, dim, seed=0, clusters=20):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    return (centres[rng.integers(clusters, size=n)] + 0.5 * rng.standard_normal((n, dim))).astype(np.float32)


class Plain:
    """id -> vector, searched by a sort; ties by the hash of the id."""

    def __init__(self, ids, vectors, metric="ip"):
        self.metric, self.vectors = metric, dict(zip(ids, vectors, strict=True))

    def search(self, q, k, allowed=None):
        names = [name for name in self.vectors if allowed is None or name in allowed]
        if not names:
            return [], []
        X = np.stack([self.vectors[name] for name in names]).astype(np.float64)
        q = q.astype(np.float64)
        if self.metric == "cosine":
            X, q = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-30), q / max(np.linalg.norm(q), 1e-30)
        scores = X @ q
        order = np.lexsort([mix(hash_ids(names), 0), -scores])[:k]
        return [names[place] for place in order], scores[order].tolist()


@pytest.fixture(scope="session")
def plain():
    return Plain


@pytest.fixture(scope="session")
def cloud():
    return clustered


@pytest.fixture(scope="session")
def thorough():
    """An approximate index that looks nearly everywhere, and never takes the exact way because it is cheaper."""

    def make(kind, ids, vectors, **settings):
        index = AnnIndex(ids, vectors, kind=kind, **settings)
        index.follow(Plan(effort=index.ceiling if kind != "hnsw" else 200, refine=index.plan.refine * 4, target=0.9))
        return index

    return make


@pytest.fixture(scope="session")
def table():
    def make(ids):
        return pl.DataFrame({"item": ids, "price": np.arange(len(ids), dtype=np.float64), "colour": ["red" if n % 2 else "blue" for n in range(len(ids))]})

    return make
