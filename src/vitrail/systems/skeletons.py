"""The skeletons Table, Factors, TwoTower and Graph. NextItem and PairScorer have files of their own; the shapes of the others are in protocols.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from vitrail.blocks import loss as losses
from vitrail.blocks.embed import FEW, against, dots, rows
from vitrail.blocks.nested import over_prefixes
from vitrail.config import PositiveInt
from vitrail.data.batchers import Batcher, PairBatcher
from vitrail.data.batches import Pairs, Sets
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, Given, Sizes, System
from vitrail.systems.sampling import LossSettings, from_samples, log_chance

MANY = 64
"""Items a negative up to which the scores of all items cost less than the vectors of the negatives: about the width of a vector."""
Weights: TypeAlias = "sparse.csr_array | Tensor"
"""What a table learns: sparse (N, N), dense (N, N), or one score per item (N,)."""


def history_matrix(histories: Sets, n_items: int, binary: bool) -> sparse.csr_array:
    """B histories -> (B, N) CSR of 1s (`binary`) or of event counts or weights."""
    ones = np.ones(len(histories.items), dtype=np.float32)
    values = ones if histories.weights is None else histories.weights.cpu().numpy()
    arrays = (values, histories.items.cpu().numpy(), histories.indptr.cpu().numpy())
    H = sparse.csr_array(arrays, shape=(len(histories), n_items), copy=True)  # sum_duplicates works in place: the histories are not ours to change
    H.sum_duplicates()
    if binary:
        H.data[:] = 1.0
    return H


LIBRARIES = 128 * 2**20
"""What the libraries of training take once, in bytes."""


class Table(System):
    """Learns item-item weights, or one score per item, in closed form; a history is a user."""

    trained: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True
    can: ClassVar[Can] = Can(new_users=True)
    binary_history: ClassVar[bool] = True

    def fit(self, interactions: Log) -> Weights:
        """The training log -> weights S (N, N), S[i, j] what history item i adds to target j; or scores (N,)."""
        raise NotImplementedError

    def learn(self, interactions: Log) -> None:
        """Fit, and keep the weights as buffers so that they are saved."""
        self.restore(self.pack(self.fit(interactions)))

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the weights that `learn` made."""
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @staticmethod
    def pack(weights: Weights) -> dict[str, Tensor]:
        """Weights as named tensors."""
        if isinstance(weights, Tensor):
            return {"dense": weights.float().contiguous()}
        index = torch.int64 if weights.nnz > 2**31 - 1 else torch.int32
        return {
            "indptr": torch.from_numpy(weights.indptr).to(torch.int64),
            "indices": torch.from_numpy(weights.indices).to(index),
            "values": torch.from_numpy(weights.data).to(torch.float32),
        }

    def prepare(self) -> None:
        buffers = dict(self.named_buffers())
        if "indptr" in buffers:
            shape = (self.sizes.items, self.sizes.items)
            arrays = (buffers["values"].cpu().numpy(), buffers["indices"].cpu().numpy(), buffers["indptr"].cpu().numpy())
            self._sparse = sparse.csr_array(arrays, shape=shape)

    def scores(self, histories: Sets) -> Tensor:
        buffers = dict(self.named_buffers())
        if "dense" not in buffers:
            H = history_matrix(histories, self.sizes.items, self.binary_history)
            return torch.from_numpy(np.asarray((H @ self._sparse).todense(), dtype=np.float32))
        dense = buffers["dense"]
        if dense.ndim == 1:
            return dense.expand(len(histories), -1)
        if len(histories) == 1 and histories.weights is None:
            items = histories.items.unique() if self.binary_history else histories.items
            return dense[items].sum(0, keepdim=True)
        H = history_matrix(histories, self.sizes.items, self.binary_history)
        return torch.from_numpy(H.astype(np.float32) @ dense.numpy())

    def answerable(self, histories: Sets) -> Tensor:
        if dict(self.named_buffers()).get("dense", torch.empty(0, 0)).ndim == 1:
            return torch.ones(len(histories), dtype=torch.bool)
        return super().answerable(histories)

    def similarity(self, items: Tensor) -> Tensor:
        return self.scores(Sets(torch.full_like(items, -1), torch.arange(len(items) + 1), items))


class Factors(System):
    """A vector for a user, a vector for an item, a dot product between, however they were learned."""

    def tables(self) -> tuple[Tensor, Tensor]:
        """(U, D) and (N, D) for answering; a user without training events has a zero row."""
        raise NotImplementedError

    def fold_in(self, histories: Sets) -> Tensor | None:
        """Vectors (B, D) of users never seen, from their histories; none where the method has no such thing."""
        return None

    def finish(self, vectors: Tensor) -> Tensor:
        """The last step of every vector (..., D) before the dot product."""
        return vectors

    def prepare(self) -> None:
        users, items = (self.finish(self.narrow(table)) for table in self.tables())
        self._users, self._items = users.detach().float().contiguous(), items.detach().float().contiguous()
        self._seen = self._users.abs().sum(1) > 0

    def answerable(self, histories: Sets) -> Tensor:
        users = histories.users.to(self._seen.device)
        known = (users >= 0) & self._seen[users.clamp(min=0)]
        return known | (histories.lengths.to(known.device) > 0) if self.can.new_users else known

    def item_vectors(self) -> Tensor:
        return self._items

    def query_vectors(self, histories: Sets) -> Tensor:
        users = histories.users.to(self._users.device)
        vectors = self._users[users.clamp(min=0)]
        if self.can.new_users:
            known = (users >= 0) & self._seen[users.clamp(min=0)]
            if not bool(known.all()):
                folded = self.fold_in(histories.to(self._users.device))
                assert folded is not None, "can.new_users promises fold_in"
                vectors = torch.where(known[:, None], vectors, self.finish(self.narrow(folded)))
        return vectors

    def scores(self, histories: Sets) -> Tensor:
        return self.query_vectors(histories) @ self._items.T

    def similarity(self, items: Tensor) -> Tensor:
        unit = F.normalize(self._items, dim=1)
        return unit[items.to(unit.device)] @ unit.T


class TwoTower(Factors):
    """Factors trained in batches of pairs with sampled negatives, or by a softmax over all items."""

    needs: ClassVar[Needs] = Needs(given=("item_counts",))
    ready: ClassVar[bool] = False
    """`item()` is a table that lies ready: scores are read off it where it lies."""

    class Config(LossSettings):
        """Settings of two-tower systems."""

        dim: PositiveInt = 64
        """Width D of user and item vectors."""
        shared_negatives: bool = False
        """Draw the K negatives once for the whole batch: far cheaper for a large K, and a user's own items may be among them."""

    def __init__(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().__init__(config, sizes, given)
        self.register_buffer("log_q", log_chance(config, given, sizes.items), persistent=False)

    def user(self, users: Tensor) -> Tensor:
        """(B,) codes -> (B, D)"""
        raise NotImplementedError

    def item(self, items: Tensor | None = None) -> Tensor:
        """Item codes of any shape -> (..., D); none: all items (N, D)"""
        raise NotImplementedError

    def regulariser(self, batch: Pairs) -> Tensor | float:
        """Added to the loss."""
        return 0.0

    def ridge(self) -> float:
        """Weight of `l2_of_batch` on the vectors that are scored: users, positives and first negatives."""
        return 0.0

    def finish(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.config.cosine else vectors

    def batcher(self, log: Log, seed: int, rank: int, world: int) -> Batcher:
        c = self.config
        return PairBatcher(log, c.batch, c.negatives, seed, rank, world, power=c.power, shared_negatives=c.shared_negatives)

    def loss(self, batch: Pairs) -> Tensor:
        c, raw, ridge, n = self.config, self.user(batch.users), self.ridge(), len(batch.items)
        first = batch.negatives[..., 0].expand_as(batch.items)
        if c.loss == "full_softmax":
            vectors = self.item()
            value = self._nested(lambda u, done: losses.full_softmax(u.float() / c.temperature, done, batch.items), raw, vectors)
            penalty = ridge * losses.l2_of_batch(raw, rows(vectors, torch.stack([batch.items, first]))) if ridge else 0.0
        elif batch.negatives.ndim == 1:
            # one look-up for positives and negatives: a table's gradient is as large as the table, however few rows were read
            vectors = self.item(torch.cat([batch.items, batch.negatives]))
            value = self._nested(lambda u, done: self._sampled(batch, (u * done[:n]).sum(-1), u @ done[n:].T), raw, vectors)
            penalty = ridge * losses.l2_of_batch(raw, vectors[:n], vectors[n].expand(n, -1)) if ridge else 0.0
        else:
            codes = torch.cat([batch.items[:, None], batch.negatives], 1)
            count = codes.shape[1]
            if count >= FEW and self.sizes.items <= MANY * count:
                vectors = self.item()
                value = self._nested(lambda u, done: self._own(batch, (u @ done.T).gather(1, codes)), raw, vectors)
                penalty = ridge * losses.l2_of_batch(raw, rows(vectors, codes[:, :2])) if ridge else 0.0
            elif self.ready and not c.cosine and not self.widths:
                both, penalty = dots(raw, self.item(), codes, ridge)
                value = self._own(batch, both)
            else:
                vectors = self.item(codes)
                value = self._nested(lambda u, done: self._own(batch, against(u, done)), raw, vectors)
                # the gradient of a part is as large as the whole
                penalty = ridge * losses.l2_of_batch(raw, vectors if count == 2 else vectors[:, :2]) if ridge else 0.0
        return value + self.regulariser(batch) + penalty

    def _sampled(self, batch: Pairs, positive: Tensor, negative: Tensor) -> Tensor:
        return from_samples(self.config, positive, negative, batch.items, batch.negatives, self.sizes.items, self.log_q)  # type: ignore[arg-type]

    def _own(self, batch: Pairs, both: Tensor) -> Tensor:
        """Scores (B, 1 + K) of the positive and of its own negatives -> their loss."""
        return self._sampled(batch, both[:, 0], both[:, 1:])

    def _nested(self, value: Callable[[Tensor, Tensor], Tensor], users: Tensor, items: Tensor) -> Tensor:
        """`value` of finished users and items, summed over the nested widths where there are any."""
        return over_prefixes(
            lambda cut: value(self.finish(cut(users)), self.finish(cut(items))), self.widths, self.width_weights(), users.shape[-1]
        )

    def tables(self) -> tuple[Tensor, Tensor]:
        return self.user(torch.arange(self.sizes.users, device=self._device())), self.item()

    def _device(self) -> torch.device:
        return next(self.parameters()).device

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        parameters = 4 * (sizes.users + sizes.items) * config.dim
        own = 0 if config.shared_negatives or config.loss == "full_softmax" else config.negatives
        vectors = 16 * config.batch * config.dim * (2 + own)  # gathered, in the loss, in the regulariser, and their gradients
        return 5 * parameters + vectors + 32 * events + LIBRARIES


class Graph(TwoTower):
    """Two towers whose vectors come from one pass over the whole graph, `nodes`, once per step."""

    ready: ClassVar[bool] = True

    def nodes(self) -> tuple[Tensor, Tensor]:
        """(U, D), (N, D), differentiable."""
        raise NotImplementedError

    def loss(self, batch: Pairs) -> Tensor:
        return self.loss_at(self.nodes(), batch)

    def loss_at(self, step: tuple[Tensor, Tensor], batch: Pairs) -> Tensor:
        """The loss where `nodes` gave `step`."""
        self._step = step
        try:
            return super().loss(batch)
        finally:
            del self._step

    def user(self, users: Tensor) -> Tensor:
        return rows(self._step[0], users)

    def item(self, items: Tensor | None = None) -> Tensor:
        return self._step[1] if items is None else rows(self._step[1], items)

    def tables(self) -> tuple[Tensor, Tensor]:
        return self.nodes()

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        layer = 4 * (sizes.users + sizes.items) * config.dim
        # each layer and its gradient, their stack and mean; the adjacency while it is made
        return super().memory(config, sizes, events) + layer * (3 * getattr(config, "layers", 2) + 3) + 120 * events


def zero_absent(users: nn.Parameter, indptr: Tensor) -> None:
    """Set the rows of users without a training event to 0: an untrained random vector must never answer."""
    with torch.no_grad():
        users[: len(indptr) - 1][(indptr[1:] - indptr[:-1]) == 0] = 0.0
