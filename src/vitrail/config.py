"""Frozen typed settings. Bounds live in the type; an unknown key is an error that says what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from vitrail.errors import SettingError, did_you_mean, printable

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share of a whole, in [0, 1]."""
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A dropout rate, in [0, 1)."""

__all__ = [
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "Rate",
    "Settings",
    "Share",
    "parse_assignments",
    "read_yaml",
]


class Settings(BaseModel):
    """A frozen record of settings. Build it from outside input with `Settings.of`, which gives one-sentence errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def of(cls, values: Mapping[str, Any], *, where: str = "settings") -> Self:
        """Validate `values`. Raises SettingError: one sentence with the key, the place and the remedy."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise SettingError(printable(_sentence(cls, error, where))) from None

    def but(self, values: Mapping[str, Any], *, where: str = "settings") -> Self:
        """A copy with `values` changed, validated as a whole. Raises SettingError."""
        return type(self).of({**self.model_dump(), **values}, where=where)


def _sentence(cls: type[BaseModel], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "value"
    if first["type"] == "extra_forbidden":
        return f'Unknown key "{key}" in {where}.{did_you_mean(str(first["loc"][-1]), _known(cls, first["loc"]))}'
    if first["type"] == "missing":
        return f'The key "{key}" is missing in {where}: add it.'
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not first["loc"]:
        return f"Bad {where}: {message}."
    if first["type"] == "value_error":
        return f'Bad value for "{key}" in {where}: {message}.'
    return f'Bad value for "{key}" in {where}: {message[0].lower()}{message[1:]}, got {first["input"]!r}.'


def _known(cls: type[BaseModel], loc: tuple[int | str, ...]) -> Iterable[str]:
    """The keys known at the place `loc` of nested settings, through lists, mappings and alternatives."""
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        field = cls.model_fields.get(part)
        inner = None if field is None else next(_records(field.annotation), None)
        if inner is None:
            return () if field is not None else cls.model_fields
        cls = inner
    return cls.model_fields


def _records(annotation: Any) -> Iterator[type[BaseModel]]:
    """The records that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _records(part)


def parse_assignments(pairs: Iterable[str]) -> dict[str, Any]:
    """`["dim=64", "loss=bce"]` -> `{"dim": 64, "loss": "bce"}`; values are read as YAML scalars or lists.

    Raises SettingError for a piece without `=` and for a value that is not YAML.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise SettingError(f'"{pair}" is not of the form key=value.')
        try:
            values[key.strip()] = _number_or(yaml.safe_load(text))
        except yaml.YAMLError:
            raise SettingError(f'The value in "{pair}" cannot be read; quote it.') from None
    return values


def _number_or(value: Any) -> Any:
    """YAML reads `1e-3` as text (it wants `1.0e-3`); people write `1e-3`."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises SettingError where the file is absent, malformed or not a mapping."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except FileNotFoundError:
        raise SettingError(f"There is no file {path}.") from None
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not readable YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(values, dict):
        raise SettingError(f"{path} must hold a mapping of keys to values.")
    return {key: {k: _number_or(v) for k, v in value.items()} if isinstance(value, dict) else _number_or(value) for key, value in values.items()}
