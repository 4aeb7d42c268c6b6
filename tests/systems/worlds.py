"""A small random world with content, for the tests of systems that read it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vitrail.data.batchers import PairBatcher
from vitrail.data.batches import Pairs, Sets
from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes, System

USERS, ITEMS = 30, 20
KINDS = {"text": 6, "image": 4}


def random_log(seed: int = 0, cold: int | None = None, items: int = ITEMS) -> Log:
    """User 0 has nothing, user 1 everything, the others about a third; nobody has the item `cold`."""
    have = np.random.default_rng(seed).random((USERS, items)) < 0.3
    have[0] = False
    have[1] = True
    if cold is not None:
        have[:, cold] = False
    return Log(np.concatenate([[0], np.cumsum(have.sum(1))]), np.nonzero(have)[1].astype(np.int32), items)


def plain_log(users: int = 20, items: int = 15, seed: int = 0) -> Log:
    """User 0 has nothing, the others about a third."""
    have = np.random.default_rng(seed).random((users, items)) < 0.3
    have[0] = False
    return Log(np.concatenate([[0], np.cumsum(have.sum(1))]), np.nonzero(have)[1].astype(np.int32), items)


def facts(log: Log, lacking: dict[str, int] | None = None) -> Given:
    """Random content of both kinds; `lacking` says which item has none of a kind."""
    rng = np.random.default_rng(1)
    vectors = {name: torch.from_numpy(rng.normal(size=(log.n_items, width)).astype(np.float32)) for name, width in KINDS.items()}
    masks = {name: torch.ones(log.n_items, dtype=torch.bool) for name in KINDS}
    for name, item in (lacking or {}).items():
        masks[name][item] = False
        vectors[name][item] = 0.0
    return Given(torch.from_numpy(log.indptr), torch.from_numpy(log.items.astype(np.int64)), torch.from_numpy(log.item_counts), vectors, masks)


def make(cls: type[System], log: Log, given: Given | None = None, **settings: Any) -> Any:
    torch.manual_seed(0)
    return cls(cls.Config.of({"dim": 8, **settings}), Sizes(log.n_users, log.n_items, KINDS), given or facts(log))


def first_batch(log: Log, size: int = 32, seed: int = 0) -> Pairs:
    return next(PairBatcher(log, size, 1, seed=seed).epoch(0))


def as_strangers(log: Log, users: list[int]) -> Sets:
    """The histories of `users`, asked by people who were never seen."""
    known = log.histories(np.array(users))
    return Sets(torch.full((len(users),), -1), known.indptr, known.items)


def grown_by_one(model: Any, log: Log, given: Given) -> Any:
    """The model with one more item, whose content is that of item 3."""
    wider = {name: torch.cat([values, values[3:4]]) for name, values in given.vectors.items()}
    masks = {name: torch.cat([mask, torch.ones(1, dtype=torch.bool)]) for name, mask in given.masks.items()}
    counts = torch.cat([given.item_counts, torch.zeros(1, dtype=torch.int64)])
    sizes = Sizes(log.n_users, log.n_items + 1, KINDS)
    return model.grown(sizes, Given(given.indptr, given.items, counts, wider, masks))
