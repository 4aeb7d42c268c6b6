"""What tuning tries: a range or a list of choices for each setting, found by the setting's name."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin

from pydantic import model_validator

from vitrail.config import Settings, read_yaml
from vitrail.data.schema import DatasetInfo
from vitrail.errors import SettingError, did_you_mean, unknown
from vitrail.files import read_json
from vitrail.systems.base import System

Scalar: TypeAlias = bool | int | float | str | None


class Range(Settings):
    """Every number from `low` to `high`."""

    low: float
    high: float
    log: bool = False
    """Equal steps are equal factors."""
    whole: bool = False
    """Whole numbers only."""

    @model_validator(mode="after")
    def _a_range(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low={self.low:g} must be less than high={self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low above 0, got {self.low:g}")
        return self

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (", whole" if self.whole else "") + (", log" if self.log else "")

    def tidy(self, value: float) -> float | int:
        """`value` with four digits: what is printed is what was run."""
        return round(value) if self.whole else min(max(float(f"{value:.4g}"), self.low), self.high)


class Choices(Settings):
    """One of a list."""

    choices: list[Scalar]

    @model_validator(mode="after")
    def _some(self) -> Choices:
        if len(self.choices) < 2:
            raise ValueError("choices needs at least two values; fix a single one with --set")
        return self

    def __contains__(self, value: object) -> bool:
        return value in self.choices

    def __str__(self) -> str:
        return "one of " + ", ".join("none" if c is None else str(c).lower() if isinstance(c, bool) else f"{c}" for c in self.choices)


Space: TypeAlias = dict[str, Range | Choices]

DECADES = 2
"""How far a penalty is tried on both sides of its default: penalties of two systems with one name can differ by a million."""
PENALTIES = ("l2", "reg", "regularization")


def generic(name: str, default: Any, annotation: Any, *, n_items: int, timed: bool, names: Collection[str]) -> Range | Choices | None:
    """What is tried for a setting of this name, whatever the system; none: it is left alone.

    Sizes (dim, length, batch) are left alone: they trade quality for time and are compared at equal values.
    """
    if name in PENALTIES:
        middle = default or 1e-4
        return Range(low=middle / 10**DECADES, high=middle * 10**DECADES, log=True)
    if name == "weight_decay":
        return None if set(PENALTIES) & set(names) else Range(low=1e-6, high=1e-1, log=True)
    if name == "dropout" or name.endswith("_dropout"):
        return Range(low=0.0, high=0.7)
    if name == "weighting" and get_origin(annotation) is Literal:
        return Choices(choices=list(get_args(annotation)))
    if name == "half_life":
        return Choices(choices=[None, 3.0, 10.0, 30.0, 100.0, 300.0]) if timed else None
    found: dict[str, Range | None] = {
        "lr": Range(low=1e-4, high=3e-2, log=True),
        "layers": Range(low=1, high=max(3, (default or 0) + 1), whole=True) if isinstance(default, int | None) else None,
        "k": Range(low=10, high=max(11, min(1000, n_items)), log=True, whole=True),
        "shrink": Range(low=0, high=200),
        "alpha": Range(low=0.5, high=100, log=True),
    }
    return found.get(name)


def space_of(
    cls: type[System], config: Any, info: DatasetInfo, n_items: int, *, fixed: Collection[str] = (), asked: Mapping[str, Any] | None = None
) -> Space:
    """The settings of a system that are tuned, and what is tried for each.

    Generic by name, then the system's own `space`, then `asked` (name -> `{low, high, log, whole}`, `{choices: [...]}`, a list, or
    none to leave it alone); what is `fixed` by hand is not tuned. Raises SettingError: an unknown name, a range the setting does not allow.
    """
    fields = type(config).model_fields
    timed = info.order == "timestamp" and not info.timed_parts
    space: Space = {}
    for name, field in fields.items():
        found = generic(name, getattr(config, name), field.annotation, n_items=n_items, timed=timed, names=fields)
        if found is not None:
            space[name] = found
    for values, where in ((cls.space, f'the space of system "{cls.card.name}"'), (asked or {}, "the space")):
        for name, value in values.items():
            if name not in fields:
                raise SettingError(f'System "{cls.card.name}" has no setting "{name}" to tune.{did_you_mean(name, fields)}')
            if value is None:
                space.pop(name, None)
            else:
                space[name] = _dimension(name, value, getattr(config, name), f"{where}, {name}")
    kept = {name: dimension for name, dimension in space.items() if name not in fixed}
    for name, dimension in kept.items():
        for value in _ends(dimension):
            config.but({name: value}, where=f"what is tried for {name}")
    return kept


def as_begun(space: Space, begun: Mapping[str, Any], asked: Collection[str]) -> Space:
    """`space` as work that is under way `begun` it (plain values, from its record), but for what is `asked` by hand: a range by default that has
    changed since with the program does not change what is being tried."""
    old = {name: Choices.of(value, where=name) if "choices" in value else Range.of(value, where=name) for name, value in begun.items() if name not in asked}
    return {**old, **{name: dimension for name, dimension in space.items() if name in asked}}


def begun_with(folder: Path) -> dict[str, Any]:
    """The space in the record of the work that is under way in `folder`; {} where none is."""
    file = folder / "request.json"
    return dict(read_json(file).get("space", {})) if file.exists() else {}


def _ends(dimension: Range | Choices) -> list[Scalar]:
    if isinstance(dimension, Choices):
        return dimension.choices
    return [math.ceil(dimension.low), math.floor(dimension.high)] if dimension.whole else [dimension.low, dimension.high]


def _dimension(name: str, value: Any, default: Any, where: str) -> Range | Choices:
    if isinstance(value, Range | Choices):
        return value
    if isinstance(value, list):
        return Choices.of({"choices": value}, where=where)
    if not isinstance(value, Mapping):
        raise SettingError(f'Bad {where}: write "{name}: {{low: 0.1, high: 10, log: true}}", "{name}: [a, b, c]" or "{name}: null".')
    if "choices" in value:
        return Choices.of(value, where=where)
    whole = isinstance(default, int) and not isinstance(default, bool)
    return Range.of({"whole": whole, **value}, where=where)


def read_space(path: str | Path) -> dict[str, Any]:
    """The space in a YAML file: setting -> what is tried, or system -> setting -> what is tried. Raises SettingError."""
    return read_yaml(path)


def for_system(asked: Mapping[str, Any], system: str, fields: Collection[str], systems: Collection[str]) -> dict[str, Any]:
    """What `asked` says for one of several systems: keys that are systems hold their own; other keys hold for every system that has the setting.

    Also reads `system.setting` keys. Raises SettingError for a name before the dot that is no system of the comparison.
    """
    found: dict[str, Any] = {}
    for key, value in asked.items():
        owner, dot, name = key.partition(".")
        if dot:
            if owner not in systems:
                raise unknown("system in this comparison", owner, systems)
            if owner == system:
                found[name] = value
        elif key in systems and isinstance(value, Mapping):
            if key == system:
                found |= value
        elif key in fields:
            found.setdefault(key, value)
    return found


def size(space: Space) -> float:
    """How many settings there are; infinite with a range of numbers that are not whole."""
    count = 1.0
    for dimension in space.values():
        if isinstance(dimension, Choices):
            count *= len(dimension.choices)
        else:
            count *= math.floor(dimension.high) - math.ceil(dimension.low) + 1 if dimension.whole else math.inf
    return count if space else 0.0


def as_json(space: Space) -> dict[str, Any]:
    """Plain values, as a YAML file of spaces has them."""
    return {name: dimension.model_dump(mode="json", exclude_defaults=True) for name, dimension in space.items()}


def distributions(space: Space) -> dict[str, Any]:
    """Setting -> Optuna's distribution."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, Any] = {}
    for name, dimension in space.items():
        if isinstance(dimension, Choices):
            made[name] = CategoricalDistribution(dimension.choices)
        elif dimension.whole:
            made[name] = IntDistribution(math.ceil(dimension.low), math.floor(dimension.high), log=dimension.log)
        else:
            made[name] = FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return made
