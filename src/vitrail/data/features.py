"""Features of impressions: learned on training rows, computed for rows of a data set and for questions of a service by the same code.

R rows, N items, U users, F fields of an impression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.data import fields as F
from vitrail.data.dataset import Dataset
from vitrail.data.declared import Asked, Declaration, Declared, wanted_of
from vitrail.data.declared_learn import impressions, interactions, learn_declared
from vitrail.data.fields import Catalogue, FeatureSpec, Field, FieldSettings
from vitrail.data.happened import Past
from vitrail.data.impressions import ImpressionSplit, Rows
from vitrail.data.log import Log
from vitrail.data.past import ItemPast
from vitrail.errors import DataError, unknown

Int64 = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Features:
    """All that is needed to make the coded fields of any impression."""

    spec: FeatureSpec
    catalogue: Catalogue
    events: ItemPast | None = None
    """every event of every item, where there is a clock"""
    shown: ItemPast | None = None
    """every item shown, with its success, where that is known"""
    declared: Declared | None = None
    """features that a person declared"""

    def codes(
        self, log: Log, owners: Int64, starts: Int64, stops: Int64, items: Int64, now: Int64 | None, context: Mapping[str, pl.Series] | None = None,
        who: Int64 | None = None, places: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.int32]:  # fmt: skip
        """(R, F) fields of impressions of `items` (R,) at `now` (R,) microseconds to people whose past is [starts, stops) of `log`, `owners` (R,) saying whose
        it is there; columns of `context` that are not given are missing. `who` (R,): their codes, -1 strangers, where the log is not that of all users.
        `places` (R,) they were shown at, of training rows; none: that at which all are asked."""
        asked, told = self.spec.owned("event"), context or {}
        names = [f.name for f in asked if f.kind == "number" and f.name not in told and f.name not in self.spec.declared and _is_past(f.name)]
        past = F.past_values(names, log, owners, starts, stops, items, now, self.events, self.shown, self.catalogue, self.catalogue.categories(self.spec))
        codes = np.zeros((len(items), len(asked)), dtype=np.int32)
        declared = self._declared(Asked(owners if who is None else who, items, now, told, None if who is None else log, owners))
        for place, f in enumerate(asked):
            if f.name in declared:
                codes[:, place] = declared[f.name]
            elif f.neutral is not None:
                codes[:, place] = F.code_numbers(np.full(len(items), f.neutral) if places is None else places.astype(np.float64), f.edges)
            elif f.name in past:
                codes[:, place] = F.code_numbers(past[f.name], f.edges)
            elif f.name in told:
                codes[:, place] = code_column(told[f.name], f)
        return codes

    def _declared(self, asked: Asked) -> dict[str, npt.NDArray[np.int32]]:
        return {} if self.declared is None else self.declared.codes(self.spec.declared, asked)

    def fill(self, rows: Rows, *, learning: bool = False) -> Rows:
        """The rows with their fields and signals coded; only rows to learn from (`learning`) tell where they were shown."""
        places = rows.positions if learning else None
        made = self.codes(rows.log, rows.users, rows.starts, rows.stops, rows.items, rows.times, rows.context, places=places)
        return replace(rows, fields=made, signals=F.code_signals(rows.log.weights, self.spec))

    def arrays(self) -> Arrays:
        """Named arrays, for the artifact."""
        found: Arrays = {**self.catalogue.arrays()} | ({} if self.declared is None else self.declared.arrays())
        for name, past in (("events", self.events), ("shown", self.shown)):
            if past is not None:
                found |= {f"{name}.items": past.items, f"{name}.times": past.times}
                found |= {} if past.labels is None else {f"{name}.labels": past.labels}
        return found

    @classmethod
    def of(cls, spec: FeatureSpec, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Features:
        """What `arrays` packed."""
        catalogue = Catalogue.of({key: value for key, value in arrays.items() if not key.startswith(("events.", "shown.", "declared."))})  # type: ignore[misc]
        pasts = {
            name: ItemPast(len(catalogue.items), arrays[f"{name}.items"], arrays[f"{name}.times"], arrays.get(f"{name}.labels"))  # type: ignore[arg-type]
            for name in ("events", "shown")
            if f"{name}.items" in arrays
        }
        declared = Declared.of(Declaration.in_(spec), arrays) if spec.declared else None
        return cls(spec, catalogue, pasts.get("events"), pasts.get("shown"), declared)

    def at(self, known: Log, table: pl.DataFrame | None = None) -> Features:
        """The same features over another log: what is counted is what `known` says, and the rows of `table` that its events came from."""
        if known.times is None:
            return self
        declared = None if self.declared is None else self.declared.over({"interactions": interactions(known, table, self.spec.declared)})
        return replace(self, events=_events(known), declared=declared)

    def showing(self, parts: Sequence[Rows]) -> Features:
        """The same features over other things shown: the rows of `parts`."""
        parts = [part for part in parts if part.times is not None]
        if not parts or self.shown is None:
            return self
        declared = self.declared
        if declared is not None and "impressions" in declared.pasts:
            declared = declared.over({"impressions": impressions(parts, self.spec.declared, self.spec.matures)})
        return replace(self, shown=_shown(self.shown.n_items, parts, self.spec.matures), declared=declared)

    def heard(self, events: pl.DataFrame) -> Features:
        """The same features once more `events` have happened: columns user and item (codes, -1 unknown), timestamp (microseconds), and what else is known
        of them (event, value ...)."""
        items, times = events["item"].to_numpy(), events["timestamp"].to_numpy()
        there = items >= 0
        known = None if self.events is None else self.events.heard(items[there], times[there])
        declared = self.declared
        if declared is not None:
            past = Past.of(events["user"].to_numpy(), items, times, events, wanted_of(self.spec.declared, "interactions"))
            declared = declared.heard("interactions", past.where(there))
        return replace(self, events=known, declared=declared)


def _is_past(name: str) -> bool:
    return name.startswith((F.AFFINITY, F.AGE, "user ", "item "))


def code_column(column: pl.Series, f: Field) -> npt.NDArray[np.int32]:
    """(R,) codes of a column of context."""
    if f.kind == "number":
        return F.code_numbers(_numbers(column), f.edges)
    return F.code_category(column.cast(pl.String), f.values)


def _numbers(column: pl.Series) -> npt.NDArray[np.float64]:
    if column.dtype == pl.Float64 and not column.null_count():
        return column.to_numpy()  # a cast is a query of its own, which a single request would feel
    return column.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _shown(n_items: int, parts: Sequence[Rows], matures: int) -> ItemPast:
    items, times, labels = (np.concatenate(found) for found in zip(*((part.items, part.seen(matures), part.labels) for part in parts), strict=True))
    return ItemPast(n_items, items, times, labels)


def _events(log: Log) -> ItemPast | None:
    return None if log.times is None else ItemPast(log.n_items, np.asarray(log.items, dtype=np.int64), np.asarray(log.times))


def learn(dataset: Dataset, split: ImpressionSplit, settings: FieldSettings, *, length: int) -> tuple[Features, npt.NDArray[np.int64]]:
    """The fields of a data set, learned on the training rows; and (N,) how often each item occurs in them, as a target or in a history of `length`.

    The features count all events of the split's log, each strictly before the moment that is asked. Raises SettingError for an attribute or a
    column that is not there.
    """
    train = split.train
    occurs = occurrences(train, length)
    item_fields, catalogue = _catalogue(dataset, train, settings, occurs)
    fields = [*item_fields, *_context_fields(dataset, train, settings)]
    clock, signal = train.times is not None, train.log.weights is not None
    weights = np.unique(train.log.weights[:1_000_000]) if signal and train.log.weights is not None else np.empty(0)
    signals = F.quantile_edges(weights.astype(np.float64), 16) if signal else []
    spec = FeatureSpec(fields=fields, signal=signal, signals=signals, matures=split.matures)
    shown = split.shown
    rates = None if shown is None or shown.times is None else _shown(len(dataset.items), [shown], split.matures)
    features = Features(spec, catalogue, _events(train.log) if clock else None, rates)
    if settings.position == "feature":
        places = _told(train.positions, "position", "position=feature", dataset).astype(np.float64)
        cut = F.quantile_edges(places, settings.buckets)
        fields.append(Field(name=F.POSITION, whose="event", kind="number", codes=len(cut) + 3, edges=cut, neutral=settings.neutral))
        features = replace(features, spec=spec.model_copy(update={"fields": fields}))
        spec = features.spec
    if declared := learn_declared(dataset, split, train, settings, [f.name for f in fields if f.whose != "event" or f.name == F.POSITION]):
        # what is declared under the name of a field of the impression stands in its place
        fields = [*(f for f in fields if f.name not in declared[0].told.features), *declared[1]]
        more = {"declared": declared[0].told.features, "units": declared[0].told.units}
        features = replace(features, spec=spec.model_copy(update={"fields": fields, **more}), declared=declared[0])
        spec = features.spec
    if not settings.past:
        return features, occurs
    names = ["user count"] + ["user rate"] * signal + ["user gap", "item count", "item gap"] * clock + ["item rate"] * (rates is not None)
    names += [F.AFFINITY + name for name in catalogue.categories(spec)] + [F.AGE + name for name in catalogue.dates] * clock
    names = [name for name in names if name not in spec.declared]
    values = F.past_values(
        names, train.log, train.users, train.starts, train.stops, train.items, train.times, features.events, rates, catalogue, catalogue.categories(spec)
    )
    edges = {name: F.quantile_edges(values[name], settings.buckets) for name in names}
    made = [Field(name=name, whose="event", kind="number", codes=len(edges[name]) + 3, edges=edges[name]) for name in names]
    return replace(features, spec=spec.model_copy(update={"fields": [*fields, *made]})), occurs


def _told(column: npt.NDArray[np.float32] | None, name: str, why: str, dataset: Dataset) -> npt.NDArray[np.float32]:
    if column is None or np.isnan(column).all():
        raise DataError(f'The impressions of data set "{dataset.info.name}" have no {name} for {why}: use --split shown with that column, or leave it out.')
    return column


def debiased(rows: Rows, settings: FieldSettings, dataset: Dataset) -> Rows:
    """Training rows with what `settings` make of the places they were shown at: a success weighs 1 over the chance that it was looked at, at most
    `largest_weight` (Joachims, Swaminathan and Schnabel, WSDM 2017); where that chance is not known, 1.

    Raises DataError where the rows do not have what it needs.
    """
    if settings.position != "weight":
        return rows
    if settings.looked_at == "propensity":
        chance = _told(rows.propensities, "propensity", "looked_at=propensity", dataset)
    else:
        places = _told(rows.positions, "position", "position=weight", dataset)
        if isinstance(settings.looked_at, tuple):
            known = np.asarray(settings.looked_at, dtype=np.float32)
            at = np.clip(np.nan_to_num(places, nan=1.0), 1, len(known)).astype(np.int64) - 1
            chance = np.where(np.isnan(places), np.nan, known[at])
        else:
            chance = (np.maximum(places, 1.0) ** -settings.looked_at).astype(np.float32)
    weights = np.minimum(1 / np.maximum(np.nan_to_num(chance, nan=1.0), 1e-9), settings.largest_weight)
    found = np.where(rows.labels > 0.5, weights, 1.0).astype(np.float32)
    return replace(rows, weights=found if rows.weights is None else rows.weights * found)


def occurrences(rows: Rows, length: int) -> Int64:
    """(N,) how often each item occurs in `rows`, as a target or among the newest `length` events of a history."""
    log = rows.log
    change = np.bincount(np.maximum(rows.starts, rows.stops - length), minlength=len(log) + 1) - np.bincount(rows.stops, minlength=len(log) + 1)
    read = np.cumsum(change)[: len(log)]
    counted = np.bincount(log.items, weights=read, minlength=log.n_items)
    return counted.astype(np.int64) + np.bincount(rows.items, minlength=log.n_items)


def _catalogue(dataset: Dataset, train: Rows, settings: FieldSettings, occurs: Int64) -> tuple[list[Field], Catalogue]:
    kinds = dataset.info.columns
    wanted = settings.attributes
    known = {**kinds.get("items", {}), **kinds.get("users", {})}
    for name in wanted or ():
        if name not in known:
            raise unknown("attribute", name, known)
        if known[name] not in ("category", "categories", "number", "flag", "date"):
            raise DataError(f'The attribute "{name}" is of kind {known[name]}, which is no field: leave it out of attributes.')
    present = occurs > 0
    fields = [Field(name="item", whose="item", kind="id", codes=len(dataset.items) + 2)]
    columns = [np.where(present, np.arange(len(dataset.items)) + 2, F.UNSEEN).astype(np.int32)]
    lists: dict[str, F.Int32] = {}
    dates: dict[str, F.Int64] = {}
    for name, kind in kinds.get("items", {}).items():
        if wanted is not None and name not in wanted:
            continue
        if kind == "categories":
            fields_of, lists[name] = _lists(dataset.items[name], name, present, settings)
            fields.append(fields_of)
        elif kind == "date":
            dates[name] = dataset.items[name].dt.epoch("us").fill_null(F.NO_DATE).to_numpy()
        elif kind in ("category", "number", "flag"):
            made, codes = _single(dataset.items[name], name, kind, "item", present, settings)
            fields.append(made)
            columns.append(codes)
    asking = np.bincount(train.users, minlength=len(dataset.users)) > 0
    users = [np.where(asking, np.arange(len(dataset.users)) + 2, F.UNSEEN).astype(np.int32)] if settings.user_id else []
    fields += [Field(name="user", whose="user", kind="id", codes=len(dataset.users) + 2)] if settings.user_id else []
    for name, kind in kinds.get("users", {}).items():
        if kind in ("category", "number", "flag") and (wanted is None or name in wanted):
            made, codes = _single(dataset.users[name], name, kind, "user", asking, settings)
            fields.append(made)
            users.append(codes)
    of_users = np.stack(users, axis=1) if users else np.zeros((len(dataset.users), 0), dtype=np.int32)
    stranger = np.full((1, of_users.shape[1]), F.UNSEEN, dtype=np.int32)
    return fields, Catalogue(np.stack(columns, axis=1), np.concatenate([of_users, stranger]), lists, dates)


def _single(
    column: pl.Series, name: str, kind: str, whose: str, present: npt.NDArray[np.bool_], settings: FieldSettings
) -> tuple[Field, npt.NDArray[np.int32]]:
    """A field of one value an item or user; what it knows is what the `present` ones have."""
    if kind == "number":
        values = _numbers(column)
        edges = F.quantile_edges(values[present], settings.buckets)
        return Field(name=name, whose=whose, kind="number", codes=len(edges) + 3, edges=edges), F.code_numbers(values, edges)  # type: ignore[arg-type]
    text = column.cast(pl.String)
    values_of = text.filter(pl.Series(present)).drop_nulls().unique().sort()
    hashed = bool(settings.hash_space) and len(values_of) > settings.hash_space
    codes = F.code_category(text, values_of.to_list(), settings.hash_space if hashed else 0)
    return Field(name=name, whose=whose, kind="category", codes=(settings.hash_space if hashed else len(values_of)) + 2, hashed=hashed), codes  # type: ignore[arg-type]


def _lists(column: pl.Series, name: str, present: npt.NDArray[np.bool_], settings: FieldSettings) -> tuple[Field, npt.NDArray[np.int32]]:
    """A field of several values an item: at most F.MOST of a cell are read."""
    table = pl.DataFrame({"row": np.arange(len(column)), "value": column.list.head(F.MOST)}).explode("value", empty_as_null=True)
    table = table.with_columns(place=pl.int_range(pl.len()).over("row")).drop_nulls("value")
    values = table.filter(pl.Series(present[table["row"].to_numpy()]))["value"].unique().sort()
    hashed = bool(settings.hash_space) and len(values) > settings.hash_space
    coded = F.code_category(table["value"], values.to_list(), settings.hash_space if hashed else 0)
    width = int(table["place"].max() or 0) + 1  # type: ignore[arg-type]
    codes = np.zeros((len(column), width), dtype=np.int32)
    codes[table["row"].to_numpy(), table["place"].to_numpy()] = coded
    return Field(name=name, whose="item", kind="categories", codes=(settings.hash_space if hashed else len(values)) + 2, hashed=hashed), codes


def _context_fields(dataset: Dataset, train: Rows, settings: FieldSettings) -> list[Field]:
    for name in settings.context or ():
        if name not in train.context:
            raise unknown("column of context", name, train.context)
    fields = []
    for name, column in train.context.items():
        if settings.context is not None and name not in settings.context:
            continue
        if column.dtype.is_numeric():
            edges = F.quantile_edges(_numbers(column), settings.buckets)
            fields.append(Field(name=name, whose="event", kind="number", codes=len(edges) + 3, edges=edges))
        elif column.dtype in (pl.String, pl.Boolean):
            values = column.cast(pl.String).drop_nulls().unique().sort().to_list()
            fields.append(Field(name=name, whose="event", kind="category", codes=len(values) + 2, values=values))
    return fields
