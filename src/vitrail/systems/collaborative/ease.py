"""EASE^R. Steck, WWW 2019, arXiv:1905.03375. As published: B = I - P diag(1 / diag P), P = (X^T X + lambda I)^-1, in float64
by Cholesky; the dual form (card base/ease) inverts users x users where there are fewer users than items.
Numbers: recipes/ease.ml-100k.yaml."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from vitrail.config import PositiveFloat, Settings
from vitrail.data.log import Log
from vitrail.errors import VitrailError
from vitrail.systems.base import Sizes, system
from vitrail.systems.skeletons import Table


def inverse(A: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric positive definite matrix (n, n), by Cholesky. Torch's, not scipy's: its threads sleep while they
    wait, and where other work is on the machine it takes a third of the time."""
    factor, failed = torch.linalg.cholesky_ex(torch.from_numpy(A))
    if int(failed):
        raise VitrailError("EASE's matrix is not positive definite in float64: raise the setting l2.")
    found: np.ndarray = torch.cholesky_inverse(factor).numpy()
    return found


def precision(X: sparse.csr_array, l2: float) -> np.ndarray:
    """P = (X^T X + l2 I)^-1, (N, N) float64, through the smaller of the two Gram matrices. X (U, N)."""
    users, items = X.shape
    if items <= users:
        G = np.asarray((X.T @ X).todense(), dtype=np.float64)
        G[np.diag_indices_from(G)] += l2
        return inverse(G)
    K = np.asarray((X @ X.T).todense(), dtype=np.float64)
    K[np.diag_indices_from(K)] += l2
    P = -(X.T @ (X.T @ inverse(K)).T) / l2
    P[np.diag_indices_from(P)] += 1 / l2
    return np.asarray(P)


@system("ease", stage="retrieve", family="collaborative", paper="1905.03375", year=2019, status="measured")
class EASE(Table):
    """A full linear item-item model with a zero diagonal, in closed form."""

    class Config(Settings):
        """Settings of ease."""

        l2: PositiveFloat = 250.0
        """Ridge penalty lambda; acts on counts, so it grows with the number of users."""

    def fit(self, interactions: Log) -> Tensor:
        config: Any = self.config
        P = precision(interactions.matrix(), config.l2)
        diagonal = np.diag(P).copy()
        P /= -diagonal  # divides column j by P_jj
        P[np.diag_indices_from(P)] = 0.0
        return torch.from_numpy(P.astype(np.float32))

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        small = min(sizes.items, sizes.users)
        return 8 * (small**2 * 3 + sizes.items**2 * 2)
