"""What systems with a table of users and a table of items share: the tables, the graph between them, people met after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.blocks.embed import Init, bag, table
from vitrail.blocks.graph import bipartite_adjacency, layers
from vitrail.config import PositiveFloat, Settings
from vitrail.data.batches import Sets
from vitrail.systems.base import Given, Sizes
from vitrail.systems.skeletons import zero_absent


class IdSettings(Settings):
    """How the tables start."""

    init: Init = "xavier"
    """How vectors start."""
    init_scale: PositiveFloat = 0.1
    """Standard deviation of a normal start."""


class IdTables:
    """Says that a system has the tables of `id_tables`; name it after the skeleton."""

    users: nn.Parameter
    """(U, D)"""
    items: nn.Parameter
    """(N, D)"""


def id_tables(system: nn.Module, config: Any, sizes: Sizes, given: Given) -> None:
    """Give `system` the parameters `users` (U, D), rows of users without a training event at 0, and `items` (N, D)."""
    assert given.indptr is not None
    system.users = table(sizes.users, config.dim, config.init, config.init_scale)
    system.items = table(sizes.items, config.dim, config.init, config.init_scale)
    zero_absent(system.users, given.indptr)


def zero_unmet(items: nn.Parameter, met: Tensor) -> None:
    """Set the rows of items without a training event, `met` (N,) false, to 0: a cold item answers by its content alone."""
    with torch.no_grad():
        items[: len(met)][~met] = 0.0


def met_in(given: Given, sizes: Sizes) -> Tensor:
    """(N,) true where an item has a training event."""
    assert given.items is not None
    return torch.bincount(given.items, minlength=sizes.items) > 0


def id_graph(system: nn.Module, sizes: Sizes, given: Given) -> None:
    """Give `system` the buffers `adjacency`, sparse (U + N, U + N), and `degrees` (N,), training events of each item, at least 1."""
    assert given.indptr is not None and given.items is not None
    system.register_buffer("adjacency", bipartite_adjacency(given.indptr, given.items, sizes.items), persistent=False)
    system.register_buffer("degrees", torch.bincount(given.items, minlength=sizes.items).clamp(min=1).float(), persistent=False)


def folding(below: Sequence[Tensor], users: int, degrees: Tensor, count: int) -> Tensor:
    """What each item sends to a person who was never seen (N, D): the sum of its vectors in the layers under those that are read, each
    (U + N, D), over `count` layers that are averaged and the root of its degree."""
    return torch.stack(list(below)).sum(0)[users:] / (degrees.sqrt() * count)[:, None]


def folding_of(system: Any, start: Tensor, depth: int, count: int | None = None) -> Tensor:
    """`folding` for a system of `id_graph` that reads layers 0 to `depth` of `start` (U + N, D): their mean or, with `count` 1, their sum -> (N, D)."""
    passes = layers(system.adjacency, start, depth)
    return folding(passes[:-1] or passes, system.sizes.users, system.degrees, count or depth + 1)


def fold(sent: Tensor, histories: Sets) -> Tensor:
    """One propagation of B histories, with what items send (N, D) -> (B, D)."""
    return bag(sent, histories.items, histories.indptr) / histories.lengths.clamp(min=1).sqrt()[:, None]
