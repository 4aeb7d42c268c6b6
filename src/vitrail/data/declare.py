"""Features as a person declares them: in `dataset.yaml` under `features`, or in a YAML file of their own. What they are computed by stands in data.declared.

    features:
      carts_7d: {kind: count, by: user, where: event == "cart", window: 7d}
      of_brand: {kind: count, by: [user, brand], window: 30d}
      click_rate: {kind: rate, by: item, source: impressions, hit: clicked > 0, window: 7d, prior: [1, 20]}
      city_brand: {kind: cross, columns: [city, brand], hash: 1000}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator

from vitrail.config import Settings, read_yaml
from vitrail.errors import SettingError, unknown

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
"""Seconds."""


def microseconds(text: str) -> int:
    """`90s`, `30m`, `12h`, `7d`, `2w` -> microseconds. Raises ValueError: one clause."""
    number, unit = text[:-1], text[-1:]
    try:
        length = round(float(number) * UNITS[unit] * 1_000_000)
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f'"{text}" is no length of time; write it like 7d (also s, m, h, w)') from None
    if not 0 < length < 2**62:
        raise ValueError(f'"{text}" is no length of time that can be looked back; write it like 7d')
    return length


def _checked(text: str) -> str:
    microseconds(text)
    return text


Duration = Annotated[str, AfterValidator(_checked)]
"""A length of time, like 7d."""
Kind = Literal["column", "cross", "count", "distinct", "sum", "mean", "min", "max", "recency", "rate", "ratio"]
_EVENTS = {"source", "by", "where", "window", "lag"}
_NUMBERS = {"buckets", "edges", "missing"}
_VALUES = {"vocabulary", "at_least", "hash"}
KEYS: dict[str, tuple[set[str], set[str]]] = {
    "column": ({"column"}, _NUMBERS | _VALUES | {"category"}),
    "cross": ({"columns"}, _VALUES),
    "count": ({"by"}, _EVENTS | _NUMBERS),
    "recency": ({"by"}, _EVENTS | _NUMBERS),
    "rate": ({"by", "hit"}, _EVENTS | _NUMBERS | {"prior"}),
    "ratio": ({"parts"}, _NUMBERS | {"prior"}),
    **{kind: ({"by", "column"}, _EVENTS | _NUMBERS) for kind in ("distinct", "sum", "mean", "min", "max")},
}
"""kind -> the keys it must have, and those it may have."""


class Feature(Settings):
    """One declared feature."""

    kind: Kind
    """column: an attribute of the item or user, or a column of the impression; cross: the combination of several; the rest look at the events strictly
    before the moment: count, distinct values of a column, sum, mean, min and max of one, days since the last (recency), the share that are hits (rate);
    ratio: one declared feature over another."""
    by: tuple[str, ...] = ()
    """Whose events: user, item, and categories of either, e.g. [user, brand]: the person's events with items of the brand of this one."""
    source: Literal["interactions", "impressions"] = "interactions"
    """The table of events."""
    where: str | None = None
    """Which of its events, a condition over its columns."""
    window: Duration | None = None
    """How far back, e.g. 7d; none: ever."""
    lag: Duration | None = None
    """How old an event must be to be seen, e.g. 1h where logs come late; the window is counted from there."""
    column: str | None = None
    """The column or attribute that is read; of `distinct` also user or item."""
    hit: str | None = None
    """Of rate: the condition of a success."""
    columns: tuple[str, ...] = ()
    """Of cross: attributes, columns of the impression, or other declared features by their buckets."""
    parts: tuple[str, ...] = ()
    """Of ratio: the features above and below."""
    prior: tuple[NonNegativeFloat, NonNegativeFloat] | None = None
    """Added above and below in rate and ratio, e.g. [1, 20]: a rate of 1/20 that 20 events weigh against."""
    category: bool = False
    """Of column: its values are categories. Found out where a data set is at hand."""
    missing: float | str | None = None
    """What stands for a missing value; none: it keeps a code of its own."""
    buckets: PositiveInt | None = None
    """Buckets of a number, by quantiles of the training rows; none: as the ranker has them."""
    edges: tuple[float, ...] = ()
    """Edges of the buckets of a number, in place of quantiles."""
    vocabulary: NonNegativeInt = 0
    """The most frequent values of the training rows that are kept; 0: all."""
    at_least: PositiveInt = 1
    """Training rows a value must have to be kept; others are as never seen."""
    hash: Annotated[int, Field(ge=0, le=2**24)] = 0
    """Codes that values are hashed into, in place of a vocabulary; 0: none."""

    @field_validator("by", "columns", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> Feature:
        must, may = KEYS[self.kind]
        told = {name for name, field in type(self).model_fields.items() if name != "kind" and getattr(self, name) != field.default}
        if lacks := sorted(must - told):
            raise ValueError(f'kind {self.kind} needs "{lacks[0]}"')
        if odd := sorted(told - must - may):
            raise ValueError(f'kind {self.kind} has no "{odd[0]}"; it takes {", ".join(sorted(must | may))}')
        for name in ("columns", "parts"):
            if name in told and (len(getattr(self, name)) < 2 or (name == "parts" and len(self.parts) > 2)):
                raise ValueError(f"{name} of kind {self.kind} names {'two features' if name == 'parts' else 'two columns at least'}")
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError("edges must rise")
        if self.edges and self.buckets is not None:
            raise ValueError("edges stand in place of buckets; leave one of them out")
        if self.hash and (self.vocabulary or self.at_least > 1):
            raise ValueError("hash stands in place of a vocabulary; leave one of them out")
        return self

    @property
    def past(self) -> bool:
        """Whether it looks at events."""
        return "by" in KEYS[self.kind][0]

    @property
    def conditions(self) -> list[str]:
        """Its conditions over columns of its source."""
        return [text for text in (self.where, self.hit) if text]

    @property
    def reads(self) -> tuple[str, ...]:
        """Other features it may be made of."""
        return self.columns + self.parts

    @property
    def text(self) -> str:
        """What it is, in words."""
        what = {
            "column": self.column, "cross": " x ".join(self.columns), "ratio": " / ".join(self.parts), "count": f"events of {self.source}",
            "recency": f"days since the last of {self.source}", "rate": f"share of {self.source} with {self.hit}",
        }  # fmt: skip
        said = what.get(self.kind) or f"{self.kind} {self.column}"
        said += f" by {' x '.join(self.by)}" if self.by else ""
        said += f" where {self.where}" if self.where else ""
        said += f", {self.window} back" if self.window else ""
        return said + (f", {self.lag} late" if self.lag else "")


Features = dict[str, Feature]


def read_features(values: Any, where: str) -> Features:
    """`{name: {kind: ...}}` as features, each after those it reads.

    Raises SettingError: one sentence that names the feature and the key.
    """
    if not isinstance(values, Mapping):
        raise SettingError(f"The features in {where} must be a mapping of names to definitions.")
    found: Features = {}
    for name, told in values.items():
        if isinstance(told, Feature):
            found[str(name)] = told
        elif isinstance(told, Mapping):
            found[str(name)] = Feature.of(told, where=f'feature "{name}" of {where}')
        else:
            raise SettingError(f'The feature "{name}" of {where} must be a mapping with a kind: {", ".join(KEYS)}.')
    return in_order(found, where)


def in_order(features: Features, where: str) -> Features:
    """The same features, each after those it reads. Raises SettingError where some read each other, or a ratio reads what is not there."""
    for name, feature in features.items():
        for other in feature.parts:
            if other not in features:
                raise SettingError(f'{unknown("feature", other, features)} It is read by "{name}" of {where}.')
            if features[other].kind in ("cross", "column"):
                raise SettingError(f'The feature "{name}" of {where} is a ratio of "{other}", which is no number of events: name a count, sum or the like.')
    found: Features = {}
    while len(found) < len(features):
        ready = [name for name, feature in features.items() if name not in found and all(other in found or other not in features for other in feature.reads)]
        if not ready:
            name = next(name for name in features if name not in found)
            raise SettingError(f'The feature "{name}" of {where} reads itself by way of others: leave one out.')
        found |= {name: features[name] for name in ready}
    return found


def chosen(told: Mapping[str, Feature] | Iterable[str] | str | None, known: Mapping[str, Feature]) -> Features:
    """The features that a setting asks for: definitions as they are, names among the `known` ones of a data set with what these read, the file of a path,
    or, by none, all that are known.

    Raises SettingError for a name that is not there, and as `read_features`.
    """
    if told is None:
        return in_order(dict(known), "dataset.yaml")
    if isinstance(told, str):
        values = read_yaml(told)
        return read_features(values.get("features", values) if set(values) <= {"features"} else values, Path(told).name)
    if isinstance(told, Mapping):
        return in_order(dict(told), "the settings")
    wanted = list(told)
    for name in wanted:
        if name not in known:
            raise unknown("feature", name, known)
        wanted += [other for other in known[name].reads if other in known and other not in wanted]
    return in_order({name: known[name] for name in known if name in wanted}, "dataset.yaml")
