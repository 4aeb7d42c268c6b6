"""What goes on while a model serves: data impressions, data events, forget, update."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli import show
from vitrail.cli.learn import JSON, Plugin, load_plugins

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The store of a service: a file, or postgresql://... or redis://...")]
OutFile = Annotated[Path, typer.Option(metavar="FILE.parquet", help="Where the table goes.")]


def impressions(store: StoreArgument, out: OutFile, json: JSON = False) -> None:
    """Write what a service showed, and what was clicked, as training data."""
    from vitrail.serve.export import write_impressions
    from vitrail.serve.store.base import open_existing

    rows = write_impressions(open_existing(store), out)
    show.emit({"rows": rows, "out": str(out)}) if json else show.line(f"{rows:,} impressions are in {out}.")


def events(store: StoreArgument, out: OutFile, json: JSON = False) -> None:
    """Write the events a service took in, for `vitrail data ingest`."""
    from vitrail.serve.export import write_events
    from vitrail.serve.store.base import open_existing

    rows = write_events(open_existing(store), out)
    show.emit({"rows": rows, "out": str(out)}) if json else show.line(f"{rows:,} events are in {out}.")


def forget(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user id.")],
    store: Annotated[str, typer.Option(envvar="VITRAIL_STORE", metavar="URL", help="The store of the service.")],
    json: JSON = False,
) -> None:
    """Erase a user from a store: events, answers, and the places on disk where they were."""
    from vitrail.serve.forget import forget as run
    from vitrail.serve.store.base import open_existing

    gone = run(open_existing(store), user)
    if json:
        show.emit({"user": user, "events": gone.events, "requests": gone.requests})
        return
    show.line(f"Erased: {gone.events:,} events and {gone.requests:,} answers.")
    show.note("note: a run that was trained on this user's events still knows them until it is updated with data that have none.")


def update(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run to refresh; it stays as it is.")],
    data: Annotated[Path, typer.Option(metavar="NEW", help="The data set as it is now: all events, old and new.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The run folder to write.")],
    epochs: Annotated[int | None, typer.Option(help="Epochs at most; by default those of the run.")] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Fit from nothing too, and report how far the two are apart.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run at that place.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    system: Plugin = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    json: JSON = False,
) -> None:
    """Refresh a run with new data, from its own weights: users and items may have come and gone."""
    from vitrail.train.update import update as refresh

    load_plugins(system)
    report = refresh(run, data, out, epochs=epochs, check=check, overwrite=overwrite, device=device, quiet=quiet)
    if json:
        show.emit(report)
        return
    for name in ("users", "items"):
        counts = report[name]
        show.line(f"{name}: {counts['kept']:,} kept, {counts['new']:,} new, {counts['gone']:,} gone")
    columns = ("fit", "epochs", "seconds", report["metric"])
    rows = [(row["fit"], row["epochs"], row["seconds"], row["value"]) for row in report["fits"]]
    show.table(columns, rows, right=columns[1:])
    if report["overlap@10"] is not None:
        show.line(f"Of ten items, the updated and the full fit have {10 * report['overlap@10']:.1f} in common.")
    show.line(f"{report['weights']} The run is in {out}.")
