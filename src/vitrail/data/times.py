"""Times as people write them -> microseconds since 1970, UTC: unix times in s, ms, us or ns, and dates. A date without a zone is UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Mask = npt.NDArray[np.bool_]

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
LIMITS = {"s": 1e11, "ms": 1e14, "us": 1e17, "ns": np.inf}
"""A number below the limit has the unit: 1e11 s is the year 5138, 1e11 ms is March 1973."""
EARLIEST, LATEST = 788_918_400, 4_102_444_800
"""1995 and 2100 in seconds: where an unnamed column of numbers is taken for times."""
PLAUSIBLE = 1e8, 1e11
"""Seconds between which a number of another unit than the file's is taken for a mix of units."""
FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %Z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
    "%d-%b-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%m %d, %Y",
    "%a %b %d %H:%M:%S %z %Y",
)
"""Day and month in figures without a year first are left out: 03/04/2014 says nothing certain."""


@dataclass(frozen=True)
class Times:
    """R times."""

    values: pl.Series
    """(R,) Datetime("us", "UTC"), null where there is none"""
    unit: str
    """s, ms, us, ns or date"""
    rescaled: Mask
    """(R,) rows in another unit than most, brought to it"""
    bad: dict[str, Mask]
    """reason -> (R,)"""


def parse_times(series: pl.Series, unit: str | None = None) -> Times:
    """Read R times. `unit` of numbers: found by magnitude, by most rows, where not told."""
    none = np.zeros(len(series), dtype=bool)
    if series.dtype.is_temporal():
        values = _utc(series)
        return Times(values, "date", none, {"a missing time": values.is_null().to_numpy(), "a time before 1970": _mask(values < _epoch(0))})
    if series.dtype.is_integer() and unit is not None:
        return _numbers(series, series.is_null(), unit)
    series = series.cast(pl.String).str.strip_chars()
    empty = (series.is_null() | (series == "")).fill_null(True)
    if unit is None and dates_share(series) > 0.5:
        values = parse_dates(series)
        bad = {"a missing time": empty, "an unreadable time": values.is_null() & ~empty, "a time before 1970": values < _epoch(0)}
        return Times(values, "date", none, {reason: _mask(mask) for reason, mask in bad.items()})
    return _numbers(series, empty, unit)


def _numbers(series: pl.Series, empty: pl.Series, unit: str | None) -> Times:
    whole = series.cast(pl.Int64, strict=False)
    real = series.cast(pl.Float64, strict=False)
    x = real.fill_null(np.nan).to_numpy()
    finite = np.isfinite(x)
    size = np.abs(np.where(finite, x, 0.0))
    own = np.searchsorted([LIMITS[u] for u in ("s", "ms", "us")], size, side="right")
    names = list(PER_SECOND)
    most = names.index(unit) if unit else int(np.bincount(own[finite & (x >= 0)], minlength=4).argmax())
    ratio = np.array([PER_SECOND[u] for u in names], dtype=np.float64)
    seconds = size / ratio[most]
    mixed = finite & (own != most) & ((seconds < PLAUSIBLE[0]) | (seconds >= PLAUSIBLE[1]))
    other = size / ratio[own]
    mixed &= (other >= PLAUSIBLE[0]) & (other < PLAUSIBLE[1])
    used = np.where(mixed, own, most)
    micros = np.zeros(len(x), dtype=np.int64)
    exact = whole.fill_null(0).to_numpy()
    is_whole = whole.is_not_null().to_numpy()
    for index, name in enumerate(names):
        rows = (used == index) & finite & (x >= 0)
        times = 1_000_000 // PER_SECOND[name] if name != "ns" else 0
        with np.errstate(over="ignore", invalid="ignore"):
            whole_micros = exact[rows] * times if times else exact[rows] // 1000
            micros[rows] = np.where(is_whole[rows], whole_micros, np.rint(np.minimum(x[rows] * (1e6 / PER_SECOND[name]), 9e18)))
    seconds = np.where(mixed, other, seconds)
    nan = real.is_not_null().to_numpy() & ~finite
    missing = empty.to_numpy()
    bad = {
        "a missing time": missing,
        "an unreadable time": ~missing & real.is_null().to_numpy(),
        "a time that is NaN or infinite": nan,
        "a negative time": finite & (x < 0),
        "a time after the year 5138": finite & (x >= 0) & (seconds >= PLAUSIBLE[1]),
    }
    wrong = np.logical_or.reduce(list(bad.values()))
    values = pl.Series(series.name, micros).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").set(pl.Series(wrong), None)
    return Times(values, names[most], mixed & ~wrong, bad)


def share(mask: pl.Series) -> float:
    """The share of true values, 0 where there are none."""
    return float(mask.fill_null(False).sum()) / max(len(mask), 1)


def _mask(series: pl.Series) -> Mask:
    return series.fill_null(False).to_numpy()


def _epoch(seconds: int) -> Any:
    return pl.select(pl.from_epoch(pl.lit(seconds), "s").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")).item()


def _utc(series: pl.Series) -> pl.Series:
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone:
        return series.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    if series.dtype in (pl.Time, pl.Duration):
        return pl.Series(series.name, [None] * len(series), dtype=pl.Datetime("us", "UTC"))
    return series.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _read(series: pl.Series, form: str) -> pl.Series:
    values = series.str.to_datetime(form, strict=False, time_unit="us", exact=True)
    return _utc(values)


def _fitting(series: pl.Series) -> list[str]:
    """The formats that fit some of the values, judged on a sample."""
    sample = _sample(series)
    if not len(sample):
        return []
    formats = [form for form in FORMATS if _read(sample, form).is_not_null().any()]
    if "%Y%m%d" in formats and not ((sample.str.len_chars() == 8) & sample.str.contains(r"^(19|20)\d{6}$")).all():
        formats.remove("%Y%m%d")
    return formats


def _sample(series: pl.Series, count: int = 1000) -> pl.Series:
    """Up to `count` values spread evenly."""
    known = series.drop_nulls()
    known = known.filter(known != "")
    return known.gather_every(max(1, len(known) // count))


def parse_dates(series: pl.Series) -> pl.Series:
    """(R,) Datetime("us", "UTC"); null where no known form fits."""
    values = pl.Series(series.name, [None] * len(series), dtype=pl.Datetime("us", "UTC"))
    for form in _fitting(series):
        values = pl.select(pl.coalesce(values, _read(series, form))).to_series().rename(series.name)
    return values


def dates_share(series: pl.Series) -> float:
    """The share of a sample of the values that reads as a date."""
    sample = _sample(series)
    if not len(sample) or share(sample.str.contains(r"\d")) < 0.5:
        return 0.0
    return share(parse_dates(sample).is_not_null())


def looks_like_time(series: pl.Series) -> bool:
    """Whether nearly all values are dates, or unix times of 1995 to 2100 in one of the units."""
    if series.dtype in (pl.Date, pl.Datetime):
        return True
    if series.dtype != pl.String:
        return False
    sample = _sample(series.str.strip_chars())
    if not len(sample):
        return False
    x = sample.cast(pl.Float64, strict=False)
    if share(x.is_not_null()) > 0.95:
        return sum(share((x >= EARLIEST * f) & (x < LATEST * f)) for f in PER_SECOND.values()) >= 0.95 or dates_share(sample) >= 0.95
    return dates_share(sample) >= 0.95
