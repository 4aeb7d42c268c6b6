"""Parts as queries, and what leaks between them. Q queries, E events, U users, N items."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vitrail.data.log import Log, blocks, distinct, indptr_of
from vitrail.data.split import Part, Split, histories_of
from vitrail.resources import afford_memory, free_memory

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
NO_HISTORY = "no history"
ALL_SEEN = "all targets seen before"
NO_COLD = "no cold target"
MARKS = 1 << 24
"""Cells up to which what is sought is marked in a table, a byte each; beyond, each look is a binary search."""


class Asked(Protocol):
    """What a split reads of a protocol."""

    @property
    def fit_on(self) -> str:
        """train or train+valid"""

    @property
    def history_at_test(self) -> str:
        """train, train+valid or everything before (with rolling queries also earlier test events)"""

    @property
    def mask(self) -> str:
        """none, train, train+valid or everything before: whose items are removed from the ranking"""

    @property
    def candidates(self) -> str:
        """all, or cold: only items without a training event are ranked and asked for"""


def build_part(
    name: str, log: Log, labels: npt.NDArray[np.int8], protocol: Asked, train: Log, only: Bool | None, *, rolling: bool, past: Log | None = None
) -> Part:
    """The queries of the part `name` (valid or test), in user code order, then time.

    `labels` (E,) part of each event; `train` what is fitted on; `only` (N,) the items the split ranks, none: all;
    `past` the log of the histories, where it is made already.
    """
    own = labels == {"valid": 1, "test": 2}[name]
    shown = {"train": 1}.get(protocol.history_at_test, 2) if name == "test" else 1
    hidden = {"none": 0, "train": 1}.get(protocol.mask, 2) if name == "test" else {"none": 0}.get(protocol.mask, 1)
    if only is None and protocol.candidates == "cold":
        only = train.item_counts == 0
    asked = own if only is None else own & only[log.items]
    if rolling:
        part = _rolling(name, log, asked, hidden > 0)
    else:
        part = _static(name, log, asked, log.where(labels < shown) if past is None else past, labels < hidden)
    if only is None:
        return part
    warm = int((own & ~asked).sum()) if rolling else len(np.setdiff1d(log.owners(np.flatnonzero(own)), log.owners(np.flatnonzero(asked))))
    return replace(part, candidates=only, left_out=part.left_out | ({NO_COLD: warm} if warm else {}))


def _static(name: str, log: Log, own: Bool, past: Log, masked: Bool) -> Part:
    """One query per user: everything known at the cut (`past`), asked for all that came in this part."""
    pieces, no_history, all_seen = [], 0, 0
    for a, b in blocks(log.indptr):
        piece, without, seen = _asked_of(log, own, past.lengths, masked, a, b)
        pieces.append(piece)
        no_history, all_seen = no_history + without, all_seen + seen
    none = np.zeros(0, dtype=np.int64)
    keep, counts, targets, first, hidden, mask = (
        np.concatenate([none.astype(np.int32) if place == 5 else none, *(piece[place] for piece in pieces)]) for place in range(6)
    )
    left_out = {NO_HISTORY: no_history, ALL_SEEN: all_seen}
    return Part(
        name,
        histories_of(past, keep),
        mask_indptr=indptr_of(hidden),
        mask_items=mask,
        target_indptr=indptr_of(counts),
        target_items=targets,
        left_out={reason: count for reason, count in left_out.items() if count},
        target_rows=None if log.rows is None else np.asarray(log.rows[first]),
        target_times=None if log.times is None else np.asarray(log.times[first]),
    )


def _asked_of(log: Log, own: Bool, known: Int64, masked: Bool, a: int, b: int) -> tuple[list[npt.NDArray[Any]], int, int]:
    """Of the users [a, b): [who is asked, how many targets each, the targets, their first events, how many items are masked for each, these],
    how many have no history, how many nothing new. `known` (U,) events of each user at the cut."""
    start, stop = int(log.indptr[a]), int(log.indptr[b])
    mine = np.flatnonzero(own[start:stop]) + start
    owners, items = log.owners(mine), log.items[mine].astype(np.int64)
    targets, first = np.unique(owners * log.n_items + items, return_index=True)
    users = targets // log.n_items
    asked = known[users] > 0
    hidden = np.flatnonzero(masked[start:stop]) + start
    whose = log.owners(hidden)
    concerned = np.zeros(b - a, dtype=bool)
    concerned[users - a] = True
    near = hidden[concerned[whose - a]]
    seen = whose[concerned[whose - a]] * log.n_items + log.items[near]
    fresh = asked & ~_contains(distinct(seen[_contains(targets, seen)]), targets)
    keep, counts = np.unique(users[fresh], return_counts=True)
    wanted = np.zeros(b - a, dtype=bool)
    wanted[keep - a] = True
    own_mask = wanted[whose - a]
    lengths = np.bincount(whose[own_mask] - a, minlength=b - a)[keep - a]
    piece = [keep, counts, targets[fresh] % log.n_items, mine[first[fresh]], lengths, np.asarray(log.items[hidden[own_mask]])]
    return piece, len(distinct(users[~asked])), len(distinct(users[asked])) - len(keep)


def _rolling(name: str, log: Log, own: Bool, mask: bool) -> Part:
    """One query per event: everything of the user before it, asked for that event. The mask, where there is one, is that history."""
    events = np.flatnonzero(own)
    users = log.owners(events)
    starts = log.indptr[users]
    asked = events > starts
    fresh = asked.copy()
    if mask:
        _, first, inverse = np.unique(log.users * log.n_items + log.items, return_index=True, return_inverse=True)
        fresh &= first[inverse[events]] == events
    left_out = {NO_HISTORY: int((~asked).sum()), ALL_SEEN: int((asked & ~fresh).sum())}
    events, users, starts = events[fresh], users[fresh], starts[fresh]
    _afford(int((events - starts).sum()), 3 if log.times is not None else 2, name)
    histories = log.spans(users, starts, events)
    return Part(
        name,
        histories,
        mask_indptr=histories.indptr.numpy() if mask else np.zeros(len(events) + 1, dtype=np.int64),
        mask_items=histories.items.numpy() if mask else np.zeros(0, dtype=np.int64),
        target_indptr=np.arange(len(events) + 1),
        target_items=log.items[events].astype(np.int64),
        left_out={reason: count for reason, count in left_out.items() if count},
        target_rows=None if log.rows is None else np.asarray(log.rows[events]),
        target_times=None if log.times is None else np.asarray(log.times[events]),
    )


def _afford(entries: int, arrays: int, name: str) -> None:
    """Raises ResourceError where the histories of rolling queries cannot fit into memory."""
    what = f"The {name} part, with {entries:,} history events of rolling queries,"
    afford_memory(entries * 8 * arrays, free_memory(), what, "use rolling=false or a smaller share")


def _contains(sorted_keys: Int64, keys: Int64) -> Bool:
    """Whether each of `keys` is among `sorted_keys`."""
    if not len(sorted_keys):
        return np.zeros(len(keys), dtype=bool)
    lowest, span = sorted_keys[0], int(sorted_keys[-1] - sorted_keys[0]) + 1
    if span <= MARKS:
        marks = np.zeros(span + 1, dtype=bool)
        marks[sorted_keys - lowest] = True
        # what lies below the lowest is a huge number without its sign; all that lies outside ends at the last mark, which is never set
        found: Bool = marks[np.minimum((keys - lowest).view(np.uint64), np.uint64(span))]
        return found
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return sorted_keys[place] == keys


def _spans(starts: Int64, stops: Int64) -> tuple[Int64, Int64]:
    """CSR row pointers and the gather index of the spans [start, stop)."""
    lengths = stops - starts
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return indptr, np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])


def leaks(split: Split) -> tuple[str, ...]:
    """Sentences about leakage found in the events of `split`; see splits.check_leaks."""
    found: list[str] = []
    parts = [part for part in (split.valid, split.test) if part is not None]
    logs = {"the training events": split.train, "what is known at the test": split.known}
    for part in parts:
        for what, log in logs.items():
            if part.name == "valid" and log is split.known:
                continue
            if log.rows is not None and part.target_rows is not None and (shared := _overlap(log.rows, part.target_rows)):
                found.append(f"{shared:,} {part.name} events are also among {what}.")
        found += _of_queries(part, len(split.cold_items))
    rows = [part.target_rows for part in parts if part.target_rows is not None]
    if len(rows) == 2 and (shared := _overlap(rows[0], rows[1])):
        found.append(f"{shared:,} test events are also validation events.")
    test = split.test
    if split.train.times is None or test is None or test.target_times is None or not len(test):
        return tuple(found)
    if split.name == "temporal":
        newest, order = int(split.train.times.max()), "training"
        for part in parts:
            times = part.target_times
            if times is not None and len(times):
                if int(times.min()) <= newest:
                    found.append(f"The oldest {part.name} event is not after the newest {order} event.")
                newest, order = int(times.max()), part.name
    after = float(np.mean(split.train.times > np.median(test.target_times)))
    if after > 0:
        found.append(f"By design {_percent(after)} of the training events happen after the median test event: a system may learn from the future.")
    return tuple(found)


def _overlap(rows: npt.NDArray[np.integer], others: npt.NDArray[np.integer]) -> int:
    """How many of the distinct `others` are among `rows`; marks are faster than sorting here."""
    marks = np.zeros(max(int(rows.max(initial=-1)), int(others.max(initial=-1))) + 1, dtype=bool)
    marks[rows] = True
    return int(marks[others].sum())


def _of_queries(part: Part, n_items: int) -> list[str]:
    found = []
    masked = repeated = 0
    for start, histories in part.history_blocks():
        stop = start + len(histories)
        queries = np.repeat(np.arange(stop - start), np.diff(part.target_indptr[start : stop + 1]))
        targets = np.sort(queries * n_items + part.target_items[part.target_indptr[start] : part.target_indptr[stop]])
        hidden = part.mask_indptr[start : stop + 1]
        masked += _shared(targets, hidden - hidden[0], part.mask_items[hidden[0] : hidden[-1]], n_items)
        repeated += _shared(targets, histories.indptr.numpy(), histories.items.numpy(), n_items)
    if masked:
        found.append(f"{masked:,} {part.name} targets are masked and can never be answered.")
    if repeated > masked:
        share = _percent((repeated - masked) / len(part.target_items))
        found.append(f"{share} of the {part.name} targets are already in the history of their query and not masked: repeating is rewarded.")
    return found


def _shared(targets: Int64, indptr: Int64, items: npt.NDArray[np.integer], n_items: int) -> int:
    """How many of the sorted keys `targets` are among the items of their query."""
    keys = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)) * n_items + items
    return len(distinct(keys[_contains(targets, keys)]))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "less than 0.1 %"


def describe(part: Part) -> dict[str, Any]:
    """Counts of a part, for printing: queries, targets, and what was left out."""
    return {"queries": len(part), "targets": len(part.target_items), "left_out": dict(part.left_out)}
