"""The bench: one data set, one split, one protocol, on which systems are tuned and compared; its clock, its lock, its memory meter."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from vitrail.data.dataset import Dataset
from vitrail.data.splits import SplitSettings
from vitrail.errors import DataError, ResourceError, SettingError
from vitrail.evaluation.metrics import DEFAULT_METRICS, METRICS, parse_metric
from vitrail.evaluation.protocol import Protocol
from vitrail.files import read_json, write_json
from vitrail.resources import free_memory
from vitrail.systems import registry
from vitrail.systems.base import Sizes, System, TrainSettings
from vitrail.train.fit import Content, Fitter, cut, pick_device
from vitrail.train.loop import Left, Watch, train

LEAST_USERS = 30
"""Fewer users than that carry no test."""
SAVE_SECONDS = 10.0
"""Least time between two notes of how long the work under way has taken."""


TIMING = 30.0
"""Seconds of training that are enough to know the speed."""


@dataclass(frozen=True)
class Timing:
    """What a fit takes, in seconds."""

    start: float
    """to build it"""
    epoch: float
    """one epoch, or the whole fit where there are none"""
    validation: float
    test: float
    """estimated from the validation"""


@dataclass
class Tried:
    """One fit, measured on validation."""

    value: float | None
    epochs: int
    """the epoch that was kept"""
    seconds: float
    """wall time, validation included"""
    cut: bool = False
    """stopped by a deadline"""
    curve: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Bench:
    """A data set cut once; `selection` is how validation is measured, `protocol` how the test is."""

    dataset: Dataset
    split: Any
    """Split; of rankers, ImpressionSplit"""
    settings: SplitSettings
    protocol: Protocol
    metric: str
    device: str
    quiet: bool
    asked: str | None = None
    """the protocol as it was asked for; none: that of the split"""
    unit: ClassVar[str] = "queries"
    """what the test part is made of"""
    default_metric: ClassVar[str] = "ndcg@10"

    @classmethod
    def open(
        cls,
        data: str | Path | Dataset,
        split: str | SplitSettings | None,
        metric: str | None,
        refit: bool,
        device: str = "auto",
        quiet: bool = False,
        protocol: str | None = None,
    ) -> Bench:
        """Raises VitrailError: the data or split are absent or bad, the metric is unknown or no mean over users."""
        parsed = parse_metric(metric or cls.default_metric)
        if METRICS[parsed.name].kind != "accuracy":
            raise SettingError(f'The metric "{metric}" is no measure of right answers, so systems cannot be chosen by it: use e.g. ndcg@10 or recall@20.')
        dataset = data if isinstance(data, Dataset) else Dataset(data)
        made, settings, chosen = cut(dataset, split, refit, protocol)
        return cls(dataset, made, settings, chosen, str(parsed), str(pick_device(device)), quiet, protocol)

    @property
    def fingerprint(self) -> str:
        """Of data, split and protocol."""
        return self.protocol.fingerprint(self.dataset.fingerprint, self.split.settings)

    @property
    def selection(self) -> Protocol:
        """The protocol without the refit: tuning looks at validation, and nothing is fitted twice for it."""
        return self.protocol.model_copy(update={"refit": False, "fit_on": "train"})

    @property
    def metrics(self) -> list[str] | None:
        """What is measured on test; none: all there is."""
        return list(dict.fromkeys([*DEFAULT_METRICS, self.metric]))

    @property
    def events(self) -> int:
        """Events that a fit holds in memory."""
        return len(self.split.train)

    def test_users(self) -> npt.NDArray[np.int64]:
        """Codes of the users that the test part asks."""
        return np.unique(self.split.test.histories.users.numpy())

    def sizes(self, cls: type[System], config: Any) -> Sizes:
        """U, N and the widths of the content vectors a system with these settings reads. Raises DataError where there are none."""
        return Content.of(cls, config, self.dataset).sizes(self.dataset)

    def vectors(self, configs: Mapping[str, Any]) -> dict[str, Any]:
        """For the record of a request: the content vectors that systems with these settings read, {} where none does."""
        found = [Content.of(registry.find(system), config, self.dataset).identities for system, config in configs.items()]
        read = {name: identity for one in found for name, identity in one.items()}
        return {"vectors": read} if read else {}

    def config(self, system: str, settings: Mapping[str, Any]) -> Any:
        """The typed settings of `system`, selecting by the metric of the bench. Raises SettingError."""
        cls = registry.find(system).Config
        own = {"metric": self.metric, **settings} if issubclass(cls, TrainSettings) else settings
        return cls.of(own, where=f'settings of system "{system}"')

    def fitter(self, seed: int, folder: Path | None = None, watch: Watch | None = None, left: Left | None = None) -> Fitter:
        """What fits on the train part and measures on the validation part."""
        return Fitter(self.dataset, self.split, self.selection, seed, pick_device(self.device), True, folder, folder is not None, watch=watch, left=left)

    def attempt(
        self, cls: type[System], config: Any, seed: int, folder: Path | None = None, watch: Watch | None = None, left: Left | None = None
    ) -> Tried:
        """Fit once and measure on validation; `folder` keeps the checkpoints of a trained system while it runs, `left` tells the seconds it has."""
        started = time.perf_counter()
        fitter = self.fitter(seed, folder, watch, left)
        model, _, progress = fitter.fit(cls, config, self.sizes(cls, config))
        value = progress.best_value
        if value is None and self.split.valid is not None:
            measured = (fitter.validation or {}).get("metrics", {})
            value = measured[self.metric] if self.metric in measured else fitter.measure(model, self.split.valid, [self.metric]).metrics[self.metric]
        epochs = progress.best_epoch if progress.best_epoch > 0 else progress.epoch
        return Tried(value, epochs, time.perf_counter() - started, progress.cut, progress.curve)

    def timing(self, cls: type[System], config: Any) -> Timing:
        """Fit one epoch, or as much of it as tells the speed (or the whole closed form), and validate once."""
        fitter, clock = self.fitter(0), time.perf_counter
        began = clock()
        model, _ = fitter.build(cls, config, self.sizes(cls, config), self.split.train)
        start, began = clock() - began, clock()
        if cls.trained:
            epoch = epoch_seconds(model, self.split.train, config, torch.device(self.device))
        else:
            model.learn(self.split.train)
            epoch = clock() - began
        part, validation = self.split.valid, 0.0
        if part is not None:
            began = clock()
            fitter.measure(model, part, [self.metric])
            validation = clock() - began
        return Timing(start, epoch, validation, 0.1 + 3 * validation * len(self.split.test or ()) / max(len(part or ()), 1))

    def check_memory(self, system: str, config: Any) -> int:
        """Bytes a fit will need. Raises ResourceError where they are not free."""
        cls = registry.find(system)
        need, free = cls.memory(config, self.sizes(cls, config), self.events), free_memory()
        if need > free:
            raise ResourceError(
                f'System "{system}" needs about {need / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free: '
                "leave it out, or use a smaller catalogue (k-core at ingest); nothing was run."
            )
        return need


def epoch_seconds(model: System, log: Any, config: Any, device: torch.device) -> float:
    """Seconds of an epoch, from one or, where it is long, from the first steps of it."""
    began = time.perf_counter()
    done = train(model, log, config.but({"epochs": 1}), seed=0, validate=None, device=device, left=lambda: TIMING - (time.perf_counter() - began))
    progress = done.progress
    return progress.seconds * (model.batcher(log, 0, 0, 1).steps() / progress.step if progress.cut else 1.0)


def check_needs(configs: Mapping[str, Any], dataset: Dataset) -> None:
    """`configs`: system -> its settings. Raises DataError naming every system that asks for what the data lack."""
    refusals = []
    for system, config in configs.items():
        try:
            registry.find(system).wants(config).check(dataset.info, system, dataset.vector_names())
        except DataError as error:
            refusals.append((system, str(error).rstrip(".")))
    if len(refusals) == 1:
        raise DataError(f"{refusals[0][1]}; nothing was run.")
    if refusals:
        named = " and ".join(f'"{system}"' for system, _ in refusals)
        raise DataError(f"{named} need what the data lack, and nothing was run: {'; '.join(sentence for _, sentence in refusals)}.")


class Clock:
    """Wall time spent on a folder, over all sittings."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.before = float(read_json(file)["seconds"]) if file.exists() else 0.0
        self.started = self.saved = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self.before + time.monotonic() - self.started

    def save(self) -> None:
        """Remember, so that the next sitting goes on counting."""
        write_json(self.file, {"seconds": round(self.spent, 3)})
        self.saved = time.monotonic()

    def tick(self) -> float:
        """Seconds so far, written down now and then, so that a kill loses little."""
        if time.monotonic() > self.saved + SAVE_SECONDS:
            self.save()
        return self.spent


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """One process at a time works in `folder`. Raises ResourceError where another does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ResourceError(f"Another process is at work in {folder}: wait for it, or choose another place with --out.") from None
        yield


def remember(file: Path, request: Mapping[str, Any], what: str) -> None:
    """Write down what was asked, or check that the same is asked again. Raises SettingError naming the first difference."""
    if not file.exists():
        others = [p.name for p in file.parent.iterdir() if p.name != ".lock"] if file.parent.exists() else []
        if others:
            raise DataError(f"{file.parent} holds other files ({others[0]}): choose another place with --out.")
        write_json(file, request)
        return
    before = read_json(file)
    for key, value in request.items():
        if before.get(key) != value:
            raise SettingError(
                f"{file.parent} holds a {what} with another {key.replace('_', ' ')} ({_short(before.get(key))}, now {_short(value)}): "
                "give the same command to go on with it, or choose another place with --out."
            )


def remember_budget(file: Path, budget: float | None, what: str) -> None:
    """Write down the hours there are. Raises SettingError where they are fewer than before: what is done cannot be undone."""
    if file.exists():
        before = read_json(file)["hours"]
        if budget != before and (before is None or (budget is not None and budget < before)):
            had = "no budget" if before is None else f"a budget of {before:g} hours"
            raise SettingError(f"{file.parent} holds a {what} with {had}: --budget can be raised or left out later, not lowered.")
    write_json(file, {"hours": budget})


def _short(value: Any) -> str:
    text = "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


class PeakMemory:
    """The most memory this process held since `start`."""

    def __init__(self) -> None:
        self.known = False

    def start(self) -> None:
        """Give back what is free, then forget the peak so far."""
        gc.collect()
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: forgets the peak of this process
            self.known = True

    def bytes(self) -> int | None:
        """None where the system does not tell."""
        if not self.known:
            return None
        with suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        return None


def duration(seconds: float) -> str:
    """`12 s`, `4 min`, `2 h 05 min`."""
    if seconds < 0.05:
        return "under 0.1 s"
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
