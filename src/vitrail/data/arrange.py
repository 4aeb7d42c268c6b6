"""The events of a data set -> CSR arrays by user and time, a share of the users at a time, so that the table is never held.

Pass one reads stretches of rows, turns ids into codes and deals the events to buckets of users; pass two orders a bucket and hands
it on. About 20 bytes an event are held at the peak, and what is handed on is written or kept by the one who asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.data.conditions import compile_condition
from vitrail.data.schema import DatasetInfo
from vitrail.data.tables import scan_chunks
from vitrail.data.vocabulary import UInt64, Vocabulary
from vitrail.errors import ArtifactError

Arrays = dict[str, npt.NDArray[Any]]
BUCKET = 1 << 22
"""Events ordered at once, about."""
PARTS = {"train": 0, "valid": 1, "test": 2}


class Arranger:
    """Orders the events of `interactions.parquet`."""

    def __init__(self, path: Path, info: DatasetInfo, users: Vocabulary, items: Vocabulary, ties: UInt64 | None) -> None:
        """`ties` (N,): what orders the items of one instant; none: the rows of the file."""
        self.path, self.info, self.users, self.items, self.ties = path, info, users, items, ties
        self.clock = info.order == "timestamp" and not info.timed_parts
        self.lengths = np.zeros(len(users), dtype=np.int64)
        few = info.counts.get("events", 2**31) < 2**31
        self.types = {"items": np.int32, "rows": np.int32 if few else np.int64, "times": np.int64, "weights": np.float32}

    def buckets(self) -> Iterator[Arrays]:
        """Arrays items, rows and, as there are, times and weights of some users at a time, in code order; `lengths` is filled on the way.

        Raises ArtifactError where the tables do not belong together or cannot be read.
        """
        dealt = self._deal()
        for number in range(len(dealt)):
            pieces, dealt[number] = dealt[number], []
            if pieces:
                made = self._ordered({name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]})
                del pieces
                self.lengths += np.bincount(made.pop("users"), minlength=len(self.users))
                yield made

    def _columns(self) -> list[str]:
        wanted = ["user", "item"]
        if self.info.order != "none":
            wanted.append(self.info.order)
        if self.info.timed_parts:
            wanted.append("part")
        if self.info.weights is not None:
            wanted.append("event")
        return wanted

    def _deal(self) -> list[list[Arrays]]:
        """Bucket -> its events, in the order of the file, in pieces."""
        file = self.path / "interactions.parquet"
        dealt: list[list[Arrays]] = []
        try:
            every = pl.scan_parquet(file).collect_schema().names()
            keep = compile_condition(self.info.positive, every) if self.info.positive else None
            columns = [name for name in every if name in {*self._columns(), *(keep.meta.root_names() if keep is not None else ())}]
            total = int(pl.scan_parquet(file).select(pl.len()).collect().item())
            share = max(-(-len(self.users) * BUCKET // max(total, 1)), 1)
            dealt = [[] for _ in range(-(-len(self.users) // share))]
            for start, table in scan_chunks(file, columns):
                events = self._coded(table, start, keep)
                bucket = (events["users"] // share).astype(np.uint16 if len(dealt) < 2**16 else np.int64)
                order = np.argsort(bucket, kind="stable")
                ends = np.cumsum(np.bincount(bucket, minlength=len(dealt))).tolist()
                for number, (a, b) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
                    if b > a:
                        dealt[number].append({name: array[order[a:b]] for name, array in events.items()})
        except FileNotFoundError:
            raise ArtifactError(f"{file} is missing: the data set is incomplete; ingest the data again.") from None
        except (pl.exceptions.PolarsError, OSError):
            raise ArtifactError(f"{file} is damaged: it is not readable Parquet; ingest the data again.") from None
        return dealt

    def _coded(self, table: pl.DataFrame, start: int, keep: pl.Expr | None) -> Arrays:
        """The events of a stretch of rows that count, as codes and numbers."""
        table = table.with_row_index("row")
        if keep is not None:
            table = table.filter(keep)
        if self.info.weights is not None:
            weights = pl.col("event").replace_strict(self.info.weights, default=0.0, return_dtype=pl.Float32)
            table = table.with_columns(weights=weights).filter(pl.col("weights") > 0)
        users, items = self.users.encode(table["user"]), self.items.encode(table["item"])
        if (users < 0).any() or (items < 0).any():
            raise ArtifactError(f"{self.path}: interactions.parquet has users or items that its tables lack; it was changed or damaged: ingest the data again.")
        rows = (table["row"].to_numpy().astype(np.int64) + start).astype(self.types["rows"])
        found: Arrays = {"users": users.astype(np.int32), "items": items.astype(np.int32), "rows": rows}
        if self.info.order == "position":
            found["when"] = table["position"].to_numpy()
        elif self.info.order == "timestamp":
            found["when"] = table["timestamp"].dt.epoch("us").fill_null(np.iinfo(np.int64).max).to_numpy()
        if self.info.timed_parts:
            found["part"] = table["part"].replace_strict(PARTS, return_dtype=pl.Int8).to_numpy()
        if self.info.weights is not None:
            found["weights"] = table["weights"].to_numpy()
        return found

    def _ordered(self, events: Arrays) -> Arrays:
        """One bucket in order, without what is repeated."""
        order = self._order(events)
        if self.info.repeats != "keep":
            pair = (events["users"].astype(np.int64) * len(self.items) + events["items"])[order]
            last = self.info.repeats == "last"
            first = np.unique(pair[::-1] if last else pair, return_index=True)[1]
            order = order[np.sort(len(pair) - 1 - first if last else first)]
        found = {name: array[order] for name, array in events.items() if name not in ("when", "part")}
        if self.clock:
            found["times"] = events["when"][order]
        return found

    def _order(self, events: Arrays) -> npt.NDArray[np.intp]:
        """The place of each event of a bucket; what nothing decides stays in the order of the file."""
        keys: list[npt.NDArray[Any]] = [] if self.ties is None else [self.ties[events["items"]]]
        packed = _packed(events["users"], events.get("when")) if "part" not in events else None
        if packed is None:
            keys += [events[name] for name in ("when", "part") if name in events]
            return np.lexsort([*keys, events["users"]])
        order = np.argsort(packed, kind="stable")
        if keys:
            # few events share an instant: only they are ordered by the tie
            sorted_keys = packed[order]
            same = sorted_keys[1:] == sorted_keys[:-1]
            tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
            among = order[tied]
            order[tied] = among[np.lexsort([keys[0][among], packed[among]])]
        return order


def _packed(users: npt.NDArray[np.int32], when: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64] | None:
    """User and time as one number that orders as both do; none where it would be too large."""
    if not len(users):
        return users.astype(np.int64)
    first = int(users.min())
    if when is None:
        return users.astype(np.int64) - first
    if when.dtype.kind != "i":
        return None
    low, high = int(when.min()), int(when.max())
    if high - low >= 2**62:
        return None
    step = next((s for s in (1_000_000, 1_000) if not ((when - low) % s).any()), 1) if (high - low) else 1
    span = (high - low) // step + 1
    if span * (int(users.max()) - first + 1) >= 2**63:
        return None
    return (users.astype(np.int64) - first) * span + (when - low) // step


class ArrayFile:
    """A .npy file that grows; its length is written when it is closed."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.file: BinaryIO = path.open("wb")
        self.dtype, self.length = np.dtype(dtype), 0
        self._header()

    def _header(self) -> None:
        np.lib.format.write_array_header_1_0(self.file, {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.length,)})

    def append(self, array: npt.NDArray[Any]) -> None:
        """Write further elements."""
        self.file.write(np.ascontiguousarray(array, dtype=self.dtype).data)
        self.length += len(array)

    def close(self) -> None:
        """Write the length and close."""
        self.file.seek(0)
        self._header()
        self.file.close()
