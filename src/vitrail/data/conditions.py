"""Conditions over columns, such as `price < 20 and category == "lipstick"`: read through Python's grammar, never run.

A comparison with a missing value is false; the logic above it has two values, so `not price < 20` holds where the price is missing.
A column whose name is not one word stands in backticks: `unit price` < 20. On a list column `==` and `in` mean "contains" and
"contains any of". On a text column `"red" in title` means "has the piece".
"""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from vitrail.errors import SettingError, unknown

if TYPE_CHECKING:
    import polars as pl

MAX_LENGTH = 4000
"""Characters of a condition."""
MAX_DEPTH = 60
"""Levels of nesting of a condition."""

_WORDS = ("class", "from", "return", "global", "import", "as", "with", "def")
_NAMES = re.compile(rf"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`(?P<quoted>[^`]+)`|\b(?P<word>{"|".join(_WORDS)})\b""")
"""Text in quotes (left alone), a column in backticks, or a word that Python keeps for itself."""

Literal = bool | int | float | str | None
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
_ALLOWED = "write comparisons such as price < 20 or category in [\"a\", \"b\"], joined with and, or, not"
_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq}


class ConditionError(SettingError):
    """A condition that cannot be read, or does not fit the columns it meets."""

    def __init__(self, message: str) -> None:
        """Keeps the sentence alone: polars appends the plan to an error raised inside an expression."""
        super().__init__(message.split("\n\nThis error occurred")[0].rstrip())


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
    tree, names = _parse(text)
    known = _names(columns)
    for name in names:
        if name not in known and name.lower() not in _CONSTANTS:
            raise ConditionError(str(unknown("column", name, columns)))
    used = list(dict.fromkeys(known[name] for name in names if name in known))
    if not used:
        raise ConditionError(f"The condition {_quote(text)} names no column: {_ALLOWED}.")
    return tree, used


def _parse_names(text: str) -> ast.expr:
    """Parse, with columns in backticks (`unit price`) and columns named like a word of Python's (class, from) as plain names."""
    columns: list[str] = []

    def stand_in(found: re.Match[str]) -> str:
        name = found["quoted"] or found["word"]
        if name is None:
            return found[0]
        columns.append(unicodedata.normalize("NFKC", name))
        return f" _column_{len(columns) - 1}_ "

    tree = ast.parse(_NAMES.sub(stand_in, text).strip(), mode="eval").body
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and (place := re.fullmatch(r"_column_(\d+)_", node.id)) and int(place[1]) < len(columns):
            node.id = columns[int(place[1])]
    return tree


@lru_cache(maxsize=256)
def _parse(text: str) -> tuple[ast.expr, tuple[str, ...]]:
    """The tree of a condition, its form checked, and the names in it. Raises SettingError."""
    if len(text) > MAX_LENGTH:
        raise ConditionError(f"The condition has {len(text):,} characters, and {MAX_LENGTH:,} are allowed: make it shorter.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = _parse_names(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        hint = "compare with ==" if _has_single_equals(text) else _ALLOWED
        raise ConditionError(f"The condition {_quote(text)} cannot be read: {hint}.") from None
    level: list[ast.AST] = [tree]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ConditionError(f"The condition is nested more than {MAX_DEPTH} levels deep: make it simpler.")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    names: list[str] = []
    _check_truth(tree, names, text)
    return tree, tuple(names)


def _has_single_equals(text: str) -> bool:
    bare = text.replace("==", "").replace("<=", "").replace(">=", "").replace("!=", "")
    return "=" in bare


def _quote(text: str) -> str:
    short = text if len(text) <= 80 else text[:77] + "..."
    return "`" + "".join(c if c.isprintable() else "?" for c in short) + "`"


def _refuse(node: ast.AST, text: str) -> ConditionError:
    try:
        piece = ast.get_source_segment(text.strip(), node) or text
    except (ValueError, IndexError):
        piece = text
    return ConditionError(f"{_quote(piece)} is not allowed in a condition: {_ALLOWED}.")


def _check_truth(node: ast.expr, names: list[str], text: str) -> None:
    """Checks what must be true or false, and collects its names."""
    if isinstance(node, ast.BoolOp):
        for value in node.values:
            _check_truth(value, names, text)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check_truth(node.operand, names, text)
    elif isinstance(node, ast.Name):
        if node.id.lower() in _CONSTANTS:
            raise _refuse(node, text)
        names.append(node.id)
    elif isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        for side in sides:
            _check_side(side, names, text)
        for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
            _check_pair(left, op, right, node, text)
    else:
        raise _refuse(node, text)


def _check_pair(left: ast.expr, op: ast.cmpop, right: ast.expr, node: ast.expr, text: str) -> None:
    if not (_is_column(left) or _is_column(right)):
        raise ConditionError(f"{_quote(text)} compares two fixed values: name a column on one side.")
    if isinstance(op, ast.Is | ast.IsNot):
        if not _is_column(left) or _is_column(right) or not (_is_fixed(right) and _fixed(right) is None):
            raise ConditionError(f"{_quote(text)}: `is` is for None; compare other values with ==.")
    elif isinstance(op, ast.In | ast.NotIn):
        if _is_column(left) == _is_column(right) or isinstance(left, ast.List | ast.Tuple | ast.Set) or (_is_column(left) and _is_fixed(right)):
            raise ConditionError(f"{_quote(text)}: `in` takes a column and a list of values, category in [\"a\", \"b\"], or a value and a column.")
        if _is_fixed(left) and _fixed(left) is None:
            raise _refuse(node, text)
    elif isinstance(left, ast.List | ast.Tuple | ast.Set) or isinstance(right, ast.List | ast.Tuple | ast.Set):
        raise ConditionError(f"{_quote(text)} compares with a list: use `in`, as in category in [\"a\", \"b\"].")
    elif not isinstance(op, ast.Eq | ast.NotEq) and any(_is_fixed(side) and _fixed(side) is None for side in (left, right)):
        raise ConditionError(f"{_quote(text)} compares with None: use `is None` or `is not None`.")


def _check_side(node: ast.expr, names: list[str], text: str) -> None:
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        if not node.elts or not all(_is_fixed(value) and _fixed(value) is not None for value in node.elts):
            raise ConditionError(f"{_quote(text)}: a list after `in` holds one or more numbers, texts, True or False.")
        for value in node.elts:
            _number(value, text)
    elif _is_column(node):
        names.append(node.id)  # type: ignore[attr-defined]
    elif not _is_fixed(node):
        raise _refuse(node, text)
    else:
        _number(node, text)


def _number(node: ast.expr, text: str) -> None:
    value = _fixed(node)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConditionError(f"A number in the condition {_quote(text)} is too large: use one within 64 bits.")
    if isinstance(value, str) and any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise ConditionError(f"A text in the condition {_quote(text)} is not valid Unicode.")


def _is_column(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id.lower() not in _CONSTANTS


def _is_fixed(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    if isinstance(node, ast.Name):
        return node.id.lower() in _CONSTANTS
    return isinstance(node, ast.Constant) and (node.value is None or type(node.value) in (bool, int, float, str))


def _fixed(node: ast.expr) -> Literal:
    """The value of a fixed side."""
    if isinstance(node, ast.UnaryOp):
        value: Any = node.operand.value  # type: ignore[attr-defined]
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Name):
        return _CONSTANTS[node.id.lower()]
    return node.value  # type: ignore[attr-defined]


# From here on the form is right, and the types of the columns are met.


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

    if not _is_column(left) and not isinstance(op, ast.In | ast.NotIn):
        return _pair(right, _FLIPPED[type(op)](), left, table, names)
    column = _column(left if _is_column(left) else right, table, names)
    if _is_column(left) and _is_column(right):
        return _two_columns(column, op, _column(right, table, names))
    listed = isinstance(column.series.dtype, pl.List)
    if isinstance(op, ast.In | ast.NotIn):
        values = [_fixed(left)] if _is_column(right) else [_fixed(value) for value in right.elts]  # type: ignore[attr-defined]
        if _is_column(right) and not listed:
            found = _has_piece(column, values[0])
        else:
            found = _any_equal(column, values)
        return (found if isinstance(op, ast.In) else ~found).fill_null(False)
    value = _fixed(right)
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
