"""The log, a share of the users at a time: equal to sorting the whole table at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from vitrail.data import arrange
from vitrail.data.arrange import ArrayFile
from vitrail.data.conditions import compile_condition
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.schema import DatasetInfo
from vitrail.data.vocabulary import mix

N = 500


def events(step: int, *, span: int = 60) -> pl.DataFrame:
    """Times are multiples of `step` microseconds, many of them equal."""
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "user": [f"u{k}" for k in rng.integers(0, 30, N)],
            "item": [f"i{k}" for k in rng.integers(0, 20, N)],
            "timestamp": pl.Series(rng.integers(0, span, N) * step).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "position": rng.integers(0, 9, N),
            "event": rng.choice(["view", "buy", "share"], N),
            "value": rng.random(N),
            "part": rng.choice(["train", "valid", "test"], N),
        }
    )


def reference(data: Dataset, ties: str, seed: int) -> dict[str, Any]:
    """The whole table at once."""
    info, table = data.info, data.interactions.with_row_index("row")
    if info.positive:
        table = table.filter(compile_condition(info.positive, table.columns))
    if info.weights is not None:
        table = table.with_columns(weights=pl.col("event").replace_strict(info.weights, default=0.0, return_dtype=pl.Float32)).filter(pl.col("weights") > 0)
    users, items = data.user_ids.encode(table["user"]), data.item_ids.encode(table["item"])
    keys = [table["row"].to_numpy()]
    if ties == "seeded":
        keys.append(mix(data.item_ids.hashes[items], seed))
    if info.order == "position":
        keys.append(table["position"].to_numpy())
    if info.order == "timestamp":
        keys.append(table["timestamp"].dt.epoch("us").to_numpy())
    if info.timed_parts:
        keys.append(table["part"].replace_strict({"train": 0, "valid": 1, "test": 2}).to_numpy())
    table = table.with_columns(u=users, i=items)[np.lexsort([*keys, users])]
    if info.repeats != "keep":
        table = table.unique(["u", "i"], keep=info.repeats, maintain_order=True).sort("u", maintain_order=True)
        table = table.with_columns(pl.int_range(pl.len()))
    found = {"items": table["i"].to_numpy(), "rows": table["row"].to_numpy()}
    found["indptr"] = np.concatenate([[0], np.cumsum(np.bincount(table["u"].to_numpy(), minlength=len(data.users)))])
    if info.order == "timestamp" and not info.timed_parts:
        found["times"] = table["timestamp"].dt.epoch("us").to_numpy()
    if info.weights is not None:
        found["weights"] = table["weights"].to_numpy()
    return found


@pytest.mark.parametrize("ties", ["seeded", "file"])
@pytest.mark.parametrize(
    ("table", "told"),
    [
        (events(1_000_000), {}),
        (events(1_000), {"repeats": "first"}),
        (events(1), {"repeats": "last", "weights": {"view": 1, "buy": 2.5}}),
        (events(10**15, span=9000), {}),
        (events(10**14 + 1, span=90_000), {"positive": "value >= 0.3"}),
        (events(1), {"timed_parts": ["train"]}),
        (events(1), {"order": "position"}),
        (events(1), {"order": "none", "weights": {"buy": 2.0}}),
    ],
)
def test_equal_to_sorting_everything_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: pl.DataFrame, told: dict[str, Any], ties: str) -> None:
    monkeypatch.setattr(arrange, "BUCKET", 60)
    data = write_dataset(tmp_path / "d", DatasetInfo(**{"name": "d", "order": "timestamp", **told}), table, users=pl.DataFrame({"user": ["quiet"]}))
    expected = reference(data, ties, 3)
    written, built = data.log(ties=ties, seed=3), data._build_log(ties, 3, set(expected))
    for name, array in expected.items():
        assert (getattr(written, name) == array).all() and (built[name] == array).all(), name
        assert getattr(written, name).dtype == built[name].dtype
    assert isinstance(written.items, np.memmap) and set(built) == set(expected)


def test_an_array_file_is_what_numpy_saves(tmp_path: Path) -> None:
    whole = np.arange(1000, dtype=np.int32)
    file = ArrayFile(tmp_path / "a.npy", np.int32)
    for piece in (whole[:0], whole[:7], whole[7:]):
        file.append(piece)
    file.close()
    np.save(tmp_path / "b.npy", whole)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
