"""Field embedding: coded fields of items, users and impressions -> vectors. B batch, N items, U users, F fields, M values, D width.

An item's fields stand in tables beside the model, so that a batch carries item codes only; a history is looked up by its distinct items. Code 0 is missing,
1 unseen in training: their vectors start at 0, and what never occurs in training stays there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FieldTable(nn.Module):
    """Single-valued fields side by side in one table: codes (..., F) -> vectors (..., F, D)."""

    def __init__(self, sizes: Sequence[int], dim: int, scale: float) -> None:
        """`sizes`: codes of each field; weights are normal with standard deviation `scale`."""
        super().__init__()
        starts = torch.tensor([0, *sizes], dtype=torch.int64).cumsum(0)
        self.register_buffer("starts", starts[:-1], persistent=False)
        self.weight = nn.Parameter(torch.empty(int(starts[-1]), dim))
        with torch.no_grad():
            self.weight.normal_(std=scale)
            self.weight[torch.cat([starts[:-1], starts[:-1] + 1])] = 0.0

    def rows(self, codes: Tensor) -> Tensor:
        """Rows of the table (..., F) of codes (..., F)."""
        return codes.to(torch.int64) + self.get_buffer("starts")

    def forward(self, codes: Tensor) -> Tensor:
        return F.embedding(self.rows(codes), self.weight)


class ListTable(nn.Module):
    """A multi-valued field: codes (..., M), filled up with 0 -> the mean vector of those that are there (..., D)."""

    def __init__(self, size: int, dim: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, dim))
        nn.init.normal_(self.weight, std=scale)
        with torch.no_grad():
            self.weight[:2] = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        there = (codes > 0).to(self.weight.dtype)
        share = there / there.sum(-1, keepdim=True).clamp(min=1)
        return (F.embedding(codes.to(torch.int64), self.weight) * share[..., None]).sum(-2)


class FeatureEmbedding(nn.Module):
    """All fields of a ranker."""

    def __init__(
        self,
        dim: int,
        *,
        items: Tensor,
        item_sizes: Sequence[int],
        lists: Mapping[str, Tensor] | None = None,
        list_sizes: Sequence[int] = (),
        users: Tensor | None = None,
        user_sizes: Sequence[int] = (),
        event_sizes: Sequence[int] = (),
        scale: float = 1e-2,
    ) -> None:
        """`items` (N, F) and `lists` name -> (N, M) codes of items, `users` (U + 1, F) codes of users, the last row a stranger's; sizes are how many codes
        each field has; `scale` the standard deviation weights start with."""
        super().__init__()
        self.register_buffer("item_codes", items, persistent=False)
        self.of_items = FieldTable(item_sizes, dim, scale)
        self._lists = list(lists or ())
        for place, codes in enumerate((lists or {}).values()):
            self.register_buffer(f"list_{place}", codes, persistent=False)
        self.of_lists = nn.ModuleList(ListTable(size, dim, scale) for size in list_sizes)
        self.register_buffer("user_codes", users if users is not None else torch.zeros(1, 0, dtype=torch.int32), persistent=False)
        self.of_users = FieldTable(user_sizes, dim, scale)
        self.of_events = FieldTable(event_sizes, dim, scale)
        self.item_fields, self.other_fields = len(item_sizes) + len(list_sizes), len(user_sizes) + len(event_sizes)
        self.dim, self.item_width = dim, dim * self.item_fields
        """D, and H, the width of an item's vector: D a field"""

    def item(self, codes: Tensor) -> Tensor:
        """item codes (...,) -> (..., H), the vectors of its fields one after another"""
        vectors = [self.of_items(self.get_buffer("item_codes")[codes]).flatten(-2)]
        vectors += [table(self.get_buffer(f"list_{place}")[codes]) for place, table in enumerate(self.of_lists)]
        return torch.cat(vectors, dim=-1)

    def distinct(self, *codes: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Item codes of any shapes -> the distinct ones (n,), and each given tensor as places among them."""
        flat = torch.cat([part.flatten() for part in codes])
        n_items = len(self.get_buffer("item_codes"))
        if n_items <= 64 * len(flat):  # a mark for every item is cheaper than sorting what was given
            marks = torch.zeros(n_items, dtype=torch.bool, device=flat.device)
            marks[flat] = True
            present, place = marks.nonzero().squeeze(1), marks.cumsum(0) - 1
            return present, [place[part] for part in codes]
        present, inverse = torch.unique(flat, return_inverse=True)
        return present, [part.view(given.shape) for part, given in zip(inverse.split([part.numel() for part in codes]), codes, strict=True)]

    def others(self, users: Tensor, fields: Tensor) -> Tensor:
        """users (B,), -1 a stranger, and event fields (B, F) -> (B, F', D)"""
        return torch.cat([self.of_users(self.get_buffer("user_codes")[users]), self.of_events(fields)], dim=1)  # -1 is the last row: the stranger's


def rare_penalty(table: FieldTable | ListTable, codes: Tensor, counts: Tensor) -> Tensor:
    """Mini-batch aware regularisation of DIN: the sum over the rows of `table` that occur in `codes` of ||row||^2 / n_row.

    `counts` (rows,): how often each row occurs in the whole training set. Rows that do not occur get exactly no gradient.
    """
    rows = torch.unique(table.rows(codes) if isinstance(table, FieldTable) else codes.to(torch.int64))
    return (F.embedding(rows, table.weight).square().sum(-1) / counts[rows].clamp(min=1)).sum()
