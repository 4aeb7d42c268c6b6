"""Field embedding: coded fields of items, users and impressions -> vectors. B batch, N items, U users, F fields, M values, D width.

An item's fields stand in tables beside the model, so that a batch carries item codes only; a history is looked up by its distinct items. Code 0 is missing,
1 unseen in training: their vectors start at 0, and what never occurs in training stays there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.compress import Storage, Store


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


class StoredTable(nn.Module):
    """`FieldTable` where some fields are stored in less than a row a code: codes (..., F) -> vectors (..., F, D)."""

    def __init__(self, sizes: Sequence[int], dim: int, scale: float, stores: Sequence[Store | None]) -> None:
        """`stores`: that of each field, none where it is stored whole."""
        super().__init__()
        whole = [place for place, store in enumerate(stores) if store is None]
        self.whole = FieldTable([sizes[place] for place in whole], dim, scale)
        self.stores = nn.ModuleList(store for store in stores if store is not None)
        self._whole, self._stored = whole, [place for place, store in enumerate(stores) if store is not None]

    def forward(self, codes: Tensor) -> Tensor:
        vectors = self.whole(codes[..., self._whole])
        found = {place: vectors[..., n, :] for n, place in enumerate(self._whole)}
        found |= {place: store(codes[..., place]) for place, store in zip(self._stored, self.stores, strict=True)}
        return torch.stack([found[place] for place in range(len(found))], dim=-2)


def field_table(sizes: Sequence[int], dim: int, scale: float, stores: Sequence[Store | None]) -> FieldTable | StoredTable:
    """A table over fields of which each has its store, or is stored whole."""
    return FieldTable(sizes, dim, scale) if all(store is None for store in stores) else StoredTable(sizes, dim, scale, stores)


class ListTable(nn.Module):
    """A multi-valued field: codes (..., M), filled up with 0 -> the mean vector of those that are there (..., D)."""

    def __init__(self, size: int, dim: int, scale: float, store: Store | None = None) -> None:
        """`store`: where it is not stored whole."""
        super().__init__()
        self.store = store
        if store is not None:
            return
        self.weight = nn.Parameter(torch.empty(size, dim))
        nn.init.normal_(self.weight, std=scale)
        with torch.no_grad():
            self.weight[:2] = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        vectors = F.embedding(codes.to(torch.int64), self.weight) if self.store is None else self.store(codes)
        there = (codes > 0).to(vectors.dtype)
        share = there / there.sum(-1, keepdim=True).clamp(min=1)
        return (vectors * share[..., None]).sum(-2)


class ContentFields(nn.Module):
    """Frozen content vectors as fields of items: a map of the direction of each, W x / |x| + b; an item without content has a learned vector, 0 at first."""

    def __init__(self, vectors: Mapping[str, Tensor], masks: Mapping[str, Tensor], dim: int, scale: float) -> None:
        """vectors name -> (N, width), which are read where they lie; masks name -> (N,) true where an item has content."""
        super().__init__()
        self.names = list(vectors)
        for place, name in enumerate(self.names):
            self.register_buffer(f"values_{place}", vectors[name], persistent=False)
            self.register_buffer(f"mask_{place}", masks[name], persistent=False)
        self.maps = nn.ModuleList(nn.Linear(values.shape[1], dim) for values in vectors.values())
        self.missing = nn.Parameter(torch.zeros(len(self.names), dim))
        for layer in self.maps:
            nn.init.normal_(layer.weight, std=scale)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, codes: Tensor) -> list[Tensor]:
        """item codes (...,) -> (..., D) of each kind of content"""
        found = []
        for place, layer in enumerate(self.maps):
            vectors = layer(F.normalize(self.get_buffer(f"values_{place}")[codes].float(), dim=-1))
            found.append(torch.where(self.get_buffer(f"mask_{place}")[codes][..., None], vectors, self.missing[place]))
        return found


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
        content: ContentFields | None = None,
        storage: Storage | None = None,
    ) -> None:
        """`items` (N, F) and `lists` name -> (N, M) codes of items, `users` (U + 1, F) codes of users, the last row a stranger's; sizes are how many codes
        each field has; `scale` the standard deviation weights start with; `content` further fields of items; `storage`: in less than a row a code."""
        super().__init__()
        sizes = [*item_sizes, *list_sizes, *user_sizes, *event_sizes]
        stores, self.pool = (storage or Storage()).stores(sizes, dim, scale)
        stored = iter(stores)
        of_items, of_lists, of_users, of_events = ([next(stored) for _ in part] for part in (item_sizes, list_sizes, user_sizes, event_sizes))
        self.whole_numbers = dim * sum(sizes)
        """numbers that a row a code takes"""
        self.register_buffer("item_codes", items, persistent=False)
        self.of_items = field_table(item_sizes, dim, scale, of_items)
        self._lists = list(lists or ())
        for place, codes in enumerate((lists or {}).values()):
            self.register_buffer(f"list_{place}", codes, persistent=False)
        self.of_lists = nn.ModuleList(ListTable(size, dim, scale, store) for size, store in zip(list_sizes, of_lists, strict=True))
        self.register_buffer("user_codes", users if users is not None else torch.zeros(1, 0, dtype=torch.int32), persistent=False)
        self.of_users = field_table(user_sizes, dim, scale, of_users)
        self.of_events = field_table(event_sizes, dim, scale, of_events)
        self.content = content
        contents = 0 if content is None else len(content.names)
        self.item_fields, self.other_fields = len(item_sizes) + len(list_sizes) + contents, len(user_sizes) + len(event_sizes)
        self.dim, self.item_width = dim, dim * self.item_fields
        """D, and H, the width of an item's vector: D a field"""

    def item(self, codes: Tensor) -> Tensor:
        """item codes (...,) -> (..., H), the vectors of its fields one after another"""
        vectors = [self.of_items(self.get_buffer("item_codes")[codes]).flatten(-2)]
        vectors += [table(self.get_buffer(f"list_{place}")[codes]) for place, table in enumerate(self.of_lists)]
        return torch.cat([*vectors, *(self.content(codes) if self.content is not None else ())], dim=-1)

    def numbers(self) -> int:
        """Numbers by which fields are stored, those of content vectors aside."""
        own = sum(p.numel() for p in self.parameters())
        return own if self.content is None else own - sum(p.numel() for p in self.content.parameters())

    def codes(self, items: Tensor, users: Tensor, fields: Tensor) -> Tensor:
        """items (B,), users (B,), event fields (B, F) -> (B, F') codes of all fields of one value: of the item, the user, the impression."""
        of_items, of_users = self.get_buffer("item_codes")[items], self.get_buffer("user_codes")[users]
        return torch.cat([of_items.to(torch.int64), of_users.to(torch.int64), fields], dim=1)

    def distinct(self, *codes: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Item codes of any shapes -> the distinct ones (n,), and each given tensor as places among them."""
        n_items = len(self.get_buffer("item_codes"))
        if torch.onnx.is_in_onnx_export():  # what is distinct differs from batch to batch; a runtime works out what depends on the catalogue alone once
            return torch.arange(n_items), list(codes)
        flat = torch.cat([part.flatten() for part in codes])
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


class FirstOrder(nn.Module):
    """The linear part of a click-through model: a weight for each code of each field of the item, the user and the impression, 0 at first, and a bias."""

    def __init__(self, features: FeatureEmbedding, *, bias: bool) -> None:
        """`features`: tables of width 1 of its own."""
        super().__init__()
        self.features = features
        self.bias = nn.Parameter(torch.zeros(())) if bias else None

    def forward(self, items: Tensor, users: Tensor, fields: Tensor) -> Tensor:
        """items (B,), users (B,), fields (B, F) -> (B,)"""
        total: Tensor = self.features.item(items).sum(-1) + self.features.others(users, fields).sum((-1, -2))
        return total if self.bias is None else total + self.bias


def rare_penalty(table: FieldTable | StoredTable | ListTable, codes: Tensor, counts: Tensor) -> Tensor:
    """Mini-batch aware regularisation of DIN: the sum over the rows of `table` that occur in `codes` of ||row||^2 / n_row.

    `counts` (rows,): how often each row occurs in the whole training set. Rows that do not occur get exactly no gradient.
    """
    assert not isinstance(table, StoredTable), "rows that codes share have no counts"
    rows = torch.unique(table.rows(codes) if isinstance(table, FieldTable) else codes.to(torch.int64))
    return (F.embedding(rows, table.weight).square().sum(-1) / counts[rows].clamp(min=1)).sum()
