"""Conditions over columns, such as `price < 20 and category == "lipstick"`: read through Python's grammar, never run.

A comparison with a missing value is false; the logic above it has two values, so `not price < 20` holds where the price is missing.
A column whose name is not one word stands in backticks: `unit price` < 20. On a list column `==` and `in` mean "contains" and
"contains any of". On a text column `"red" in title` means "has the piece".
"""

from __future__ import annotations

import ast
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from vitrail.data.conditions_grammar import ALLOWED, CONSTANTS, FLIPPED, MAX_LENGTH, ConditionError, Literal, fixed, is_column, parse, quote
from vitrail.errors import unknown

__all__ = ["MAX_LENGTH", "ConditionError", "compile_condition", "matches"]

if TYPE_CHECKING:
    import polars as pl

class _Column:
    """A named column standing on one side of a comparison."""

    def __init__(self, name: str, series: pl.Series) -> None:
        self.name, self.series = name, series


def compile_condition(text: str, columns: Sequence[str]) -> pl.Expr:
    """The condition as a Boolean expression (never null) over a table that has `columns`.

    Raises SettingError: for a name that is no column (with the one that may be meant), a condition that names no column,
    and anything but comparisons, and / or / not, fixed values and lists of them; where the expression meets a table,
    for a comparison that its column's type does not allow.
    """
    import polars as pl

    tree, used = _check(text, columns)
    return pl.struct(used).map_batches(lambda rows: _truth(tree, rows.struct.unnest(), _names(used)), return_dtype=pl.Boolean, is_elementwise=True)


def columns_of(text: str, columns: Sequence[str]) -> list[str]:
    """The columns that the condition uses, of a table that has `columns`. Raises SettingError as `compile_condition` does."""
    return _check(text, columns)[1]


def matches(text: str, table: pl.DataFrame) -> pl.Series:
    """(N,) Boolean, never null: the rows of `table` (N rows) for which the condition holds.

    Raises SettingError as `compile_condition` does.
    """
    tree, used = _check(text, table.columns)
    return _truth(tree, table.select(used), _names(used)).alias("matches")


def _names(columns: Sequence[str]) -> dict[str, str]:
    # Python's grammar folds identifiers to NFKC, column names are free.
    return {unicodedata.normalize("NFKC", name): name for name in columns}


def _check(text: str, columns: Sequence[str]) -> tuple[ast.expr, list[str]]:
    """The tree of a condition and the columns it uses. Raises SettingError."""
    tree, names = parse(text)
    known = _names(columns)
    for name in names:
        if name not in known and name.lower() not in CONSTANTS:
            raise ConditionError(str(unknown("column", name, columns)))
    used = list(dict.fromkeys(known[name] for name in names if name in known))
    if not used:
        raise ConditionError(f"The condition {quote(text)} names no column: {ALLOWED}.")
    return tree, used


def _truth(node: ast.expr, table: pl.DataFrame, names: dict[str, str]) -> pl.Series:
    """(N,) Boolean, never null."""
    import polars as pl

    if isinstance(node, ast.BoolOp):
        parts = [_truth(value, table, names) for value in node.values]
        result = parts[0]
        for part in parts[1:]:
            result = result & part if isinstance(node.op, ast.And) else result | part
        return result
    if isinstance(node, ast.UnaryOp):
        return ~_truth(node.operand, table, names)
    if isinstance(node, ast.Name):
        series = _column(node, table, names).series
        if series.dtype != pl.Boolean:
            raise ConditionError(f'Column "{series.name}" is not true or false: compare it with something, as in {series.name} == ...')
        return series.fill_null(False)
    assert isinstance(node, ast.Compare)
    sides = [node.left, *node.comparators]
    pairs = [_pair(left, op, right, table, names) for left, op, right in zip(sides, node.ops, sides[1:], strict=False)]
    result = pairs[0]
    for pair in pairs[1:]:
        result = result & pair
    return result


def _column(node: ast.expr, table: pl.DataFrame, names: dict[str, str]) -> _Column:
    import polars as pl

    name = names[node.id]  # type: ignore[attr-defined]
    series = table[name]
    if isinstance(series.dtype, pl.Array):
        series = series.arr.to_list()
    if isinstance(series.dtype, pl.List):
        inner: Any = series.dtype.inner
        return _Column(name, series.cast(pl.List(pl.Float64 if inner.is_numeric() else pl.String if inner in (pl.Categorical, pl.Enum) else inner)))
    if series.dtype.is_integer():
        # wide enough that no number of a condition overflows it
        series = series.cast(pl.Float64 if series.dtype in (pl.UInt64, pl.Int128) else pl.Int64)
    elif series.dtype.is_decimal():
        series = series.cast(pl.Float64)
    elif series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    elif series.dtype == pl.Datetime:
        series = series.dt.cast_time_unit("us")
    return _Column(name, series.fill_nan(None) if series.dtype.is_float() else series)


def _pair(left: ast.expr, op: ast.cmpop, right: ast.expr, table: pl.DataFrame, names: dict[str, str]) -> pl.Series:
    import polars as pl

    if not is_column(left) and not isinstance(op, ast.In | ast.NotIn):
        return _pair(right, FLIPPED[type(op)](), left, table, names)
    column = _column(left if is_column(left) else right, table, names)
    if is_column(left) and is_column(right):
        return _two_columns(column, op, _column(right, table, names))
    listed = isinstance(column.series.dtype, pl.List)
    if isinstance(op, ast.In | ast.NotIn):
        values = [fixed(left)] if is_column(right) else [fixed(value) for value in right.elts]  # type: ignore[attr-defined]
        if is_column(right) and not listed:
            found = _has_piece(column, values[0])
        else:
            found = _any_equal(column, values)
        return (found if isinstance(op, ast.In) else ~found).fill_null(False)
    value = fixed(right)
    if value is None:
        return column.series.is_null() if isinstance(op, ast.Is | ast.Eq) else column.series.is_not_null()
    if isinstance(op, ast.Eq | ast.NotEq):
        found = _any_equal(column, [value])
        return (found if isinstance(op, ast.Eq) else ~found).fill_null(False)
    if listed or isinstance(column.series.dtype, pl.Struct) or column.series.dtype == pl.Boolean:
        raise ConditionError(f'Column "{column.name}" has no order ({_described(column.series.dtype)}): compare it with == or in.')
    return _ordered(column.series, op, _fitted(value, column.series.dtype, column.name)).fill_null(False)


def _any_equal(column: _Column, values: Sequence[Literal]) -> pl.Series:
    """(N,) Boolean, null where the column is: equals one of the values, or, for a list, holds one of them."""
    import polars as pl

    dtype = column.series.dtype
    if isinstance(dtype, pl.List):
        inner: Any = dtype.inner
        fitted = [_fitted(value, inner, column.name) for value in values]
        tests = [column.series.list.contains(float(value) if inner.is_numeric() else value) for value in fitted]
    else:
        tests = [_ordered(column.series, ast.Eq(), _fitted(value, dtype, column.name)) for value in values]
    result = tests[0]
    for test in tests[1:]:
        result = result | test
    return result


def _has_piece(column: _Column, value: Literal) -> pl.Series:
    import polars as pl

    if column.series.dtype != pl.String or not isinstance(value, str):
        raise ConditionError(f'{value!r} in {column.name}: column "{column.name}" is no list or text ({_described(column.series.dtype)}); compare it with ==.')
    return column.series.str.contains(value, literal=True)


def _two_columns(left: _Column, op: ast.cmpop, right: _Column) -> pl.Series:
    kinds = [_described(side.series.dtype) for side in (left, right)]
    same = kinds[0] == kinds[1] and (kinds[0] in ("numbers", "text", "true or false") or left.series.dtype == right.series.dtype)
    if not same or kinds[0] == "lists":
        raise ConditionError(f'Columns "{left.name}" ({kinds[0]}) and "{right.name}" ({kinds[1]}) cannot be compared.')
    return _ordered(left.series, op, right.series).fill_null(False)


def _ordered(series: pl.Series, op: ast.cmpop, value: Any) -> pl.Series:
    import polars as pl

    operators: dict[type[ast.cmpop], Callable[[Any, Any], pl.Series]] = {
        ast.Eq: lambda a, b: a == b,
        ast.NotEq: lambda a, b: a != b,
        ast.Lt: lambda a, b: a < b,
        ast.LtE: lambda a, b: a <= b,
        ast.Gt: lambda a, b: a > b,
        ast.GtE: lambda a, b: a >= b,
    }
    if series.dtype == pl.Null:
        return pl.Series(series.name, [None] * len(series), dtype=pl.Boolean)
    if series.dtype == pl.Int64 and isinstance(value, float):
        series = series.cast(pl.Float64)
    return operators[type(op)](series, value)


def _described(dtype: Any) -> str:
    """What a column holds, in a person's words."""
    import polars as pl

    if dtype.is_numeric():
        return "numbers"
    if dtype in (pl.Date, pl.Datetime):
        return "dates"
    if isinstance(dtype, pl.List | pl.Array):
        return "lists"
    if dtype == pl.String:
        return "text"
    return "true or false" if dtype == pl.Boolean else "nothing" if dtype == pl.Null else str(dtype)


def _fitted(value: Literal, dtype: Any, name: str) -> Any:
    """`value` as it compares with a column of `dtype`. Raises SettingError where the two do not go together."""
    import polars as pl

    number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype == pl.Null or (dtype.is_numeric() and number):
        return value
    if (dtype == pl.String and isinstance(value, str)) or (dtype == pl.Boolean and isinstance(value, bool)):
        return value
    if dtype in (pl.Date, pl.Datetime) and isinstance(value, str):
        return _moment(value, dtype, name)
    if dtype == pl.String and number:
        raise ConditionError(f'Column "{name}" holds text, and {value!r} is a number: write it in quotes, "{value}".')
    if dtype in (pl.Date, pl.Datetime):
        raise ConditionError(f'Column "{name}" holds dates: compare it with one in quotes, "2014-06-30".')
    raise ConditionError(f'Column "{name}" holds {_described(dtype)}, and {value!r} cannot be compared with that.')


def _moment(value: str, dtype: Any, name: str) -> date | datetime:
    import polars as pl

    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo or (dtype != pl.Date and dtype.time_zone):
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConditionError(f'Column "{name}" holds dates, and "{value}" is none: write it as "2014-06-30" or "2014-06-30T12:00".') from None
    if dtype == pl.Date:
        return moment.date()
    return moment.astimezone(ZoneInfo(dtype.time_zone)) if dtype.time_zone else moment.replace(tzinfo=None)
