"""What the verbs print: one JSON document, or tables for people; notes go to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import typer

JSON_HELP = "Print one JSON document instead."
PLUGIN_HELP = "A Python file of yours that registers systems; its code is run."
WIDTH = 160
"""Columns of a table where the output is no terminal."""


def emit(value: Any) -> None:
    """Print `value` as the one JSON document of this verb; what is not finite becomes null."""
    import orjson

    text = orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    typer.echo(text.decode())


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def note(text: str) -> None:
    """A line beside the result, on standard error."""
    typer.echo(text, err=True)


def warn(text: str) -> None:
    """A warning, on standard error."""
    typer.echo(f"warning: {text}", err=True)


def line(text: str = "") -> None:
    """A line of the result for people."""
    typer.echo(clean(text))


def clean(text: str) -> str:
    """`text` without control characters: what data hold must not steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def cell(value: Any) -> str:
    """A value as people read it in a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime | date):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {cell(part)}" for key, part in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(cell(part) for part in value)
    return clean(" ".join(str(value).split()))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None, right: Iterable[str] = ()) -> None:
    """Print a table; `right` names the columns of numbers. Cells go through `cell` and are never read as markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False)
    if title:  # above the table, so that a long one is not folded to the table's width
        line(title)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    numbers = set(right)
    for name in columns:
        drawn.add_column(Text(clean(name)), justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell(value)) for value in row))
    console.print(drawn)


def facts(values: Mapping[str, Any], *, title: str | None = None) -> None:
    """Print names and values, one a line; what is null or empty is left out."""
    rows = [(key.replace("_", " "), value) for key, value in values.items() if value is not None and value != {} and value != []]
    if title:
        line(title)
    width = max((len(key) for key, _ in rows), default=0)
    for key, value in rows:
        line(f"  {key:<{width}}  {cell(value)}")
