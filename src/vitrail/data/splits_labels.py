"""Which part each event belongs to. E events, U users, N items, n events of one user. Everything is vectorised over the CSR log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vitrail.data.dataset import Dataset
from vitrail.data.log import Log, blocks
from vitrail.data.splits import ColdItems, LeaveLastOut, NGCFRandom, Predefined, Ratio, SplitSettings, Temporal
from vitrail.data.vocabulary import mix
from vitrail.errors import DataError

TRAIN, VALID, TEST = 0, 1, 2

Int64 = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int8]
Items = npt.NDArray[np.bool_]
MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Drawn:
    """What a way to split decided."""

    labels: Labels
    """(E,) TRAIN, VALID or TEST"""
    valid_items: Items | None = None
    """(N,) the only items ranked in validation; none: all"""
    test_items: Items | None = None
    """(N,) the only items ranked in the test; none: all"""
    facts: dict[str, Any] = field(default_factory=dict)
    """what the settings came to, e.g. the dates of the cuts"""


def assign(log: Log, settings: SplitSettings, dataset: Dataset) -> Drawn:
    """The part of each event of `log` under `settings`."""
    if isinstance(settings, Temporal):
        return by_time(log, settings)
    if isinstance(settings, LeaveLastOut):
        return Drawn(last_out(log))
    if isinstance(settings, ColdItems):
        return by_item(log, settings, dataset.item_ids.hashes)
    if isinstance(settings, Predefined):
        return Drawn(as_given(log, settings, dataset))
    if settings.name == "none":
        return Drawn(np.zeros(len(log), dtype=np.int8))
    if settings.name == "recbole_rs":
        return Drawn(by_counts(log, shuffled_ranks(log, settings.seed), recbole_counts, heldout_last=True))
    ranks = hashed_ranks(log, dataset, settings.seed)
    if isinstance(settings, Ratio):
        valid, test = settings.valid, settings.test
        return Drawn(by_counts(log, ranks, lambda n: ratio_counts(n, valid, test)))
    if isinstance(settings, NGCFRandom):
        share = settings.valid
        return Drawn(by_counts(log, ranks, lambda n: ngcf_counts(n, share)))
    return Drawn(by_counts(log, ranks, {"mmrec_random": mmrec_counts, "lattice_random": lattice_counts}[settings.name]))


def by_time(log: Log, settings: Temporal) -> Drawn:
    """Two cuts in time. A cut given as a share falls on the time of the event at that share, and all events of one instant stay together."""
    assert log.times is not None
    times = log.times
    cut_test = _micros(settings.test_from) if settings.test_from else _time_at(times, len(times) - _count(settings.test, len(times)))
    before = int((times < cut_test).sum())
    if settings.valid_from:
        cut_valid = min(_micros(settings.valid_from), cut_test)
    elif settings.valid > 0:
        cut_valid = _time_at(times, max(before - _count(settings.valid, len(times)), 0))
        cut_valid = min(cut_valid, cut_test)
    else:
        cut_valid = cut_test
    labels = (log.times >= cut_valid).astype(np.int8) + (log.times >= cut_test)
    return Drawn(labels.astype(np.int8), facts={"cut_valid": _iso(cut_valid), "cut_test": _iso(cut_test)})


def _count(share: float, n: int) -> int:
    return max(round(share * n), 1) if share > 0 else 0


def _time_at(times: Int64, place: int) -> int:
    """The time of the event at `place` in the order of times; just after the last where there is none."""
    return int(np.partition(times, place)[place]) if place < len(times) else int(times.max()) + 1


def _micros(when: datetime) -> int:
    gap = when - datetime(1970, 1, 1, tzinfo=UTC)
    return (gap.days * 86_400 + gap.seconds) * MICROSECONDS + gap.microseconds


def _iso(micros: int) -> str:
    return str(np.datetime64(micros, "us")) + "Z"


def last_out(log: Log) -> Labels:
    """Last event: test; last but one: validation; users with fewer than 3 events: train."""
    labels = np.full(len(log), TRAIN, dtype=np.int8)
    ends = log.indptr[1:][log.lengths >= 3]
    labels[ends - 1], labels[ends - 2] = TEST, VALID
    return labels


def by_item(log: Log, settings: ColdItems, hashes: npt.NDArray[np.uint64]) -> Drawn:
    """Shares of the items that have events, drawn by hash; an item takes all its events with it."""
    present = np.flatnonzero(log.item_counts)
    drawn = present[np.argsort(mix(hashes[present], settings.seed), kind="stable")]
    n_test, n_valid = _count(settings.test, len(drawn)), _count(settings.valid, len(drawn))
    of_item = np.zeros(log.n_items, dtype=np.int8)
    of_item[drawn[:n_test]] = TEST
    of_item[drawn[n_test : n_test + n_valid]] = VALID
    return Drawn(of_item[log.items], valid_items=of_item == VALID, test_items=of_item == TEST)


def as_given(log: Log, settings: Predefined, dataset: Dataset) -> Labels:
    """The part column; where it knows no validation part, `settings.valid` of each user's training events are held out at random."""
    assert log.rows is not None
    column = dataset.parts()
    made = np.full(len(column), -1, dtype=np.int8)
    for name, label in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        made[(column == name).fill_null(False).to_numpy()] = label  # a look at the words alone takes a part of the memory that a dictionary of them does
    if len(strange := np.flatnonzero(made < 0)):
        word = column[int(strange[0])]
        raise DataError(f'The part of a row must be train, valid or test, and data set "{dataset.info.name}" has {word!r}: mend it and ingest again.')
    labels = made[log.rows]
    if settings.valid > 0 and not (labels == VALID).any():
        train = log.where(labels == TRAIN)
        drawn = by_counts(train, hashed_ranks(train, dataset, settings.seed), lambda n: ratio_counts(n, settings.valid, 0.0))
        labels = labels.copy()
        labels[labels == TRAIN] = drawn
    return labels


def hashed_ranks(log: Log, dataset: Dataset, seed: int) -> Int64:
    """(E,) place of each event among its user's in a random order drawn by hashing the outside ids, so that no file order matters."""
    of_users, of_items = dataset.user_ids.hashes, mix(dataset.item_ids.hashes, 1)

    def order(a: int, b: int) -> Int64:
        own, lengths = slice(int(log.indptr[a]), int(log.indptr[b])), log.lengths[a:b]
        with np.errstate(over="ignore"):
            keys = mix(np.repeat(of_users[a:b], lengths) + of_items[log.items[own]], seed)
        return np.lexsort((keys, np.repeat(np.arange(b - a), lengths)))  # equal keys, of one item twice, keep the order of events

    return _ranks(log, order)


def shuffled_ranks(log: Log, seed: int) -> Int64:
    """(E,) place of each event among its user's in one `torch.randperm` of the rows in file order, torch's generator at `seed`."""
    assert log.rows is not None
    file_order = np.argsort(log.rows)
    drawn = torch.randperm(len(log), generator=torch.Generator().manual_seed(seed)).numpy()
    place = np.empty(len(log), dtype=np.int64)
    place[file_order[drawn]] = np.arange(len(log))

    def order(a: int, b: int) -> Int64:
        own = place[int(log.indptr[a]) : int(log.indptr[b])]
        return np.argsort(own + len(log) * np.repeat(np.arange(b - a), log.lengths[a:b]))  # no two are equal, so that the fastest sort does

    return _ranks(log, order)


def _ranks(log: Log, order: Callable[[int, int], Int64]) -> Int64:
    """`order(a, b)`: the events of the users [a, b), counted from the first, user by user as they are to be."""
    ranks = np.empty(len(log), dtype=np.int64)
    for a, b in blocks(log.indptr):
        start, stop, lengths = int(log.indptr[a]), int(log.indptr[b]), log.lengths[a:b]
        ranks[start + order(a, b)] = np.arange(start, stop) - np.repeat(log.indptr[a:b], lengths)
    return ranks


Counts = Callable[[Int64], tuple[Int64, Int64]]
"""(U,) events of each user -> (U,) validation events, (U,) test events."""


def by_counts(log: Log, ranks: Int64, counts: Counts, *, heldout_last: bool = False) -> Labels:
    """The first ranks of each user are test, the next validation, the rest train; `heldout_last`: train first, then validation, then test."""
    labels, lengths = np.empty(len(log), dtype=np.int8), log.lengths
    all_valid, all_test = counts(lengths)
    for a, b in blocks(log.indptr):
        own = slice(int(log.indptr[a]), int(log.indptr[b]))
        valid, test, length = (np.repeat(of_users[a:b], lengths[a:b]) for of_users in (all_valid, all_test, lengths))
        rank = length - 1 - ranks[own] if heldout_last else ranks[own]
        labels[own] = np.where(rank < test, TEST, np.where(rank < test + valid, VALID, TRAIN))
    return labels


def ratio_counts(n: Int64, valid: float, test: float) -> tuple[Int64, Int64]:
    """Each share of n rounded half up; where nothing is left to train on, validation gives way first."""
    n_test = np.minimum(np.floor(test * n + 0.5), np.maximum(n - 1, 0)).astype(np.int64)
    n_valid = np.minimum(np.floor(valid * n + 0.5), np.maximum(n - 1 - n_test, 0)).astype(np.int64)
    return n_valid, n_test


def recbole_counts(n: Int64) -> tuple[Int64, Int64]:
    """A tenth rounded down for each held-out part; where that is nothing, one event, for the test first, as long as more than one is left to train on."""
    n_valid = (0.1 * n).astype(np.int64)
    n_test = n_valid.copy()
    train = n - n_valid - n_test
    for part in (n_test, n_valid):
        extra = (train > 1) & (0.1 * n < 1)
        part += extra
        train -= extra
    return n_valid, n_test


def mmrec_counts(n: Int64) -> tuple[Int64, Int64]:
    """n < 10: one each; else floor(0.2 n) held out, the odd one to the test. Users with fewer than 3 events train only."""
    held = np.where(n < 10, 2, (0.2 * n).astype(np.int64)) * (n >= 3)
    return held // 2, held - held // 2


def lattice_counts(n: Int64) -> tuple[Int64, Int64]:
    """As `mmrec_counts`, the odd one to validation."""
    odd, even = mmrec_counts(n)
    return even, odd


def ngcf_counts(n: Int64, valid: float) -> tuple[Int64, Int64]:
    """Train floor(0.8 n) (one at least), test the rest; `valid` of the former, rounded half up, held out for selection."""
    train = np.maximum((0.8 * n).astype(np.int64), np.minimum(n, 1))
    return ratio_counts(train, valid, 0.0)[0], n - train
