"""Every error a person can meet: one sentence that says what is wrong, where, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class VitrailError(Exception):
    """A mistake the user can mend. The command line prints its one sentence and exits with `exit_code`."""

    exit_code = 2


class DataError(VitrailError):
    """The data are missing, malformed, or lack what was asked of them."""


class SettingError(VitrailError):
    """A setting, flag or name is unknown or out of bounds."""


class ArtifactError(VitrailError):
    """A saved folder is damaged, incomplete, or written by a newer version."""


class ResourceError(VitrailError):
    """The machine lacks what the job needs: disk, memory, a device."""

    exit_code = 3


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' where a known name is close to `name`, else the list of known names."""
    names = sorted(known)
    close = get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.6)
    if close:
        match = next(n for n in names if n.lower() == close[0])
        return f' Did you mean "{match}"?'
    return f" Known: {', '.join(names)}." if names else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> SettingError:
    """The error for a name that is not one of the `known`; `kind` is what is named, e.g. 'system'."""
    return SettingError(f'There is no {kind} "{printable(name)}".{did_you_mean(name, known)}')


def printable(text: str) -> str:
    """`text` on one line: whatever is no printable character is shown as ?."""
    return "".join(c if c.isprintable() else "?" for c in text)
