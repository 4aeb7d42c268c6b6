"""The shapes of the skeletons that come with their families. A system of such a kind fits the shape; what the house adds
around it (index forms, beam search, slate metrics, logged propensities) is written with its first systems.

Letters: B batch, N items, K interests, L code length, V code-book size, D width.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vitrail.data.batches import Queries, Sequences

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@runtime_checkable
class MultiInterest(Protocol):
    """Several vectors a user; the score of an item is the largest over interests."""

    def interests(self, batch: Sequences) -> Tensor:
        """-> (B, K, D)"""
        ...


@runtime_checkable
class LateInteraction(Protocol):
    """A vector a token; the score is the sum over query tokens of the best document token (MaxSim)."""

    def tokens(self, batch: Queries) -> Tensor:
        """-> (B, L, D)"""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Item vectors -> short codes."""

    def fit_codes(self, vectors: Float32) -> None:
        """vectors (N, D)"""
        ...

    def codes(self, vectors: Float32) -> Int64:
        """vectors (N, D) -> (N, L), each in [0, V)"""
        ...


@runtime_checkable
class Generator(Protocol):
    """Writes an item's code, a place at a time."""

    def step(self, state: Tensor) -> Tensor:
        """state (B, L) of codes so far -> (B, V) logits"""
        ...


@runtime_checkable
class Codec(Protocol):
    """Vectors -> a smaller form that can be searched."""

    def fit_vectors(self, vectors: Float32) -> None:
        """vectors (N, D)"""
        ...

    def compress(self, vectors: Float32) -> npt.NDArray[np.uint8]:
        """vectors (N, D) -> (N, bytes)"""
        ...


@runtime_checkable
class Retriever(Protocol):
    """Answers queries that are not users."""

    def search(self, queries: Queries, k: int) -> tuple[Int64, Float32]:
        """-> item codes (B, k) and scores (B, k)"""
        ...


@runtime_checkable
class Objective(Protocol):
    """A loss added to a host system's own."""

    hosts: tuple[str, ...]
    """Names of the skeletons it can be added to."""

    def extra_loss(self, users: Tensor, items: Tensor) -> Tensor:
        """users (B, D), items (B, D) vectors of positive pairs -> scalar"""
        ...


@runtime_checkable
class Probe(Protocol):
    """Reads the inside of a trained system."""

    def read(self, activations: Tensor) -> Tensor:
        """activations (B, D) -> features (B, V)"""
        ...
