"""iALS (weighted matrix factorisation). Hu, Koren and Volinsky, ICDM 2008; conjugate gradients by Takacs, Pilaszy and Tikk,
RecSys 2011; frequency-scaled penalty by Rendle, Krichene, Zhang and Koren, RecSys 2022, arXiv:2110.14037 (that formula from memory).
Confidence is 1 + alpha r as in the paper, r the weight or number of events; the implicit library takes alpha r. Users are
solved once more, to rounding, after the last sweep, so that stored vectors fit the final item vectors; people never seen are
solved in the same way from their history. Numbers: none yet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from vitrail.blocks.als import Solver, half_sweep, runs
from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt, Settings, Share
from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.systems.base import Can, Given, Sizes, system
from vitrail.systems.skeletons import Factors, history_matrix


@system("ials", stage="retrieve", family="collaborative", paper="10.1109/ICDM.2008.22", year=2008, status="works")
class IALS(Factors):
    """Factors of the whole matrix of who has what: every cell counts, those with an event count more."""

    trained: ClassVar[bool] = False
    can: ClassVar[Can] = Can(new_users=True)
    toy: ClassVar[dict[str, Any]] = {"sweeps": 2}  # more bring what a group never has to exactly 0, and rounding alone would order it

    class Config(Settings):
        """Settings of ials."""

        dim: PositiveInt = 64
        """Width D of user and item vectors."""
        sweeps: PositiveInt = 15
        """Times that users and then items are solved."""
        alpha: PositiveFloat = 10.0
        """Confidence of a cell is 1 + alpha * (its events, or their weight)."""
        l2: NonNegativeFloat = 10.0
        """Ridge penalty lambda; it acts beside sums of confidences, so it grows with alpha."""
        nu: Share = 0.0
        """A row with n events is penalised by l2 * (n + cells / alpha) ** nu; 0: all rows alike; with 1 take l2 far smaller."""
        solver: Solver = "cg"
        """Conjugate gradients from the last solution, or exactly by Cholesky."""
        steps: PositiveInt = 3
        """Of conjugate gradients a sweep."""
        init_scale: PositiveFloat = 0.01
        """Vectors start uniform between 0 and this."""

    users: Tensor
    items: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        self.register_buffer("users", torch.rand(sizes.users, config.dim) * config.init_scale)
        self.register_buffer("items", torch.rand(sizes.items, config.dim) * config.init_scale)

    def confidence(self, X: sparse.csr_array) -> sparse.csr_array:
        """Events or weights (U, N) -> confidences of the stored cells."""
        C = sparse.csr_array(X, dtype=np.float64, copy=True)
        C.data = 1 + self.config.alpha * C.data
        return C

    def ridge(self, C: sparse.csr_array) -> Tensor:
        """(U,) penalty of each row of C (U, N)."""
        counts = np.diff(C.indptr) + C.shape[1] / self.config.alpha
        return torch.from_numpy(self.config.l2 * counts**self.config.nu).float()

    def learn(self, log: Log) -> None:
        c, C = self.config, self.confidence(log.matrix(binary=False))
        T = sparse.csr_array(C.T)
        X, Y, of_users, of_items = self.users, self.items, self.ridge(C), self.ridge(T)
        threads = torch.get_num_threads()
        # a thread to itself for each run of rows: within one product there is too little to share
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            users, items = runs(C, threads), runs(T, threads)
            for _ in range(c.sweeps):
                X = half_sweep(users, Y, X, of_users, c.solver, c.steps, pool)
                Y = half_sweep(items, X, Y, of_items, c.solver, c.steps, pool)
            self.users, self.items = half_sweep(users, Y, X, of_users, c.solver, None, pool), Y

    def tables(self) -> tuple[Tensor, Tensor]:
        return self.users, self.items

    def fold_in(self, histories: Sets) -> Tensor:
        C = self.confidence(history_matrix(histories, self.sizes.items, binary=False))
        start = torch.zeros(len(histories), self.config.dim)
        return half_sweep(C, self._items.cpu(), start, self.ridge(C), "cholesky").to(self._items.device)

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        return 12 * (sizes.users + sizes.items) * config.dim + 60 * events
