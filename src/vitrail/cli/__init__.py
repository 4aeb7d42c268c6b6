"""The command line. Nothing heavy is imported here: `vitrail --help` is quick, a verb imports what it needs when it runs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vitrail import interrupt
from vitrail.errors import VitrailError

ClickException: type[Exception] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
"""The base of typer's own refusals, wherever this version of typer keeps it."""


class Verbs(TyperGroup):
    """The verbs; whatever goes wrong in one ends as a sentence on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except (typer.Exit, typer.Abort, ClickException):
            raise
        except KeyboardInterrupt:
            if not interrupt.heard():  # `interrupt.run` says it else, past whatever holds standard error
                _say(interrupt.SENTENCE)
            raise typer.Exit(interrupt.INTERRUPTED) from None
        except BaseException as error:
            if interrupt.heard():  # compiled code turned it into an error of its own
                raise typer.Exit(interrupt.INTERRUPTED) from None
            # a panic of polars is no Exception, and no traceback for people either
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise typer.Exit(_end(error)) from None


def _end(error: BaseException) -> int:
    """Says what went wrong in one sentence; returns the exit code."""
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        # whoever read our output has seen enough; the interpreter must not fail again when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if os.environ.get("VITRAIL_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, VitrailError):
        _say(f"error: {error}")
        return error.exit_code
    if isinstance(error, MemoryError):
        _say("error: The machine ran out of memory: use less data, a smaller batch, or a larger machine.")
        return 3
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"error: {where}{error.strerror}.")
        return 3 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 2
    text = " ".join(str(error).split())
    _say(
        f"error: Vitrail failed in a way it should not ({type(error).__name__}: {text[:200]}): "
        "please report this with the output of `vitrail doctor`; VITRAIL_DEBUG=1 shows the traceback."
    )
    return 1


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)  # noqa: T201


app = typer.Typer(
    name="vitrail",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From a catalogue and an event log to measured, served recommendations.",
    epilog="Every verb that prints for people prints one JSON document with --json. A first look: vitrail demo.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from vitrail import __version__

        typer.echo(f"vitrail {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")] = False) -> None:
    """From a catalogue and an event log to measured, served recommendations."""


def _assemble() -> None:
    from vitrail.cli import answer, content, data, explain, export, funnel, house, index, lab, learn, live, policy

    verbs: list[tuple[str, Callable[..., None]]] = [
        ("demo", house.demo),
        ("systems", learn.systems),
        ("fit", learn.fit),
        ("evaluate", learn.evaluate),
        ("tune", lab.tune),
        ("compare", lab.compare),
        ("effects", lab.effects),
        ("recommend", answer.recommend),
        ("similar", answer.similar),
        ("explain", explain.explain),
        ("map", explain.item_map),
        ("serve", answer.serve),
        ("export", export.export),
        ("update", live.update),
        ("forget", live.forget),
        ("doctor", house.doctor),
    ]
    app.add_typer(data.app, name="data")
    app.add_typer(content.app, name="content")
    app.add_typer(index.app, name="index")
    app.add_typer(funnel.app, name="funnel")
    app.add_typer(policy.app, name="policy")
    for verb in (live.impressions, live.events):
        data.app.command(verb.__name__)(verb)
    for name, command in verbs:
        app.command(name)(command)


_assemble()


def main() -> None:
    """The entry point `vitrail`."""
    # idle threads sleep instead of spinning: on a machine with other work a training step is up to 30 times as fast
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    interrupt.run(lambda: app(prog_name="vitrail"))
