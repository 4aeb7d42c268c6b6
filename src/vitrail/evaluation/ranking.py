"""Exact top-k with ties broken by a seeded hash of the outside id, so that a permuted item order changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vitrail.data.vocabulary import mix
from vitrail.errors import VitrailError

REMOVED = float("-inf")
"""The score of an item that must not be ranked."""
GROUP, MANY = 16, 4096
"""Scores that share a maximum where a processor looks for the best of at least MANY."""


def tie_ranks(hashes: npt.NDArray[np.uint64], seed: int = 0) -> Tensor:
    """(N,) int64 place of each item in the order of its hash under `seed`; the lower place wins a tie."""
    order = np.argsort(mix(hashes, seed), kind="stable")
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return torch.from_numpy(ranks)


def mask_(scores: Tensor, indptr: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Set scores (B, N) to -inf in place at the items (E,) of each row, `indptr` (B + 1,) bounding them.

    Returns the flat places (E',) and the scores that were there, with which `unmask_` undoes it.
    """
    rows = torch.repeat_interleave(torch.arange(len(scores), device=items.device), indptr[1:] - indptr[:-1])
    places = (rows * scores.shape[1] + items[int(indptr[0]) : int(indptr[-1])]).to(scores.device)
    flat = scores.view(-1)
    before = flat.index_select(0, places)
    flat.index_fill_(0, places, REMOVED)
    return places, before


def unmask_(scores: Tensor, masked: tuple[Tensor, Tensor]) -> None:
    """Put back what `mask_` removed."""
    scores.view(-1).index_copy_(0, *masked)


def refuse_nan(scores: Tensor) -> None:
    """Raises VitrailError where a score is NaN."""
    if bool(torch.isnan(scores).any()):
        raise VitrailError("The system gave NaN as a score: its weights or its inputs hold NaN or infinite numbers; fit it again with a lower learning rate.")


def top_k(scores: Tensor, k: int, tie_ranks: Tensor | Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """The k best of each row: codes (B, k) int64 and values (B, k) float32, best first, ties by `tie_ranks` (N,), lower first.

    -inf is a removed item: it is never listed, and a short list ends in code -1 with value -inf, as it does where k > N.
    `tie_ranks` may be what gives them, asked only where there are ties. Raises VitrailError where a score is NaN.
    """
    width = min(k, scores.shape[1])
    # torch orders NaN first, so one look at the best column finds any of them; one column more than asked shows a tie at the cut.
    values, codes = _largest(scores, min(width + 1, scores.shape[1]))
    refuse_nan(values[:, :1])
    values = values + 0.0  # -0.0 and 0.0 are one value
    tied = (values[:, 1:] == values[:, :-1]) & (values[:, 1:] > REMOVED)
    rows = tied.any(dim=1).nonzero().flatten()
    cut = tied[rows, width - 1] if values.shape[1] > width else torch.zeros_like(rows, dtype=torch.bool)
    values, codes = values[:, :width], codes[:, :width]
    if len(rows):
        if callable(tie_ranks):
            tie_ranks = tie_ranks()
        values, codes = values.clone(), codes.clone()
        values[rows], codes[rows] = by_tie_rank(values[rows], codes[rows], tie_ranks)
        rows = rows[cut]
    if len(rows):
        assert isinstance(tie_ranks, Tensor)  # some row had a tie
        values[rows], codes[rows] = _fill_from_ties(scores, rows, values[rows], codes[rows], tie_ranks)
    codes = codes.masked_fill(values == REMOVED, -1)
    if width < k:
        codes = torch.nn.functional.pad(codes, (0, k - width), value=-1)
        values = torch.nn.functional.pad(values, (0, k - width), value=REMOVED)
    return codes, values


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`scores.topk(k)` of each row (B, k), any of equal scores. On a processor the k largest are sought in the k groups of columns whose own largest are
    the largest, so that all but those are read once."""
    n, groups = scores.shape[1], scores.shape[1] // GROUP
    if scores.device.type != "cpu" or n < MANY or groups < 4 * k:
        values, codes = scores.topk(k, dim=1)
        return values, codes
    head = groups * GROUP
    group = scores[:, :head].unflatten(1, (GROUP, groups)).amax(1).topk(k, dim=1).indices
    codes = (group[:, None] + groups * torch.arange(GROUP)[:, None]).flatten(1)
    codes = torch.cat([codes, torch.arange(head, n).expand(len(codes), -1)], 1)
    values, place = scores.gather(1, codes).topk(k, dim=1)
    return values, codes.gather(1, place)


def by_tie_rank(values: Tensor, codes: Tensor, tie_ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Order short lists (R, K) by value down, then tie rank up."""
    order = tie_ranks[codes].argsort(dim=1)
    values, codes = values.gather(1, order), codes.gather(1, order)
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values, codes.gather(1, order)


def _fill_from_ties(scores: Tensor, rows: Tensor, values: Tensor, codes: Tensor, tie_ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Lists (R, K) whose last value is shared by items outside of them: those places go to the lowest tie ranks of the whole row."""
    width = values.shape[1]
    last = values[:, -1:]
    small = tie_ranks.to(torch.int32)
    filler = torch.empty_like(codes)
    block = max(1, (2**26 if scores.is_cuda else 2**19) // scores.shape[1])  # a processor is fastest where a block stays in its cache
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        rank = torch.where(scores[rows[part]] == last[part], small, torch.iinfo(torch.int32).max)
        filler[part] = rank.topk(width, dim=1, largest=False).indices
    above = (values > last).sum(dim=1, keepdim=True)
    place = (torch.arange(width, device=codes.device) - above).clamp(min=0)
    return values, torch.where(values > last, codes, filler.gather(1, place))
