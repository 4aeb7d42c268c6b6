"""The grammar of conditions: Python's own, restricted to comparisons of columns with fixed values; parsed, never run."""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings
from functools import lru_cache
from typing import Any

from vitrail.errors import SettingError

MAX_LENGTH = 4000
"""Characters of a condition."""
MAX_DEPTH = 60
"""Levels of nesting of a condition."""

_WORDS = ("class", "from", "return", "global", "import", "as", "with", "def")
_NAMES = re.compile(rf"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`(?P<quoted>[^`]+)`|\b(?P<word>{"|".join(_WORDS)})\b""")
"""Text in quotes (left alone), a column in backticks, or a word that Python keeps for itself."""

Literal = bool | int | float | str | None
CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
ALLOWED = "write comparisons such as price < 20 or category in [\"a\", \"b\"], joined with and, or, not"
FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq}


class ConditionError(SettingError):
    """A condition that cannot be read, or does not fit the columns it meets."""

    def __init__(self, message: str) -> None:
        """Keeps the sentence alone: polars appends the plan to an error raised inside an expression."""
        super().__init__(message.split("\n\nThis error occurred")[0].rstrip())


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
def parse(text: str) -> tuple[ast.expr, tuple[str, ...]]:
    """The tree of a condition, its form checked, and the names in it. Raises SettingError."""
    if len(text) > MAX_LENGTH:
        raise ConditionError(f"The condition has {len(text):,} characters, and {MAX_LENGTH:,} are allowed: make it shorter.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = _parse_names(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        hint = "compare with ==" if _has_single_equals(text) else ALLOWED
        raise ConditionError(f"The condition {quote(text)} cannot be read: {hint}.") from None
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


def quote(text: str) -> str:
    short = text if len(text) <= 80 else text[:77] + "..."
    return "`" + "".join(c if c.isprintable() else "?" for c in short) + "`"


def _refuse(node: ast.AST, text: str) -> ConditionError:
    try:
        piece = ast.get_source_segment(text.strip(), node) or text
    except (ValueError, IndexError):
        piece = text
    return ConditionError(f"{quote(piece)} is not allowed in a condition: {ALLOWED}.")


def _check_truth(node: ast.expr, names: list[str], text: str) -> None:
    """Checks what must be true or false, and collects its names."""
    if isinstance(node, ast.BoolOp):
        for value in node.values:
            _check_truth(value, names, text)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check_truth(node.operand, names, text)
    elif isinstance(node, ast.Name):
        if node.id.lower() in CONSTANTS:
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
    if not (is_column(left) or is_column(right)):
        raise ConditionError(f"{quote(text)} compares two fixed values: name a column on one side.")
    if isinstance(op, ast.Is | ast.IsNot):
        if not is_column(left) or is_column(right) or not (_is_fixed(right) and fixed(right) is None):
            raise ConditionError(f"{quote(text)}: `is` is for None; compare other values with ==.")
    elif isinstance(op, ast.In | ast.NotIn):
        if is_column(left) == is_column(right) or isinstance(left, ast.List | ast.Tuple | ast.Set) or (is_column(left) and _is_fixed(right)):
            raise ConditionError(f"{quote(text)}: `in` takes a column and a list of values, category in [\"a\", \"b\"], or a value and a column.")
        if _is_fixed(left) and fixed(left) is None:
            raise _refuse(node, text)
    elif isinstance(left, ast.List | ast.Tuple | ast.Set) or isinstance(right, ast.List | ast.Tuple | ast.Set):
        raise ConditionError(f"{quote(text)} compares with a list: use `in`, as in category in [\"a\", \"b\"].")
    elif not isinstance(op, ast.Eq | ast.NotEq) and any(_is_fixed(side) and fixed(side) is None for side in (left, right)):
        raise ConditionError(f"{quote(text)} compares with None: use `is None` or `is not None`.")


def _check_side(node: ast.expr, names: list[str], text: str) -> None:
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        if not node.elts or not all(_is_fixed(value) and fixed(value) is not None for value in node.elts):
            raise ConditionError(f"{quote(text)}: a list after `in` holds one or more numbers, texts, True or False.")
        for value in node.elts:
            _number(value, text)
    elif is_column(node):
        names.append(node.id)  # type: ignore[attr-defined]
    elif not _is_fixed(node):
        raise _refuse(node, text)
    else:
        _number(node, text)


def _number(node: ast.expr, text: str) -> None:
    value = fixed(node)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConditionError(f"A number in the condition {quote(text)} is too large: use one within 64 bits.")
    if isinstance(value, str) and any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise ConditionError(f"A text in the condition {quote(text)} is not valid Unicode.")


def is_column(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id.lower() not in CONSTANTS


def _is_fixed(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    if isinstance(node, ast.Name):
        return node.id.lower() in CONSTANTS
    return isinstance(node, ast.Constant) and (node.value is None or type(node.value) in (bool, int, float, str))


def fixed(node: ast.expr) -> Literal:
    """The value of a fixed side."""
    if isinstance(node, ast.UnaryOp):
        value: Any = node.operand.value  # type: ignore[attr-defined]
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Name):
        return CONSTANTS[node.id.lower()]
    return node.value  # type: ignore[attr-defined]


# From here on the form is right, and the types of the columns are met.
