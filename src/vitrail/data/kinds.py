"""What an attribute is (number, category, categories, text, image, flag, date, id), and the column in its type."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from vitrail.data.roles import plain
from vitrail.data.schema import Kind
from vitrail.data.times import parse_dates, parse_times, share

MISSING = ("", "na", "n/a", "nan", "null", "none", "\\n", "<na>", "nat")
"""What stands for an absent attribute, in any case."""
FLAGS = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True, "f": False, "t": True, "n": False, "y": True}
PICTURE = r"(?i)\.(jpe?g|png|gif|webp|bmp)$"
ADDRESS = r"(?i)^https?://"
TEXTS = re.compile(r"title|name|description|plot|summary|abstract|caption|text|review|overview|synopsis|headline|body|content")
IDS = re.compile(r"(id|asin|isbn|sku|uuid|guid|code|zip|ean|gtin)$")
SEPARATORS = ("|", ";", ",")
SAMPLE = 20_000


@dataclass(frozen=True)
class KindGuess:
    """What a column is taken for, and what separates the values of one cell where they are several."""

    kind: Kind
    separator: str | None = None


def cleaned(series: pl.Series) -> pl.Series:
    """String cells stripped; what stands for an absent value is null."""
    if series.dtype != pl.String:
        return series
    series = series.str.strip_chars()
    return series.set(series.str.to_lowercase().is_in(list(MISSING)).fill_null(True), None)


def guess_kind(series: pl.Series, type: str | None = None) -> KindGuess:
    """The kind of a column as read (String, List(String) or a time). `type`: what an atomic header says."""
    name = plain(series.name)
    if series.dtype.is_temporal():
        return KindGuess("date")
    if isinstance(series.dtype, pl.List):
        return KindGuess("categories")
    if type == "float_seq":
        return KindGuess("id")
    known = cleaned(series).drop_nulls()
    known = known.gather_every(max(1, len(known) // SAMPLE))
    if not len(known):
        return KindGuess("category")
    distinct = known.n_unique()
    if type == "token_seq":
        return KindGuess("text") if TEXTS.search(name) and distinct > 0.5 * len(known) else KindGuess("categories", " ")
    if share(known.str.contains(ADDRESS)) > 0.9:
        return KindGuess("id")
    if share(known.str.contains(PICTURE)) > 0.9:
        return KindGuess("image")
    values = set(known.str.to_lowercase().unique().to_list()) if distinct <= 4 else {""}
    if values <= {"true", "false"} or (len(values) == 2 and len(known) > 2 and values <= set(FLAGS)):
        return KindGuess("flag")
    if type == "float":
        return KindGuess("number")
    bare = "id" if "id" in re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", series.name).lower()) else re.sub(r"[0-9]+$", "", name)
    if known.cast(pl.Float64, strict=False).is_not_null().all():
        padded = share(known.str.contains(r"^0\d")) > 0
        if IDS.search(bare) or padded or type == "token":
            return KindGuess("id" if distinct > 0.9 * len(known) and len(known) > 2 else "category")
        return KindGuess("number")
    if share(parse_dates(known).is_not_null()) == 1.0:
        return KindGuess("date")
    return _words(known, distinct, bare)


def _words(known: pl.Series, distinct: int, name: str) -> KindGuess:
    if share(known.str.contains(r"(?s)^\[.*\]$")) > 0.9:
        return KindGuess("categories", "[]")
    for separator in SEPARATORS:
        if share(known.str.contains(separator, literal=True)) < 0.1:
            continue
        cells = known.str.split(separator).explode().str.strip_chars()
        cells = cells.filter(cells != "")
        short = float(cells.str.len_chars().mean() or 0.0) <= 25 and float(cells.str.count_matches(r"\s").mean() or 0.0) <= 2.5  # type: ignore[arg-type]
        if len(cells) > 1.2 * len(known) and short and cells.n_unique() < 0.6 * len(cells) and not TEXTS.search(name):
            return KindGuess("categories", separator)
    spaces = float(known.str.count_matches(r"\s").mean() or 0.0)  # type: ignore[arg-type]
    if IDS.search(name) and spaces < 0.1 and distinct > 0.9 * len(known):
        return KindGuess("id")
    if TEXTS.search(name) and (distinct > 0.5 * len(known) or spaces >= 2):
        return KindGuess("text")
    if spaces < 0.1 and distinct > 0.95 * len(known) and len(known) > 20 and share(known.str.contains(r"\d")) > 0.5:
        return KindGuess("id")
    return KindGuess("text" if spaces >= 4 or (distinct > 0.5 * len(known) and len(known) > 20 and spaces >= 1) else "category")


def convert(series: pl.Series, guess: KindGuess) -> tuple[pl.Series, int]:
    """(the column in the type of its kind, cells that could not be read and are null now).

    number Float64, flag Boolean, date Datetime("us", "UTC"), categories List(String), all others String.
    """
    known = cleaned(series)
    if guess.kind == "categories":
        return _lists(known, guess.separator), 0
    if isinstance(known.dtype, pl.List):
        known = known.list.join("|")
    if guess.kind == "date":
        result = parse_times(known).values if known.dtype.is_temporal() or known.drop_nulls().str.contains(r"^\d{9,}(\.\d+)?$").all() else parse_dates(known)
    elif guess.kind == "flag":
        result = known.cast(pl.String).str.to_lowercase().replace_strict(FLAGS, default=None, return_dtype=pl.Boolean)
    elif guess.kind == "number":
        result = known.cast(pl.Float64, strict=False)
        result = result.set((~result.is_finite()).fill_null(False), None)
    else:
        result = known.cast(pl.String)
    return result.rename(series.name), result.null_count() - known.null_count()


def _lists(series: pl.Series, separator: str | None) -> pl.Series:
    name = series.name
    if isinstance(series.dtype, pl.List):
        lists = series.list.eval(pl.element().cast(pl.String))
    else:
        text = series.cast(pl.String)
        if separator == "[]":
            text = text.str.replace_all(r"[\[\]\"']", "")
            separator = ","
        lists = text.str.split(separator or ("|" if text.str.contains("|", literal=True).any() else ","))
    cell = pl.element().str.strip_chars()
    return lists.list.eval(cell.filter(cell.is_not_null() & (cell != ""))).rename(name)
