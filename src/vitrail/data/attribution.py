"""Delayed feedback: whether what was shown led to an event within a declared window, and what becomes of rows whose window is not over. R rows.

A label never reads an event at or after the moment its part ends: training rows end where the next part begins. While a window is open, a success that has
come weighs 1 over the chance that it comes so soon, as the delays of the closed training rows tell (the importance weights of Yasui et al., WWW 2020,
arXiv:2002.02068); a failure, which may still turn, keeps its weight: nearly right where successes are rare. Rows that are measured are always closed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vitrail.data.conditions import matches
from vitrail.data.dataset import Dataset
from vitrail.data.declare import microseconds
from vitrail.data.impressions import Rows
from vitrail.data.log import Log
from vitrail.data.splits import Shown
from vitrail.data.splits_labels import TEST, TRAIN, VALID
from vitrail.data.windows import Stream
from vitrail.errors import DataError

Int64 = npt.NDArray[np.int64]
Parts = npt.NDArray[np.int8]
LEFT_OUT = -1
"""The part of rows that are in none."""
NEVER = np.iinfo(np.int64).max


def delays(rows: Rows, log: Log, held: npt.NDArray[np.bool_], window: int) -> Int64:
    """(R,) microseconds from each row to the first event of its user with its item, among those that are `held` (E,), within `window`; NEVER without one."""
    assert rows.times is not None and log.times is not None
    keys = log.users * log.n_items + log.items
    stream = Stream(keys[held], np.asarray(log.times)[held])
    start, stop = stream.spans(rows.users * log.n_items + rows.items, rows.times, rows.times + window)
    if not len(stream):
        return np.full(len(rows), NEVER)
    return np.where(stop > start, stream.times[np.minimum(start, len(stream) - 1)] - rows.times, NEVER)


def attributed(rows: Rows, parts: Parts, log: Log, dataset: Dataset, settings: Shown) -> tuple[Rows, Rows, Parts, tuple[str, ...]]:
    """The rows with what had come of them when their part ended as their labels; the same with all that came within their windows, which may be counted
    once these are over; the part of each (LEFT_OUT: none); and what to say of it.

    Raises DataError where there are no clock times, or the parts do not follow each other in time.
    """
    assert settings.within is not None
    if rows.times is None or log.times is None:
        raise DataError(f'Data set "{dataset.info.name}" has no clock times, and within={settings.within} counts them: leave it out of --split.')
    window, held = microseconds(settings.within), np.ones(len(log), dtype=bool)
    if settings.objective is not None:
        held = matches(settings.objective, dataset.interactions).to_numpy()[np.asarray(log.rows)]
    after = delays(rows, log, held, window)
    ends = _ends(rows.times, parts, int(log.times.max(initial=0)), dataset.info.name)[parts]
    came = (after != NEVER) & (rows.times + np.where(after == NEVER, 0, after) < ends)
    kept = closed = rows.times + window <= ends
    weights = rows.weights
    if settings.pending == "weigh":
        kept = closed | (parts == TRAIN)
        soon = np.sort(after[closed & came & (parts == TRAIN)])
        share = np.searchsorted(soon, ends - rows.times) / max(len(soon), 1)  # of the successes, how many come by then
        weight = np.where(~closed & came & kept, np.minimum(1 / np.maximum(share, 1e-9), settings.largest_weight), 1.0).astype(np.float32)
        weights = weight if weights is None else weights * weight
    became = "left out" if settings.pending == "leave_out" else "weighed where they train, left out where they are measured"
    lost = int((~closed).sum())
    said = (f"{lost:,} of {len(rows):,} rows have a window of {settings.within} that is not over when their part ends: {became}.",) if lost else ()
    own = replace(rows, labels=came.astype(np.float32), weights=weights)
    return own, replace(rows, labels=(after != NEVER).astype(np.float32)), np.where(kept, parts, LEFT_OUT).astype(np.int8), said


def _ends(times: Int64, parts: Parts, last: int, name: str) -> Int64:
    """(3,) the moment at which what is known of each part ends: where the next one begins, or the log ends."""
    ends = np.full(3, max(last, int(times.max(initial=0))) + 1)
    for part, later in ((VALID, (TEST,)), (TRAIN, (VALID, TEST))):
        coming = times[np.isin(parts, later)]
        if len(coming):
            ends[part] = coming.min()
        if (times[parts == part] > ends[part]).any():
            raise DataError(f'The parts of the impressions of "{name}" do not follow each other in time, so no window can end between them: use cut=time.')
    return ends
