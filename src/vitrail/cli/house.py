"""doctor, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli import show
from vitrail.cli.learn import JSON


def doctor(json: JSON = False) -> None:
    """What this installation and machine are made of; every bug report starts here."""
    from vitrail.doctor import examine

    report = examine()
    if json:
        show.emit(report)
        return
    for title, values in report.items():
        if title != "problems":
            show.facts(values, title=title.replace("_", " "))
    for problem in report["problems"]:
        show.line(f"problem: {problem}")
    if not report["problems"]:
        show.line("No problem found.")


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the demo goes.")] = Path("demo"),
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    studio: Annotated[bool, typer.Option("--studio/--no-studio", help="End with the studio, a page over a running service.")] = True,
    json: JSON = False,
) -> None:
    """Simulate a shop, fit and compare systems, write a page, recommend for one user, show the studio."""
    from vitrail.demo import run

    result = run(out, open_page=open_page, studio=studio, quiet=json)
    if json:
        show.emit(result)
