"""The skeleton Hosted: another system, its host, trained with something beside. What it adds is written once for every host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import model_validator
from torch import Tensor, nn

from vitrail.data.batchers import Batcher
from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.errors import SettingError
from vitrail.systems.base import Can, Given, Sizes, System, TrainSettings


class HostSettings(TrainSettings):
    """A host by name, with settings of its own. Settings of training that are not told are those of the host."""

    published: ClassVar[dict[str, dict[str, Any]]] = {}
    """Host -> settings in which the paper departs from the host's own."""
    host: str = "lightgcn"
    """Name of the system that is trained."""
    host_settings: dict[str, Any] = {}
    """Settings of that system, e.g. {layers: 2}."""

    @model_validator(mode="before")
    @classmethod
    def _trained_as_the_host_is(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        name = values.get("host", cls.model_fields["host"].default)
        config = cls.settled(find_host(name), values.get("host_settings", {}), {})
        return {field: getattr(config, field) for field in TrainSettings.model_fields} | dict(values)

    @classmethod
    def settled(cls, host: type[System], told: Mapping[str, Any], training: Mapping[str, Any]) -> Any:
        """The settings of the host: its own, under those of the paper, under those that are told."""
        if not isinstance(told, Mapping):
            raise SettingError(f'host_settings must be settings of "{host.card.name}" by name, e.g. --set "host_settings={{epochs: 20}}".')
        return host.Config.of({**cls.published.get(host.card.name, {}), **told, **training}, where=f'host_settings of "{host.card.name}"')


def find_host(name: Any) -> type[System]:
    """The class of a host. Raises SettingError where there is none of that name, or it is not one that can be trained with something beside."""
    from vitrail.systems.registry import find

    host = find(str(name))
    if not host.trained or host.card.stage != "retrieve" or issubclass(host, Hosted) or not issubclass(host.Config, TrainSettings):
        raise SettingError(f'System "{name}" cannot be a host: name one that retrieves and is trained in batches, such as lightgcn or multvae.')
    return host


class Hosted(System):
    """Trains a host and answers as the host does."""

    needs: ClassVar[Needs] = Needs(given=("interactions",))

    class Config(HostSettings):
        """Settings of hosted systems."""

    host: System

    @classmethod
    def hosted(cls, config: Any) -> tuple[type[System], Any]:
        """The class of the host and its settings; those of training are the ones outside."""
        host = find_host(config.host)
        return host, config.settled(host, config.host_settings, {name: getattr(config, name) for name in TrainSettings.model_fields})

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        host, settings = self.hosted(config)
        self.host = host(settings, sizes, given)

    @classmethod
    def wants(cls, config: Any) -> Needs:
        host, settings = cls.hosted(config)
        own, theirs = super().wants(config), host.wants(settings)
        return theirs.but({name: tuple(dict.fromkeys([*getattr(theirs, name), *getattr(own, name)])) for name in ("given", "vectors")})

    @classmethod
    def abilities(cls, config: Any) -> Can:
        host, settings = cls.hosted(config)
        return host.abilities(settings)

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        host, settings = cls.hosted(config)
        return host.memory(settings, sizes, events)

    def batcher(self, log: Log, seed: int, rank: int, world: int) -> Batcher:
        return self.host.batcher(log, seed, rank, world)

    def loss(self, batch: Any) -> Tensor:
        return self.host.loss(batch)

    def on_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        self.host.on_epoch(epoch, rng)

    def after_step(self, parameters: Iterable[nn.Parameter]) -> None:
        self.host.after_step(self.host.parameters())

    def added(self, first: int) -> None:
        self.host.added(first)

    def prepare(self) -> None:
        self.host.prepare()

    def scores(self, histories: Sets) -> Tensor:
        return self.host.scores(histories)

    def answerable(self, histories: Sets) -> Tensor:
        return self.host.answerable(histories)

    def item_vectors(self) -> Tensor | None:
        return self.host.item_vectors()

    def query_vectors(self, histories: Sets) -> Tensor | None:
        return self.host.query_vectors(histories)

    def similarity(self, items: Tensor) -> Tensor:
        return self.host.similarity(items)
