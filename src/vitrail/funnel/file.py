"""The funnel file: one typed YAML that names the stages, what is fitted or already finished, and what each may cost.

    funnel: shop
    data: data/shop
    split: temporal:rolling=true
    retrieve:
      - {system: ease, settings: {l2: 500}, k: 100}
      - {run: runs/sasrec, k: 100, weight: 2}
      - {system: popular, settings: {half_life: 14}, k: 30, weight: 0.2}
    fuse: {method: rrf, k: 150}
    filter: {condition: stock > 0}
    rank: {system: din, budget_ms: 20}
    arrange: {system: mmr, settings: {weight: 0.9}, rules: {caps: {category: 3}}}
    explore: {policy: epsilon-greedy, settings: {epsilon: 0.05}}

Paths are relative to the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Settings, read_yaml
from vitrail.errors import SettingError
from vitrail.funnel.fuse import Fusion
from vitrail.funnel.rules import Rules
from vitrail.recipes_data import Data


class _Fitted(Settings):
    run: str | None = None
    """A finished run or saved model."""
    system: str | None = None
    """A system to be fitted with the funnel."""
    settings: dict[str, Any] = {}
    """Its settings."""

    @model_validator(mode="after")
    def _one_of_two(self) -> _Fitted:
        if (self.run is None) == (self.system is None):
            raise ValueError("name either a run (a finished one) or a system (to be fitted), one of the two")
        if self.run is not None and self.settings:
            raise ValueError("a finished run has its settings; leave settings out, or name a system")
        return self


class Retrieve(_Fitted):
    """A source of candidates."""

    name: str | None = None
    """How it is called in answers; none: its system, or the name of the run's folder."""
    k: PositiveInt = 100
    """Candidates it gives."""
    weight: NonNegativeFloat = 1.0
    """What it counts when sources are fused."""
    index: str | None = None
    """An index of its item vectors; none: exact over the whole catalogue."""
    above: float | None = None
    """Items that score no more than this are no candidates, e.g. 0 where a system counts evidence."""
    date: str | None = None
    """Of the system fresh: the attribute of items that tells how new they are; none: their first event."""

    @property
    def label(self) -> str:
        """Its name."""
        return self.name or self.system or Path(str(self.run)).name

    @model_validator(mode="after")
    def _dates_are_fresh(self) -> Retrieve:
        if self.date is not None and self.system != "fresh":
            raise ValueError("date belongs to the system fresh; leave it out")
        return self


class Filter(Settings):
    """What may be shown at all."""

    condition: str | None = None
    """A condition over item attributes, such as `stock > 0`."""
    seen: bool = True
    """Items of a person's history are not shown again, unless the request asks for them."""


class Rank(_Fitted):
    """The system that orders the candidates: a ranker, trained on what retrieval finds; or any other system, whose scores are taken."""

    budget_ms: PositiveFloat | None = None
    """Milliseconds it may take in a request; then the answer is the retrieval order and says so. None: as long as it takes."""
    mix: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Weight of the retrieval order in the final one, both by reciprocal ranks; none: chosen on the ranker's validation requests,
    rolling and static each for itself; 0 for other systems."""
    horizon: PositiveInt | None = 10
    """A candidate is a success in training where it is among so many next events of the person; none: among all until the test."""
    negatives: PositiveInt = 20
    """Candidates without success that are kept for training of each request, drawn at random."""
    requests: PositiveInt = 20_000
    """Requests it is trained on at most, the newest ones."""


class Arrange(Settings):
    """How a page is laid out."""

    system: str | None = None
    """A slate such as mmr or dpp; none: by score."""
    settings: dict[str, Any] = {}
    """Its settings."""
    vectors: str | None = None
    """Content vectors by which items are alike; none: their categories, or else who has them."""
    rules: Rules = Rules()
    """Business rules of the page."""


class Explore(Settings):
    """How a page is left to chance."""

    policy: str
    """epsilon-greedy or thompson."""
    settings: dict[str, Any] = {}
    """Its settings."""
    depth: PositiveInt = 50
    """Candidates it draws from, the best ones."""


class FunnelFile(Settings):
    """A funnel file."""

    funnel: str
    """Its name."""
    about: str = ""
    data: str | Data | None = None
    """The data-set folder, or a name and how it is ingested from VITRAIL_DATA; none: that of the runs."""
    split: str | None = None
    """How the data are cut; none: the default of the data."""
    seed: NonNegativeInt = 0
    """Seed of everything."""
    retrieve: Annotated[list[Retrieve], Field(min_length=1)]
    """The sources."""
    fuse: Fusion = Fusion()
    filter: Filter = Filter()
    rank: Rank | None = None
    arrange: Arrange | None = None
    explore: Explore | None = None
    budget_ms: PositiveFloat | None = None
    """Milliseconds a whole answer should take: what the stages before leave of it is the ranker's budget."""

    @field_validator("data", mode="before")
    @classmethod
    def _folder_or_recipe(cls, value: Any) -> Any:
        return Data.of(value, where="data") if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _names_differ(self) -> FunnelFile:
        labels = [source.label for source in self.retrieve]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f'two sources are called "{twice}"; give one of them another name')
        if any("/" in label or label in ("", ".", "..") for label in labels):
            raise ValueError("the name of a source is also that of its folder; use no slash in it")
        return self

    def check(self) -> None:
        """Raises SettingError where a system, slate, policy, setting or split is unknown or out of bounds."""
        from vitrail.data.splits import parse_split
        from vitrail.systems import registry
        from vitrail.systems.policy import find_policy
        from vitrail.systems.slate import find_slate

        where = f"the funnel {self.funnel}"
        for stage in (*self.retrieve, *([self.rank] if self.rank else ())):
            if stage.system is not None:
                registry.find(stage.system).Config.of(stage.settings, where=f'settings of "{stage.system}" in {where}')
        if self.arrange is not None and self.arrange.system is not None:
            find_slate(self.arrange.system).Config.of(self.arrange.settings, where=f'settings of "{self.arrange.system}" in {where}')
        if self.explore is not None:
            find_policy(self.explore.policy).Config.of(self.explore.settings, where=f'settings of "{self.explore.policy}" in {where}')
        if self.split is not None:
            parse_split(self.split)


def read_funnel(path: str | Path) -> FunnelFile:
    """The funnel file at `path`, its paths made absolute. Raises SettingError: absent, malformed, an unknown key or name."""
    values = read_yaml(path)
    if "funnel" not in values:
        raise SettingError(f'{path} is no funnel file: it has no key "funnel", its name.')
    file = FunnelFile.of(values, where=str(path))
    file.check()
    home = Path(path).resolve().parent

    def absolute(place: str | None) -> str | None:
        return None if place is None else str((home / place).resolve())

    retrieve = [source.model_copy(update={"run": absolute(source.run), "index": absolute(source.index)}) for source in file.retrieve]
    changes: dict[str, Any] = {"retrieve": retrieve}
    if file.rank is not None:
        changes["rank"] = file.rank.model_copy(update={"run": absolute(file.rank.run)})
    if isinstance(file.data, str):
        changes["data"] = absolute(file.data)
    return file.model_copy(update=changes)
