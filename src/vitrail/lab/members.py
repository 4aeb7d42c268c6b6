"""Who takes part in a comparison: the systems that are named, and those of a family that the data allow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vitrail.data.dataset import Dataset
from vitrail.errors import DataError, SettingError, unknown
from vitrail.evaluation.plots import label
from vitrail.lab.bench import check_needs
from vitrail.lab.space import for_system
from vitrail.systems import registry

ASKED = "it was to be left out"
"""Why a system is left out that was named for it."""


def members(
    systems: Sequence[str], family: str | None, without: Sequence[str], dataset: Dataset, settings: Mapping[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """`systems` and, of `family`, all that the data allow but for those in `without`; and why each other one of the family is left out.

    Raises SettingError for an unknown family, and where `without` names a system that is not of it or is asked for by its name.
    """
    if family is None:
        if without:
            raise SettingError(f'--without leaves systems out of a family, and none is named: leave "{without[0]}" itself out, or add --family NAME.')
        return list(systems), {}
    named = next((name for name in without if name in systems), None)
    if named is not None:
        raise SettingError(f'System "{named}" is named and left out at once: drop one of both.')
    found, left_out = of_family(family, dataset, settings, systems)
    for name in without:
        if name not in (everybody := [*found, *left_out]):
            raise unknown(f'system of the family "{family}"', name, everybody)
    gone = dict.fromkeys(without, ASKED)
    return [*systems, *(name for name in found if name not in systems and name not in gone)], {
        name: why for name, why in {**left_out, **gone}.items() if name not in systems
    }


def of_family(
    family: str, dataset: Dataset, settings: Mapping[str, Any], beside: Collection[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """The systems of `family` that `dataset` allows, and why each of the others is left out. `settings` may be those of systems `beside` it too.

    Raises SettingError for an unknown family.
    """
    by_family: dict[str, list[str]] = {}
    for name in registry.names():
        by_family.setdefault(registry.card(name).family, []).append(name)
    if family not in by_family:
        raise unknown("family", family, by_family)
    names, left_out = by_family[family], {}
    known = [*names, *beside]
    fixed = {name: for_system(settings, name, registry.find(name).Config.model_fields, known) for name in names}
    for name in names:
        try:
            check_needs({name: registry.find(name).Config.of(fixed[name], where=f'settings of system "{name}"')}, dataset)
        except DataError as error:
            left_out[name] = str(error).replace("; nothing was run", "")
    return [name for name in names if name not in left_out], left_out


def check_systems(systems: Sequence[str]) -> list[str]:
    """The names, known and distinct, at least two. Raises SettingError."""
    for name in systems:
        registry.find(name)
    twice = [name for n, name in enumerate(systems) if name in systems[:n]]
    if twice:
        raise SettingError(f'System "{twice[0]}" is named twice: to compare two settings of it, fit both and compare the runs.')
    if len(systems) < 2:
        raise SettingError(f"A comparison needs at least 2 systems, and {len(systems)} is named: add one, e.g. popular.")
    return list(systems)


def fixed_settings(names: list[str], settings: Mapping[str, Any], known: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """What is set by hand, a system each; it may be for systems in `known` too. Raises SettingError for a key that no system knows."""
    known = known or names
    check_keys(settings, known)
    return {name: for_system(settings, name, registry.find(name).Config.model_fields, known) for name in names}


def check_keys(settings: Mapping[str, Any], systems: Sequence[str]) -> None:
    """Raises SettingError for a key that is neither a setting of any of `systems` nor one of their names."""
    known = {key for name in systems for key in registry.find(name).Config.model_fields}
    for key in settings:
        if "." not in key and key not in systems and key not in known:
            raise unknown("setting of these systems", key, known)


def told(left_out: Mapping[str, str]) -> list[str]:
    """What of a family is left out though nobody asked for it, a sentence each."""
    return [f"{name} is left out: {why}" for name, why in left_out.items() if why != ASKED]


def outsiders(names: Sequence[str], family: str | None) -> list[str]:
    """The systems that are not of `family` (none: that of the first one): among them the best baseline is looked for. Raises SettingError for none."""
    own = family or registry.card(names[0]).family
    found = [name for name in names if registry.card(name).family != own]
    if not found:
        raise SettingError(f'--baseline best is the best of the systems that are not of the family "{own}", and all of these are: add others, e.g. item-knn.')
    return found


def best_baseline(found: Sequence[str], validation: Mapping[str, float], metric: str) -> tuple[str, str]:
    """Which of `found` is the best by its value on `validation`, and why in a sentence."""
    best = max(found, key=lambda name: validation[name])
    rest = [f"{name} {validation[name]:.4f}" for name in sorted(found, key=lambda name: -validation[name]) if name != best]
    beside = f", before {', '.join(rest)}" if rest else ", and alone"
    return best, f"The baseline is {best}, the best on validation of the systems of other families ({label(metric)} {validation[best]:.4f}{beside})."
