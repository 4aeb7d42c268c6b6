"""Business rules as data: what may not be shown, what must be, and how much of a kind a page holds.

Rules are applied to candidates in the order in which the slate put them, all requests of a batch at once, and always with the same outcome:
`exclude` first, then `pin`, then place by place the best candidate that `caps` allow, taking those that `quotas` lack when the
places that are left are needed for them; `bury` moves items behind all others. Letters: B requests, K candidates, k places, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, model_validator

from vitrail.config import PositiveInt, Settings
from vitrail.data.conditions import compile_condition
from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import DataError, did_you_mean

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


class Pin(Settings):
    """An item that stands at a place of the page."""

    item: str
    """Its outside id."""
    position: PositiveInt
    """Its place, from 1."""
    when: str | None = None
    """Only for users for whom this condition over their attributes holds; a user unknown to the catalogue has none. None: for everybody."""


class Quota(Settings):
    """So many items of a kind on the page, as far as there are candidates."""

    where: str
    """The kind: a condition over item attributes."""
    least: PositiveInt
    """How many at least."""


class Rules(Settings):
    """The business rules of a page."""

    exclude: list[str] = []
    """Conditions over item attributes: such items are never shown, pinned or not."""
    bury: list[str] = []
    """Conditions over item attributes: such items come after all others."""
    caps: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Attribute -> most items of the page with the same value of it; for lists, with any of their values in common."""
    quotas: list[Quota] = []
    """Kinds of which the page holds some at least; where a cap and a quota cannot both hold, the cap does."""
    pin: list[Pin] = []
    """Items at given places, whatever scored them; they count for caps and quotas."""
    overflow: Literal["fill", "short"] = "fill"
    """Where caps leave too few candidates: fill the page with what they forbid, best first, or leave it short."""

    @model_validator(mode="after")
    def _one_item_a_place(self) -> Rules:
        everybody = [pin for pin in self.pin if pin.when is None]
        for what in ("position", "item"):
            values = [getattr(pin, what) for pin in everybody]
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"two pins for everybody have the {what} {twice}: keep one, or give them conditions")
        return self


class Ruling:
    """Rules compiled for a catalogue."""

    def __init__(self, rules: Rules, items: pl.DataFrame, users: pl.DataFrame) -> None:
        """`items` and `users` in code order. Raises SettingError for a bad condition, DataError for an unknown item or attribute."""
        self.rules = rules
        self.excluded = _any(rules.exclude, items)
        self.buried = _any(rules.bury, items)
        self.caps = [(attribute_codes(items, name), most) for name, most in rules.caps.items()]
        self.quotas = [(_any([quota.where], items), quota.least) for quota in rules.quotas]
        vocabulary = Vocabulary(items["item"])
        self.pins: list[tuple[int, int, Bool | None]] = []
        for pin in rules.pin:
            code = vocabulary.code(pin.item)
            if code < 0:
                raise DataError(f'The rule pins the item "{pin.item}", which is not in the catalogue of {len(items):,} items.')
            self.pins.append((code, pin.position - 1, None if pin.when is None else _any([pin.when], users)))

    def apply(self, codes: Int64, k: int, users: Int64, allowed: Bool | None = None) -> tuple[Int64, Bool]:
        """codes (B, K) items in the order of the slate, -1 where none is, each once a row; `users` (B,) codes, -1 unknown; `allowed` (N,) or
        (B, N): what a filter of the request leaves, which pins obey too -> (B, k) items of the page, -1 where it is short, and (B, k) which are pinned.
        """
        rows = np.arange(len(codes))
        page = np.full((len(codes), k), -1, dtype=np.int64)
        n = len(self.excluded)
        barred = self.excluded if allowed is None else self.excluded | ~allowed
        shut = np.broadcast_to(barred, (len(codes), n))
        self._pin(page, users, shut)
        pinned = page >= 0
        if not codes.shape[1]:
            return _closed(page, pinned)
        free = (codes >= 0) & ~np.take_along_axis(shut, np.maximum(codes, 0), axis=1)
        free &= ~(codes[:, :, None] == np.where(page < 0, -2, page)[:, None, :]).any(2)
        order = np.argsort(self.buried[np.maximum(codes, 0)], axis=1, kind="stable")
        codes, free = np.take_along_axis(codes, order, axis=1), np.take_along_axis(free, order, axis=1)
        seats = _Seats(self, page)
        meets = [kind[np.maximum(codes, 0)] for kind, _ in self.quotas]
        for place in range(k):
            open_ = page[:, place] < 0
            fits = free & ~seats.full(codes)
            asked = self._asked(seats, meets, fits, left=(page[:, place:] < 0).sum(1))
            chosen: Bool = np.where(np.any(fits & asked, axis=1, keepdims=True), fits & asked, fits)
            if self.rules.overflow == "fill":
                chosen = np.where(np.any(chosen, axis=1, keepdims=True), chosen, free)
            at = chosen.argmax(1)
            takes = open_ & chosen[rows, at]
            item = np.where(takes, codes[rows, at], -1)
            page[:, place] = np.where(open_, item, page[:, place])
            free[rows[takes], at[takes]] = False
            seats.add(item)
        return _closed(page, pinned)

    def _pin(self, page: Int64, users: Int64, shut: Bool) -> None:
        for code, place, when in self.pins:
            if place >= page.shape[1]:
                continue
            holds = ~shut[:, code] & (page[:, place] < 0) & ~(page == code).any(1)
            if when is not None:
                holds &= (users >= 0) & when[np.maximum(users, 0)]
            page[holds, place] = code

    def _asked(self, seats: _Seats, meets: Sequence[Bool], fits: Bool, left: Int64) -> Bool:
        """(B, K) candidates that a quota still lacks, in rows whose open places are all needed for quotas; else all."""
        held = zip(self.quotas, seats.kinds, meets, strict=True)
        lacking = [np.minimum(np.maximum(least - have, 0), (fits & kind).sum(1)) for (_, least), have, kind in held]
        asked = np.zeros(fits.shape, dtype=bool)
        for lack, kind in zip(lacking, meets, strict=True):
            asked |= kind & (lack > 0)[:, None]
        urgent = (sum(lacking) >= left) if lacking else np.zeros(len(fits), dtype=bool)
        return asked | ~np.asarray(urgent)[:, None]


class _Seats:
    """How much of each kind the pages hold so far."""

    def __init__(self, ruling: Ruling, page: Int64) -> None:
        self.ruling = ruling
        self.held = [np.zeros((len(page), int(codes.max(initial=-1)) + 2), dtype=np.int64) for codes, _ in ruling.caps]
        self.kinds = [np.zeros(len(page), dtype=np.int64) for _ in ruling.quotas]
        for column in page.T:
            self.add(column)

    def add(self, items: Int64) -> None:
        """One more item (B,) on each page; -1 for none."""
        rows = np.flatnonzero(items >= 0)
        for (codes, _), held in zip(self.ruling.caps, self.held, strict=True):
            values = codes[items[rows]]
            np.add.at(held, (np.repeat(rows, values.shape[1]), values.ravel()), 1)
        for (kind, _), have in zip(self.ruling.quotas, self.kinds, strict=True):
            have[rows] += kind[items[rows]]

    def full(self, items: Int64) -> Bool:
        """(B, K) candidates of which the page has enough."""
        over = np.zeros(items.shape, dtype=bool)
        rows = np.arange(len(items))[:, None, None]
        for (codes, most), held in zip(self.ruling.caps, self.held, strict=True):
            values = codes[np.maximum(items, 0)]
            over |= ((held[rows, values] >= most) & (values >= 0)).any(2)
        return over


def _closed(page: Int64, pinned: Bool) -> tuple[Int64, Bool]:
    """The page without holes: what stands behind one moves up."""
    order = np.argsort(page < 0, axis=1, kind="stable")
    return np.take_along_axis(page, order, axis=1), np.take_along_axis(pinned, order, axis=1)


def _any(conditions: Sequence[str], table: pl.DataFrame) -> Bool:
    """(N,) rows for which any of the conditions holds."""
    found = np.zeros(len(table), dtype=bool)
    for condition in conditions:
        keep = table.select(compile_condition(condition, table.columns).alias("keep"))["keep"].fill_null(False)
        found |= keep.to_numpy()
    return found


def attribute_codes(items: pl.DataFrame, name: str) -> Int64:
    """(N, M) codes of the values of an attribute, M of them at most an item; -1 where there are fewer."""
    if name not in items.columns or name == "item":
        known = [column for column in items.columns if column != "item"]
        raise DataError(f'The rules cap "{name}", which is no attribute of the items.{did_you_mean(name, known)}')
    column = items[name]
    lists = column if isinstance(column.dtype, pl.List) else column.cast(pl.String).reshape((-1, 1)).cast(pl.List(pl.String))
    table = lists.cast(pl.List(pl.String)).rename("value").to_frame().with_row_index("row").explode("value").drop_nulls().unique(maintain_order=True)
    values = table["value"].to_numpy()
    _, value = np.unique(values.astype(str), return_inverse=True) if len(values) else (None, np.empty(0, dtype=np.int64))
    rows = table["row"].to_numpy().astype(np.int64)
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    codes = np.full((len(items), int(place.max(initial=0)) + 1), -1, dtype=np.int64)
    codes[rows, place] = value
    return codes

