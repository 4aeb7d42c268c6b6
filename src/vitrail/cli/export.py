"""export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli import show
from vitrail.cli.answer import RunArgument
from vitrail.cli.learn import JSON, Plugin, load_plugins


class FormatName(StrEnum):
    """The formats of funnel.export."""

    onnx = "onnx"
    trees = "trees"


def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")],
    format: Annotated[FormatName, typer.Option(help="onnx: a graph of codes to chances; trees: the text of a LightGBM model.")] = FormatName.onnx,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    system: Plugin = None,
    json: JSON = False,
) -> None:
    """Write a fitted ranker as a file for other runtimes; what it answers there is compared with what it answers here."""
    from vitrail.funnel.export import export_run

    load_plugins(system)
    made = export_run(run, out, format.value, overwrite=overwrite)
    if json:
        show.emit(made.as_json())
        return
    show.facts({key: value for key, value in made.as_json().items() if value is not None and key != "inputs"} | {"inputs": ", ".join(made.inputs)})
    if made.difference is None and made.format == "onnx":
        show.warn('The graph was not run: pip install "vitrail[onnx]" brings onnxruntime.')
