"""The ways to split: parse the name, draw the parts, turn them into queries, and say what leaks.

How events are assigned to parts is in data.splits_labels; how parts become queries is in data.splits_queries.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt, Settings, Share, parse_assignments, read_yaml
from vitrail.data.declare import Duration
from vitrail.errors import DataError, SettingError, unknown
from vitrail.resources import afford_memory, free_memory

if TYPE_CHECKING:
    from vitrail.data.dataset import Dataset
    from vitrail.data.schema import DatasetInfo
    from vitrail.data.split import Split
    from vitrail.data.splits_queries import Asked

__all__ = ["ALIASES", "SPLITS", "SplitSettings", "check_leaks", "default_split", "make_split", "parse_split"]

Ties = Literal["seeded", "file"]
BYTES_AN_EVENT = 48
"""Memory of a split and of what it is made from, measured."""
Held = Annotated[float, Field(ge=0.0, lt=1.0)]


class SplitSettings(Settings):
    """A named way to split, with the options it knows."""

    name: str
    seed: int = 0
    """Draws the hash that breaks ties and chooses at random; the order of rows in a file never matters."""

    @property
    def log_ties(self) -> Ties:
        """How events of one instant are ordered."""
        return getattr(self, "ties", "seeded")

    @property
    def text(self) -> str:
        """The shortest text that `parse_split` reads back as these settings."""
        set_by_hand = self.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        options = ",".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in set_by_hand.items())
        return f"{self.name}:{options}" if options else self.name


class _Shares(SplitSettings):
    valid: Share = 0.1
    """Share held out for validation; 0: no validation part."""
    test: Share = 0.1
    """Share held out for the test."""

    @model_validator(mode="after")
    def _leaves_some(self) -> _Shares:
        if self.valid + self.test >= 1:
            raise ValueError(f"the shares valid={self.valid:g} and test={self.test:g} leave nothing to train on; make them add up to less than 1")
        return self


class Temporal(_Shares):
    """One cut in time for everybody: train < t1 <= valid < t2 <= test."""

    name: Literal["temporal"] = "temporal"
    ties: Ties = "seeded"
    valid_from: datetime | None = None
    """t1 as a date (UTC where no zone is given); instead of the share `valid`."""
    test_from: datetime | None = None
    """t2 as a date (UTC where no zone is given); instead of the share `test`."""
    rolling: bool = False
    """One query per event, with everything before it as history; else one query per user at the cut."""

    @field_validator("valid_from", "test_from", mode="before")
    @classmethod
    def _in_utc(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(f'"{value}" is not a date; write it like 2024-01-31 or 2024-01-31T12:00') from None
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value

    @model_validator(mode="after")
    def _in_order(self) -> Temporal:
        if self.valid_from and self.test_from and self.valid_from >= self.test_from:
            raise ValueError("valid_from must be before test_from")
        return self


class LeaveLastOut(SplitSettings):
    """The last event of each user is the test, the last but one the validation; users with fewer than 3 events train only."""

    name: Literal["leave-last-out"] = "leave-last-out"
    ties: Ties = "seeded"


class Ratio(_Shares):
    """Random shares of each user's n events, each rounded half up, one event at least for training."""

    name: Literal["ratio"] = "ratio"


class ColdItems(_Shares):
    """A random share of the items has all its events in the test, another in validation; only those items are ranked."""

    name: Literal["cold-items"] = "cold-items"


class Predefined(SplitSettings):
    """The parts the files came with."""

    name: Literal["predefined"] = "predefined"
    ties: Ties = "seeded"
    valid: Held = 0.0
    """Share of each user's training events held out at random where the files have no validation part."""


class _Rows(_Shares):
    """Rows of (user, item, what happened) for rankers, cut into parts."""


class Pairs(_Rows):
    """For rankers: each event but a user's first, and with it items drawn at random that the user never had (the pairs of DIN)."""

    name: Literal["pairs"] = "pairs"
    ties: Ties = "seeded"
    cut: Literal["position", "time"] = "position"
    """position: a user's last event is the test, the last but one the validation; time: as `temporal`."""
    negatives: PositiveInt = 1
    """Items drawn for each event."""
    power: NonNegativeFloat = 0.0
    """They are drawn with chance ~ count ** power; 0: uniformly."""


class Rated(_Rows):
    """For rankers: every event was shown, and was a success where `label` holds (liked or not)."""

    name: Literal["rated"] = "rated"
    ties: Ties = "seeded"
    cut: Literal["time", "position", "predefined"] = "time"
    """As of `pairs`; predefined: as the files came."""
    label: str = "value >= 4"
    """What makes an event a success."""


class Shown(_Rows):
    """For rankers: the rows of impressions.parquet."""

    name: Literal["shown"] = "shown"
    cut: Literal["given", "time"] = "given"
    """given: the parts the rows came with, and by time where they came with none."""
    within: Duration | None = None
    """A row is a success where an event of its user with its item comes within so long after it, e.g. 3d; none: where it was clicked."""
    objective: str | None = None
    """Which events of the data set are meant, e.g. event == "buy"; none: all that count."""
    pending: Literal["leave_out", "weigh"] = "leave_out"
    """Of rows whose window is not over when their part ends: left out; or, where they train, kept, with successes weighed by how many come so soon."""
    largest_weight: PositiveFloat = 10.0
    """Of such a success: larger ones are cut."""

    @model_validator(mode="after")
    def _has_a_window(self) -> Shown:
        if self.within is None and (self.objective is not None or self.pending != "leave_out"):
            raise ValueError("objective and pending are about events within a window; say how long with within=3d")
        return self


class Everything(SplitSettings):
    """Everything is for training and nothing is asked: for production."""

    name: Literal["none"] = "none"


class RecBoleRS(SplitSettings):
    """RecBole's default: one random permutation of the rows in file order, then 8:1:1 per user."""

    name: Literal["recbole_rs"] = "recbole_rs"
    seed: int = 2020


class MMRecRandom(SplitSettings):
    """The counts of the MMRec line: n < 10 gives n-2/1/1; else a fifth is held out, the test takes the odd one."""

    name: Literal["mmrec_random"] = "mmrec_random"


class LatticeRandom(SplitSettings):
    """The counts of the LATTICE line: as mmrec_random, but validation takes the odd one."""

    name: Literal["lattice_random"] = "lattice_random"


class NGCFRandom(SplitSettings):
    """The counts of the NGCF line: floor(0.8 n) for training, the rest is the test; `valid` of the former is held out."""

    name: Literal["ngcf_80_20"] = "ngcf_80_20"
    valid: Held = 0.1
    """Share of each user's training events held out for selection; 0: as published, no validation part."""


ROWS = (Pairs, Rated, Shown)
"""Those of rankers."""
SPLITS: dict[str, type[SplitSettings]] = {
    str(kind.model_fields["name"].default): kind
    for kind in (Temporal, LeaveLastOut, Ratio, ColdItems, Predefined, Everything, RecBoleRS, MMRecRandom, LatticeRandom, NGCFRandom, *ROWS)
}
ALIASES = {
    "leave_one_out": "leave-last-out",
    "global_time": "temporal",
    "temporal_rolling": "temporal:rolling=true",
    "mmrec": "mmrec_random",
    "lattice": "lattice_random",
    "ngcf": "ngcf_80_20",
}
"""Other names in use -> ours. In every name `-` and `_` are the same."""


def parse_split(text: str) -> SplitSettings:
    """`"temporal"`, `"temporal:valid=0.1,test=0.2,rolling=true"`, or the path of a YAML file with a `name` and the same keys.

    Raises SettingError: an unknown name or option (with what was meant), a value out of bounds, an unreadable file.
    """
    if text.lower().endswith((".yaml", ".yml")):
        values, where = read_yaml(text), text
        if not isinstance(values.get("name"), str):
            raise SettingError(f'{text} must have a "name": one of {", ".join(sorted(SPLITS))}.')
        name = values.pop("name")
    else:
        name, _, options = text.partition(":")
        values, where = parse_assignments(piece for piece in options.split(",") if piece.strip()), ""
    name, _, implied = ALIASES.get(_plain(name), name).partition(":")
    known = {_plain(ours): ours for ours in SPLITS}
    if _plain(name) not in known:
        raise unknown("split", name.strip(), SPLITS)
    name = known[_plain(name)]
    return SPLITS[name].of(parse_assignments([implied] if implied else []) | values, where=where or f'split "{name}"')


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def default_split(info: DatasetInfo) -> str:
    """`predefined` where the files came split, `temporal` where events have times, `leave-last-out` where only an order, else `ratio`."""
    if info.predefined:
        return "predefined"
    return {"timestamp": "temporal", "position": "leave-last-out", "none": "ratio"}[info.order]


def _refuse(settings: SplitSettings, info: DatasetInfo) -> None:
    """Raises DataError where the data set cannot be split this way, before any row is read; SettingError for a split of rankers."""
    if isinstance(settings, _Rows):
        raise SettingError(f'The split "{settings.name}" makes rows for rankers (`vitrail systems --stage rank`): use e.g. --split {default_split(info)}.')
    if settings.name == "temporal" and (info.order != "timestamp" or info.timed_parts):
        lack = f"has times only in {' and '.join(info.timed_parts)}" if info.timed_parts else "has no timestamps"
        instead = default_split(info)
        raise DataError(
            f'The split "temporal" needs clock times, and data set "{info.name}" {lack}: use --split {instead}, or ingest it again with --timestamp COLUMN.'
        )
    if settings.name == "leave-last-out" and info.order == "none":
        raise DataError(
            f'The split "leave-last-out" needs ordered events, and data set "{info.name}" has no timestamp or position: '
            "ingest it again with --timestamp COLUMN, --position COLUMN or, for per-line files whose items are in time order, --ordered."
        )
    if settings.name == "predefined" and not info.predefined:
        raise DataError(
            f'Data set "{info.name}" did not come split: ingest with --train, --valid and --test files, or use another split, '
            f"e.g. --split {default_split(info)}."
        )


def make_split(dataset: Dataset, settings: SplitSettings, protocol: Asked) -> Split:
    """Cut `dataset` as `settings` say and build the queries as `protocol` says.

    Histories and masks of validation queries come from train, those of test queries from train or train+valid.
    Targets that the mask removes are dropped: an item already known is no fair target where it cannot be answered.
    With `fit_on="train+valid"` the training log is the union and there is no validation part.
    Raises DataError: the data lack what the split needs, or it leaves no training event or no test query.
    """
    import numpy as np

    from vitrail.data.split import Split
    from vitrail.data.splits_labels import TEST, TRAIN, VALID, assign
    from vitrail.data.splits_queries import build_part

    info = dataset.info
    _refuse(settings, info)
    need = BYTES_AN_EVENT * info.counts.get("events", 0)
    afford_memory(need, free_memory(), f'Splitting data set "{info.name}"', "use a smaller catalogue (k-core at ingest)")
    log = dataset.log(ties=settings.log_ties, seed=settings.seed)
    asks = settings.name != "none"
    if asks and (found := int((log.lengths > 0).sum())) < 2:
        raise DataError(
            f'Data set "{info.name}" has events of {found} user{"s" * (found != 1)}, and a split needs at least 2: use --split none to fit on everything.'
        )
    drawn = assign(log, settings, dataset)
    labels = drawn.labels
    if not (labels == TRAIN).any():
        raise DataError(f'The split "{settings.text}" of data set "{info.name}" leaves no event to train on: make the shares smaller or the dates later.')
    no_valid = not (labels == VALID).any()
    fitted = [TRAIN, VALID] if protocol.fit_on == "train+valid" else [TRAIN]
    train = log.where(np.isin(labels, fitted))
    remembered = [TRAIN] if protocol.history_at_test == "train" else [TRAIN, VALID]
    known = train if remembered == fitted or no_valid else log.where(np.isin(labels, remembered))
    rolling = bool(getattr(settings, "rolling", False))
    test = build_part("test", log, labels, protocol, train, drawn.test_items, rolling=rolling, past=known)
    valid = build_part("valid", log, labels, protocol, train, drawn.valid_items, rolling=rolling, past=train) if protocol.fit_on == "train" else None
    if asks and not len(test):
        raise DataError(_no_query(settings, info, test.left_out, events=int((labels == TEST).sum())))
    split = Split(
        name=settings.name,
        settings={**settings.model_dump(mode="json"), **drawn.facts},
        train=train,
        valid=valid if valid is not None and len(valid) else None,
        test=test if asks else None,
        known=known,
        cold_items=train.item_counts == 0,
    )
    return Split(**{**vars(split), "leaks": check_leaks(split)})


def _no_query(settings: SplitSettings, info: DatasetInfo, left_out: dict[str, int], events: int) -> str:
    why = "".join(f"; {count:,} left out: {reason}" for reason, count in left_out.items())
    return (
        f'The split "{settings.text}" of data set "{info.name}" leaves no test query ({events:,} test events{why}): '
        "use a larger share, an earlier date or another split."
    )


def check_leaks(split: Split) -> tuple[str, ...]:
    """Sentences about leakage found in a finished split; an empty tuple is clean.

    Checked on the events themselves, whatever made the split: parts are disjoint, a temporal split is in time order, no target
    is masked or in its own history; and how much of the training data lies after the test, which some splits have by design.
    """
    from vitrail.data.splits_queries import leaks

    return leaks(split)
