"""Raw rows -> clean rows: what can be mended is mended and counted, what cannot be used is named with file, line and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.data.readers import RawTable
from vitrail.data.readers_text import NOT_TEXT
from vitrail.data.roles import RoleGuess, part_words
from vitrail.data.times import parse_times
from vitrail.errors import DataError

Mask = npt.NDArray[np.bool_]
REJECTS = {"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String}
LINE, FILE = "__line", "__file"
CANONICAL = ("user", "item", "timestamp", "position", "event", "value", "part")
REMEDIES = {
    NOT_TEXT: "pass its --encoding",
    "a number of fields": "pass the right --separator",
    "time": "pass the right --timestamp COLUMN or --time-unit",
    "value": "pass the right --value COLUMN",
    "user": "pass the right --user COLUMN",
    "item": "pass the right --item COLUMN",
    "JSON": "pass the right --format",
}


@dataclass
class Ledger:
    """What happened to rows: counted, and kept for `rejects.parquet`."""

    repaired: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    frames: list[pl.DataFrame] = field(default_factory=list)

    def repair(self, reason: str, count: int) -> None:
        """Count `count` rows mended."""
        if count:
            self.repaired[reason] += int(count)

    def note(self, raw: RawTable, reason: str, lines: npt.NDArray[np.int64]) -> None:
        """Keep rows of `raw` (their lines, from 1) for the rejects file, without counting them."""
        if not len(lines):
            return
        text = [raw.text(line)[:2000] for line in lines.tolist()]
        self.frames.append(pl.DataFrame({"file": [str(raw.path)] * len(lines), "line": lines, "reason": [reason] * len(lines), "text": text}, schema=REJECTS))

    def reject(self, raw: RawTable, reasons: Mapping[str, npt.NDArray[np.int64]], rows: int) -> None:
        """Reject lines of `raw` by reason. Raises DataError where they are more than half of its `rows`."""
        total = sum(map(len, reasons.values()))
        if total > rows / 2:
            reason, lines = max(reasons.items(), key=lambda pair: len(pair[1]))
            remedy = next((remedy for key, remedy in REMEDIES.items() if key in reason), "see that it is the right file")
            line = int(lines[0])
            shown = f"line {line}: {raw.text(line)[:100]!r}"
            raise DataError(f"{total:,} of the {rows:,} rows of {raw.path} cannot be used, most often for {reason} ({shown}): {remedy}.")
        for reason, lines in reasons.items():
            if len(lines):
                self.rejected[reason] += len(lines)
                self.note(raw, reason, lines)

    def rejects(self) -> pl.DataFrame:
        """(rows) file, line, reason, text."""
        return pl.concat([pl.DataFrame(schema=REJECTS), *self.frames]).sort("file", "line", maintain_order=True)


def clean_ids(series: pl.Series, role: str, path: Path) -> tuple[pl.Series, int, Mask]:
    """((R,) ids as text without surrounding white space, how many had it, (R,) which are missing)."""
    if isinstance(series.dtype, pl.List):
        raise DataError(f'The column "{series.name}" of {path} holds lists and cannot be the {role}: name another with --{role} COLUMN.')
    text = series.cast(pl.String)
    stripped = text.str.strip_chars()
    missing = (stripped.is_null() | (stripped == "")).fill_null(True).to_numpy()
    shorter = text.str.len_bytes() != stripped.str.len_bytes()
    spaced = shorter.fill_null(False).to_numpy() & ~missing if shorter.any() else missing[:0]
    return stripped.rename(role), int(spaced.sum()), missing


def clean_events(
    raw: RawTable, roles: Mapping[str, RoleGuess], ledger: Ledger, *, part: str | None, event: str | None, time_unit: str | None
) -> tuple[pl.DataFrame, str | None]:
    """(rows with user, item, the roles there are, context columns as read, and their line; the unit times had).

    Raises DataError where more than half of the rows cannot be used.
    """
    frame, reasons, unit = clean_rows(raw, roles, ledger, part=part, event=event, time_unit=time_unit)
    reasons = {reason: lines for reason, lines in (raw.reasons | reasons).items() if len(lines)}
    ledger.reject(raw, reasons, raw.frame.height + sum(map(len, raw.reasons.values())))
    return frame, unit


def clean_rows(
    raw: RawTable, roles: Mapping[str, RoleGuess], ledger: Ledger, *, part: str | None, event: str | None, time_unit: str | None
) -> tuple[pl.DataFrame, dict[str, npt.NDArray[np.int64]], str | None]:
    """(the rows that can be used, reason -> lines of those that cannot, each once, the unit times had). What is mended is counted in `ledger`.

    Columns are text, times excepted; numbers may stay numbers for the roles value and position, and for times whose unit is told.
    """
    bad: dict[str, Mask] = {}
    columns: dict[str, pl.Series] = {}
    unit = None
    for role, guess in roles.items():
        series = raw.frame[guess.column]
        if role in ("user", "item"):
            columns[role], spaced, bad[f"a missing {role} id"] = clean_ids(series, role, raw.path)
            ledger.repair(f"white space around {role} ids", spaced)
        elif role == "timestamp":
            times = parse_times(series, time_unit)
            columns[role], unit = times.values, times.unit
            bad |= times.bad
            ledger.repair("times in another unit than most", int(times.rescaled.sum()))
        elif role in ("value", "position"):
            number, absent = _number(series)
            finite = number.is_finite().fill_null(False)
            if role == "position":
                bad["a position that is not a whole number"] = (absent | ~finite | (number != number.round(0)).fill_null(True)).to_numpy()
                columns[role] = number.set(~finite, None).cast(pl.Int64, strict=False)
            else:
                bad["an unreadable value"] = (number.is_null() & ~absent).to_numpy()
                bad["a value that is NaN or infinite"] = (number.is_not_null() & ~finite).to_numpy()
                columns[role] = number
        else:
            text = series.cast(pl.String).str.strip_chars()
            columns[role] = text.set(text == "", None)
            if role == "part":
                columns[role] = text.str.to_lowercase().replace_strict(part_words(guess.column), default=None, return_dtype=pl.String)
                bad["a part other than train, valid and test"] = columns[role].is_null().to_numpy()
    rows = raw.frame.height
    taken = {guess.column for guess in roles.values()}
    context = [raw.frame[name].rename(name if name not in (*CANONICAL, LINE, FILE) else f"{name}_column") for name in raw.frame.columns if name not in taken]
    frame = pl.DataFrame([*(series.rename(role) for role, series in columns.items()), *context, pl.Series(LINE, raw.lines)])
    if event is not None:
        frame = frame.with_columns(event=pl.lit(event))
    if part is not None:
        frame = frame.with_columns(part=pl.lit(part))
    gone = np.zeros(rows, dtype=bool)
    reasons: dict[str, npt.NDArray[np.int64]] = {}
    for reason, mask in bad.items():
        reasons[reason] = raw.lines[mask & ~gone] if mask.any() else raw.lines[:0]
        gone |= mask
    return (frame.filter(~gone) if gone.any() else frame), reasons, unit


def _number(series: pl.Series) -> tuple[pl.Series, pl.Series]:
    """((R,) Float64, null where there is no number; (R,) which are absent)."""
    if series.dtype == pl.Float64 or series.dtype.is_integer():
        return series.cast(pl.Float64), series.is_null()
    text = series.cast(pl.String).str.strip_chars()
    return text.cast(pl.Float64, strict=False), (text.is_null() | (text == "")).fill_null(True)


def repeated(frame: pl.DataFrame) -> Mask:
    """(R,) which rows equal an earlier one in every column but line and file."""
    compared = {name: dtype for name, dtype in frame.schema.items() if name not in (LINE, FILE)}
    columns = [pl.col(name).list.join("\x1f") if isinstance(dtype, pl.List) else pl.col(name) for name, dtype in compared.items()]
    rows = frame.select(columns)
    # rows of one hash are few: only they are compared in full
    again = rows.hash_rows(seed=0).is_duplicated()
    mask = np.zeros(frame.height, dtype=bool)
    if again.any():
        alike = rows.with_row_index("__row").filter(again)
        first = alike.unique(subset=rows.columns, keep="first", maintain_order=False)["__row"]
        mask[alike["__row"].to_numpy()] = True
        mask[first.to_numpy()] = False
    return mask
