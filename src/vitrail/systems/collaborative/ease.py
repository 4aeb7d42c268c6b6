"""EASE^R. Steck, WWW 2019, arXiv:1905.03375. As published: B = I - P diag(1 / diag P), P = (X^T X + lambda I)^-1, in float64
by Cholesky; the dual form (card base/ease) inverts users x users where there are fewer users than items.
Numbers: recipes/ease.ml-100k.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from vitrail.config import PositiveFloat, Settings
from vitrail.data.log import Log
from vitrail.errors import VitrailError
from vitrail.systems.base import Sizes, system
from vitrail.systems.skeletons import Table

COLUMNS = 512
"""Columns, or rows, of a large matrix that are made at once."""


def inverse(A: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric positive definite matrix (n, n), by Cholesky, in its place. Torch's, not scipy's: its threads sleep while they
    wait, and where other work is on the machine it takes a third of the time."""
    turned = torch.from_numpy(A).T  # by columns, as LAPACK wants it: nothing is copied
    failed = torch.linalg.cholesky_ex(turned, out=(turned, torch.empty(0, dtype=torch.int32)))[1]
    if int(failed):
        raise VitrailError("EASE's matrix is not positive definite in float64: raise the setting l2.")
    torch.cholesky_inverse(turned, out=turned)
    return A


def gram(X: sparse.csr_array, l2: float) -> np.ndarray:
    """X X^T + l2 I, (U, U) float64 row by row; X (U, N). Never a sparse product as a whole, which may take more memory than the matrix."""
    n, turned = X.shape[0], sparse.csr_array(X.T)
    G = np.empty((n, n))
    for start in range(0, n, COLUMNS):
        G[start : start + COLUMNS] = (X[start : start + COLUMNS] @ turned).toarray()
    G[np.diag_indices_from(G)] += l2
    return G


def precision(X: sparse.csr_array, l2: float) -> Iterator[tuple[slice, np.ndarray]]:
    """P = (X^T X + l2 I)^-1 in blocks of columns (N, n) float64, through the smaller of the two Gram matrices. X (U, N)."""
    users, items = X.shape
    turned = sparse.csr_array(X.T)
    small = inverse(gram(turned if items <= users else X, l2))
    for start in range(0, items, COLUMNS):
        block = slice(start, min(start + COLUMNS, items))
        if items <= users:
            yield block, small[:, block]
            continue
        P = turned @ (turned[block] @ small).T / -l2
        P[np.arange(block.start, block.stop), np.arange(P.shape[1])] += 1 / l2
        yield block, P


@system("ease", stage="retrieve", family="collaborative", paper="1905.03375", year=2019, status="measured")
class EASE(Table):
    """A full linear item-item model with a zero diagonal, in closed form."""

    class Config(Settings):
        """Settings of ease."""

        l2: PositiveFloat = 250.0
        """Ridge penalty lambda; acts on counts, so it grows with the number of users."""

    def fit(self, interactions: Log) -> Tensor:
        X, config = interactions.matrix(), cast(Any, self.config)
        B = torch.empty(X.shape[1], X.shape[1])
        for block, P in precision(X, config.l2):
            own = np.arange(block.start, block.stop), np.arange(P.shape[1])
            column = P / -P[own]
            column[own] = 0.0
            B[:, block] = torch.from_numpy(column)
        return B

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        return 8 * min(sizes.items, sizes.users) ** 2 + 4 * sizes.items**2 + 32 * COLUMNS * (sizes.items + sizes.users) + 64 * events
