"""Finds systems: those of the package, those of installed packages (entry points), those in a file of yours."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import vitrail.systems as package
from vitrail.config import Settings
from vitrail.errors import SettingError, unknown
from vitrail.files import fingerprint
from vitrail.systems.base import _REGISTRY, Card, System

ENTRY_POINTS = "vitrail.systems"
"""Group of entry points: each names a module whose import registers systems."""


@cache
def discover() -> None:
    """Import every module that registers something: the families of the package, then the plug-ins."""
    for family in pkgutil.iter_modules(package.__path__):
        if family.ispkg:
            folder = importlib.import_module(f"{package.__name__}.{family.name}")
            for module in pkgutil.iter_modules(folder.__path__):
                importlib.import_module(f"{folder.__name__}.{module.name}")
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:
            raise SettingError(f'The installed plug-in "{entry.name}" cannot be imported ({error}): repair or uninstall it.') from error


def load_file(path: str | Path) -> list[str]:
    """Import a Python file of yours that registers systems; returns their names. This runs the file's code.

    Raises SettingError where the file is absent, fails, or registers none.
    """
    file = Path(path)
    if not file.is_file():
        raise SettingError(f"There is no file {file}: --system takes a Python file that registers a system with @system(...).")
    before = set(_REGISTRY)
    name = f"vitrail_plugin_{fingerprint(str(file.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SettingError(f"{file} is not a Python file: --system takes a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SettingError(f"{file} cannot be imported: {type(error).__name__}: {error}.") from error
    added = sorted(n for n, cls in _REGISTRY.items() if cls.__module__ == name)
    if not added and set(_REGISTRY) == before:
        raise SettingError(f"{file} registers no system: decorate a class with @system(name, stage=..., family=...).")
    return added


def names() -> list[str]:
    """Names of all systems, sorted."""
    discover()
    return sorted(_REGISTRY)


def _near(name: str) -> None:
    """Import the file that is called as the system is, if there is one: the others take time and memory."""
    if not re.fullmatch("[a-z0-9-]+", name):
        return
    for family in pkgutil.iter_modules(package.__path__):
        module = f"{package.__name__}.{family.name}.{name.replace('-', '_')}"
        if family.ispkg and importlib.util.find_spec(module):
            importlib.import_module(module)


def find(name: str) -> type[System]:
    """The class of a system. Raises SettingError with a suggestion."""
    if name not in _REGISTRY:
        _near(name)
    if name not in _REGISTRY:
        discover()
    if name not in _REGISTRY:
        raise unknown("system", name, _REGISTRY)
    return _REGISTRY[name]


def card(name: str) -> Card:
    """The card of a system. Raises SettingError with a suggestion."""
    return find(name).card


def cards() -> list[Card]:
    """The cards of everything that can stand in a funnel: systems, slates and policies, by name."""
    discover()
    from vitrail.systems.policy import _POLICIES
    from vitrail.systems.slate import _SLATES

    known: dict[str, Any] = {**_REGISTRY, **_SLATES, **_POLICIES}
    return [known[name].card for name in sorted(known)]


def part(name: str) -> tuple[Card, type[Settings]]:
    """Card and settings of a system, slate or policy. Raises SettingError with a suggestion."""
    discover()
    from vitrail.systems.policy import _POLICIES
    from vitrail.systems.slate import _SLATES

    known: dict[str, Any] = {**_REGISTRY, **_SLATES, **_POLICIES}
    if name not in known:
        raise unknown("system", name, known)
    return known[name].card, known[name].Config
