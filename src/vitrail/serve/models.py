"""The versions of a model that one service holds: which one answers, whom another answers instead, which one only listens.

The plan (names and shares) is one value that is replaced as a whole: a request sees the old plan or the new one. It is kept in the
store, so that all processes of a service follow the same one and a restart goes on with it; models themselves are read from a folder
that whoever starts the service names, by the names of its entries.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from vitrail.config import Settings
from vitrail.errors import DataError, SettingError, unknown
from vitrail.serve.answerer import Answerer, Asker, Searches
from vitrail.serve.newcomers import Content, taking_in
from vitrail.serve.search import ContentSearch

Action = Literal["load", "switch", "share", "shadow", "rollback", "unload"]
Load = Callable[[Path], Answerer]


class Plan(Settings):
    """Who answers whom."""

    current: str
    """Answers whoever no share takes."""
    previous: str | None = None
    """Answered before; where a roll-back goes."""
    shares: dict[str, Annotated[float, Field(gt=0.0, lt=1.0)]] = {}
    """Version -> share of users it answers."""
    shadow: str | None = None
    """Is asked too, after the answer is given; nobody sees what it says."""
    loads: dict[str, int] = {}
    """Version -> how often it was loaded: a process that has loaded it less often loads it again."""

    def names(self) -> set[str]:
        """Every version it needs."""
        return {self.current, *self.shares, *(name for name in (self.previous, self.shadow) if name), *self.loads}


@dataclass(frozen=True)
class Version:
    """A loaded model under its name."""

    name: str
    asker: Asker
    popular: tuple[str, ...] = ()
    """the popular items, best first: the answer where time runs out"""
    loaded: int = 0
    searcher: Searches | None = None
    met: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    """new items that it took in, by the content it took them in with"""
    loaded_from: Answerer | None = None
    """the model as it was loaded, where new items were taken in"""

    @property
    def first(self) -> Answerer:
        """The model as it was loaded."""
        return self.loaded_from or self.asker.answerer


@dataclass(frozen=True)
class Change:
    """What /models is asked to do."""

    action: Action
    name: str | None = None
    share: float | None = None


@dataclass
class Models:
    """The versions of one process."""

    first: Version
    folder: Path | None = None
    load: Load | None = None
    state: tuple[Plan, dict[str, Version]] = field(init=False)
    """replaced as a whole"""

    def __post_init__(self) -> None:
        self.state = Plan(current=self.first.name), {self.first.name: self.first}
        self._loading = threading.RLock()
        self._overlay: tuple[Mapping[str, Mapping[str, Any]], frozenset[str], Content] = ({}, frozenset(), {})

    def pick(self, who: str) -> Version:
        """The version that answers `who` (a user, or a request without one): the same as long as the shares are the same."""
        plan, versions = self.state
        if plan.shares:
            place = int.from_bytes(hashlib.blake2b(who.encode(), digest_size=8, person=b"variant").digest(), "little") / 2**64
            for name, share in sorted(plan.shares.items()):
                if place < share and name in versions:
                    return versions[name]
                place -= share
        return versions[plan.current]

    def version(self, name: str) -> Version:
        """A loaded version. Raises SettingError."""
        versions = self.state[1]
        if name not in versions:
            raise unknown("loaded version", name, versions)
        return versions[name]

    @property
    def plan(self) -> Plan:
        """Who answers whom."""
        return self.state[0]

    @property
    def current(self) -> Version:
        """Who answers whoever no share takes."""
        plan, versions = self.state
        return versions[plan.current]

    @property
    def shadow(self) -> Version | None:
        """Who only listens."""
        plan, versions = self.state
        return versions.get(plan.shadow) if plan.shadow else None

    def offered(self) -> dict[str, Path]:
        """Name -> folder of the models that could be loaded."""
        if self.folder is None:
            return {}
        try:
            entries = list(self.folder.iterdir())
        except OSError:
            return {}
        marks = ("manifest.json", "artifact/manifest.json", "funnel.json")
        return {entry.name: entry for entry in entries if any((entry / inner).is_file() for inner in marks)}

    def change(self, change: Change) -> Plan:
        """The plan after `change`, its models loaded; the old plan holds until `follow`. Raises DataError, SettingError, ArtifactError."""
        (plan, versions), name = self.state, change.name
        if change.action == "rollback":
            if plan.previous is None:
                raise DataError("There is no version to roll back to: none was switched.")
            back = plan.previous
            return plan.but({"current": back, "previous": plan.current, "shares": _without(plan.shares, back), "shadow": _other(plan.shadow, back)})
        if name is None:
            if change.action == "shadow":
                return plan.but({"shadow": None})
            raise SettingError(f'The action "{change.action}" wants the name of a version.')
        if change.action == "unload":
            if name in {plan.current, plan.shadow, *plan.shares}:
                raise SettingError(f'The version "{name}" is in use: switch to another, or take away its share, first.')
            if name not in versions:
                raise unknown("loaded version", name, versions)
            return plan.but({"previous": _other(plan.previous, name), "loads": _without(plan.loads, name)})
        if change.action == "load" or name not in versions:
            plan = self._loaded(plan, name)
        if change.action == "switch" and name != plan.current:
            return plan.but({"current": name, "previous": plan.current, "shares": _without(plan.shares, name), "shadow": _other(plan.shadow, name)})
        if change.action == "shadow":
            return plan.but({"shadow": name}) if name != plan.current else plan
        if change.action == "share":
            return self._shared(plan, name, change.share)
        return plan

    def _shared(self, plan: Plan, name: str, share: float | None) -> Plan:
        if share is None:
            raise SettingError('The action "share" wants a share from 0 (none) to below 1, such as 0.1.')
        if name == plan.current:
            raise SettingError(f'The version "{name}" answers whoever no share takes: give a share to another one.')
        shares = _without(plan.shares, name) | ({name: share} if share > 0 else {})
        if sum(shares.values()) >= 1:
            raise SettingError(f"The shares add up to {sum(shares.values()):g}: leave something for the current version, below 1 in all.")
        return plan.but({"shares": shares})

    def _loaded(self, plan: Plan, name: str) -> Plan:
        count = plan.loads.get(name, 0) + 1
        with self._loading:
            opened = self._open(name, count)
            self.state = plan, self.state[1] | {name: opened}
        return plan.but({"loads": plan.loads | {name: count}})

    def _open(self, name: str, count: int) -> Version:
        offered = self.offered()
        if name not in offered or self.load is None:
            raise unknown("model", name, offered) if offered else DataError(f'There is no model "{name}": the service knows no folder of models (--models).')
        with self._loading:
            return self._told(version_of(name, self.load(offered[name]), count))

    def _told(self, version: Version) -> Version:
        """The version as it answers now: with new items taken in, changes and withdrawals handed on."""
        changes, withdrawn, content = self._overlay
        grown = taking_in(version, content)
        grown.asker.overlay(changes, withdrawn)
        return grown

    def follow(self, plan: Plan) -> None:
        """Go by `plan`, loading what it needs and letting go of the rest. Raises as `change`, and then goes on as before."""
        with self._loading:
            wanted = dict(self.state[1])
            for name in plan.names():
                count = plan.loads.get(name, 0)
                if name not in wanted or wanted[name].loaded < count:
                    wanted[name] = self._open(name, count)
            self.state = plan, {name: version for name, version in wanted.items() if name in plan.names()}

    def overlay(self, changes: Mapping[str, Mapping[str, Any]], withdrawn: frozenset[str], content: Content) -> None:
        """Tell every version, and those to come, what is said of items; `content` of new items, which is taken in by those who answer by it."""
        with self._loading:
            self._overlay = (changes, withdrawn, content)
            plan, versions = self.state
            self.state = plan, {name: self._told(version) for name, version in versions.items()}

    def shown(self) -> dict[str, Any]:
        """What /models answers."""
        plan, versions = self.state
        rest = 1 - sum(plan.shares.values())
        rows = [
            {
                "name": name,
                "system": version.asker.answerer.name,
                "items": len(version.asker.answerer.items),
                "share": rest if name == plan.current else plan.shares.get(name, 0.0),
                "shadow": name == plan.shadow,
            }
            for name, version in sorted(versions.items())
        ]
        return {"current": plan.current, "previous": plan.previous, "versions": rows, "offered": sorted(self.offered())}


def version_of(name: str, answerer: Answerer, loaded: int = 0) -> Version:
    """A version whose popular items are known beforehand."""
    popular = answerer.answer(None, [], min(1000, max(len(answerer.items), 1)), False, None)["items"]
    searcher = answerer if isinstance(answerer, Searches) else ContentSearch(answerer)
    return Version(name, Asker(answerer), tuple(row["item"] for row in popular), loaded, searcher)


def read_plan(text: str) -> Plan:
    """The plan as the store holds it. Raises SettingError."""
    return Plan.of(json.loads(text), where="the store")


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _other(name: str | None, taken: str) -> str | None:
    return None if name == taken else name
