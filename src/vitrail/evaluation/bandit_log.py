"""Logs of what was shown, with what chance, and what was clicked: the input of off-policy estimates.

One row an impression: `request_id` (String or null), `user` (String or null), `item` (String), `position` (Int64, from 1), `clicked` (Float64, 0 or 1, or a
reward), `propensity` (Float64, the chance of the item at its place); whatever else the file holds stays beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.errors import DataError, SettingError
from vitrail.evaluation.offpolicy import OffPolicy, evaluate_policy

NAMES = {
    "request_id": ("request_id", "request"),
    "user": ("user", "user_id"),
    "item": ("item", "item_id"),
    "position": ("position",),
    "clicked": ("clicked", "click", "reward"),
    "propensity": ("propensity", "propensity_score", "pscore"),
}
"""Column of ours -> names it goes by."""
OPEN_BANDIT = "item_context.csv"
"""The file by which a folder of the Open Bandit Dataset is known."""


def read_impressions(path: str | Path) -> pl.DataFrame:
    """The impressions of a Parquet, CSV or JSON-lines file, or of a campaign folder of the Open Bandit Dataset (its log beside item_context.csv).

    Raises DataError: the file is absent or unreadable, or a column is missing or malformed.
    """
    place = Path(path)
    if place.is_dir() and (place / OPEN_BANDIT).exists():
        return _open_bandit(place)
    if not place.is_file():
        raise DataError(f"There is no log {place}: give a Parquet, CSV or JSON-lines file of impressions, or a folder of the Open Bandit Dataset.")
    return _named(_table(place), place)


def catalogue(impressions: pl.DataFrame, path: str | Path) -> list[str]:
    """The items a policy could show, sorted: those of item_context.csv where the log has one beside it, else those shown."""
    known = Path(path) / OPEN_BANDIT
    items = pl.read_csv(known, infer_schema=False)["item_id"] if known.exists() else impressions["item"]
    return sorted(set(items.to_list()) | set(impressions["item"].to_list()))


def _table(path: Path) -> pl.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_ndjson(path) if path.suffix in (".jsonl", ".ndjson") else pl.read_csv(path, infer_schema_length=10_000)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError):
        raise DataError(f"{path} is not readable as {path.suffix.lstrip('.') or 'CSV'}: give a Parquet, CSV or JSON-lines file of impressions.") from None


def _named(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    found = {ours: next((name for name in names if name in table.columns), None) for ours, names in NAMES.items()}
    missing = [ours for ours in ("item", "clicked", "propensity") if found[ours] is None]
    if missing:
        raise DataError(f'{path} has no column "{missing[0]}" ({" or ".join(NAMES[missing[0]])}): a log of impressions needs item, clicked and propensity.')
    types: dict[str, Any] = {"clicked": pl.Float64, "propensity": pl.Float64, "position": pl.Int64}
    columns = []
    for ours, name in found.items():
        given = pl.lit(1 if ours == "position" else None) if name is None else pl.col(name)
        columns.append(given.cast(types.get(ours, pl.String), strict=False).alias(ours))
    named = table.select(*columns, pl.exclude([name for name in found.values() if name is not None]))
    for column in ("item", "clicked", "propensity", "position"):
        if lost := named[column].null_count():
            raise DataError(f'{path}: "{column}" is missing or unreadable in {lost:,} of {named.height:,} rows; leave these out, or mend them.')
    if bool((named["position"] < 1).any()):
        raise DataError(f"{path}: a position is below 1; positions count from 1, the first place.")
    return named


def _open_bandit(folder: Path) -> pl.DataFrame:
    logs = [file for file in sorted(folder.glob("*.csv")) if file.name != OPEN_BANDIT]
    if len(logs) != 1:
        raise DataError(f"{folder} holds {len(logs)} logs beside {OPEN_BANDIT}: give a campaign folder with one, or name the file.")
    table = pl.read_csv(logs[0], infer_schema_length=0)
    named = _named(table.drop([name for name in table.columns if not name]), logs[0])
    items = pl.read_csv(folder / OPEN_BANDIT, infer_schema_length=0).select(pl.col("item_id").alias("item"), pl.col("^item_feature_.*$"))
    return named.join(items, on="item", how="left", maintain_order="left").with_columns(pl.col("timestamp").str.to_datetime(time_zone="UTC", strict=False))


def read_policy(text: str, items: list[str], positions: int) -> npt.NDArray[np.float64]:
    """(A,) or (P, A) chances of a policy over `items`: `uniform`, or a file with item, propensity and, if they differ by place, position.

    Raises SettingError for an unknown policy, DataError for a bad file.
    """
    if text == "uniform":
        return np.full(len(items), 1.0 / len(items))
    path = Path(text)
    if not path.is_file():
        raise SettingError(f'There is no policy "{text}": use uniform, or a Parquet or CSV file with the columns item, propensity and, if need be, position.')
    table = _table(path)
    if not {"item", "propensity"} <= set(table.columns):
        raise DataError(f"{path} must have the columns item and propensity: the chance with which the policy shows each item.")
    place = {item: code for code, item in enumerate(items)}
    codes = np.array([place.get(item, -1) for item in table["item"].cast(pl.String).to_list()])
    if (codes < 0).any():
        raise DataError(f'{path} names the item "{table["item"][int(np.argmax(codes < 0))]}", which the log does not know.')
    where = table["position"].cast(pl.Int64).to_numpy() - 1 if "position" in table.columns else np.zeros(len(table), dtype=np.int64)
    chances = np.zeros((max(positions, int(where.max(initial=0)) + 1) if "position" in table.columns else 1, len(items)))
    np.add.at(chances, (where, codes), table["propensity"].cast(pl.Float64).to_numpy())
    return chances if "position" in table.columns else chances[0]


def evaluate_log(log: str | Path, policy: str = "uniform", *, clip: float = 10.0, seed: int = 0) -> OffPolicy:
    """What `policy` would have earned a place, from the impressions in `log`. Raises DataError and SettingError, one sentence each."""
    impressions = read_impressions(log)
    items = catalogue(impressions, log)
    place = {item: code for code, item in enumerate(items)}
    codes = np.array([place[item] for item in impressions["item"].to_list()], dtype=np.int64)
    positions = impressions["position"].to_numpy() - 1
    target = read_policy(policy, items, int(positions.max(initial=0)) + 1)
    clicked, propensity = (impressions[name].to_numpy() for name in ("clicked", "propensity"))
    return evaluate_policy(codes, positions, clicked, propensity, target, policy=policy, clusters=owners(impressions), clip=clip, seed=seed)


def owners(impressions: pl.DataFrame) -> npt.NDArray[np.int64] | None:
    """(n,) whose each row is: its user, else its request, else itself; none where no row names either."""
    key = pl.coalesce(pl.format("u{}", "user"), pl.format("r{}", "request_id"))
    names = impressions.with_row_index("row").select(pl.coalesce(key, pl.format("n{}", "row")).alias("owner"), key.is_not_null().alias("named"))
    return names["owner"].rank("dense").to_numpy().astype(np.int64) - 1 if names["named"].any() else None
