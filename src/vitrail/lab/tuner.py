"""The trials of one system on the validation part, guided by Optuna, each written down when it ends, so that a killed job goes on where it stopped.

Trial 0 is the configuration as given. What trial n tries depends on the seed and on the trials before it alone, so a job that was
interrupted ends like one that was not.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from vitrail.config import Settings
from vitrail.errors import ArtifactError, DataError, ResourceError, VitrailError
from vitrail.files import fingerprint, read_json, write_json, write_text
from vitrail.lab.bench import Bench, Clock
from vitrail.lab.plan import startup
from vitrail.lab.space import Choices, Range, Space, as_json, distributions, size
from vitrail.systems import registry
from vitrail.train.loop import Left, Watch

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

State = Literal["done", "cut", "pruned", "failed"]
ENDED = ("done", "cut")
"""States of trials that have a value to choose by."""
JOURNAL = "study.journal"


class Attempt(Settings):
    """A trial that ended."""

    number: int
    state: State
    """cut: stopped by the deadline with the best weights so far; pruned: worse than the median of the others at the same epoch; failed: it could
    not be fitted"""
    value: float | None
    """of the metric on validation"""
    settings: dict[str, Any]
    """what was varied"""
    epochs: int = 0
    """the one that was kept"""
    ran: int = 0
    """epochs until it stopped"""
    seconds: float = 0.0
    note: str = ""


class Tuned(Settings):
    """What tuning found."""

    system: str
    metric: str
    space: dict[str, Any]
    trials: list[Attempt]
    best: Attempt | None
    settings: dict[str, Any]
    """every setting that differs from the system's defaults, the best found and those fixed by hand; for `fit --config`"""


class _Pruned(Exception):
    """Worse than the median at this epoch."""


class Tuner:
    """The trials of one system in one folder; `step` makes the next one."""

    def __init__(self, system: str, bench: Bench, folder: Path, *, fixed: Mapping[str, Any], space: Space, trials: int, seed: int) -> None:
        self.system, self.bench, self.folder, self.fixed, self.space, self.seed = system, bench, folder, dict(fixed), space, seed
        self.cls = registry.find(system)
        self.trials = trials if space else 0
        self.settings_tried = size(space)
        self.study = _study(folder / JOURNAL, self.trials, getattr(bench.config(system, fixed), "epochs", 1)) if self.trials else None
        self.attempts = _ended(self.study) if self.study else []

    @property
    def finished(self) -> bool:
        """Whether no trial is left to make."""
        return len(self.attempts) >= self.trials or len({fingerprint(a.settings) for a in self.attempts}) >= self.settings_tried

    def best(self) -> Attempt | None:
        """The best trial, one that was cut among them; the earliest of equals. None where no trial came to an end."""
        done = [a for a in self.attempts if a.state in ENDED and a.value is not None]
        return max(done, key=lambda a: (a.value, -a.number), default=None)

    def chosen(self) -> dict[str, Any]:
        """The settings to go on with: what is fixed, and the best of the trials."""
        best = self.best()
        return {**self.fixed, **(best.settings if best else {})}

    def step(self, left: Left | None = None) -> Attempt:
        """Make the next trial, in the seconds that `left` tells. Raises VitrailError where no trial at all can be fitted."""
        assert self.study is not None
        number = len(self.attempts)
        attempt = self._default(left) if number == 0 else self._suggested(number, left)
        self.attempts.append(attempt)
        self.write()
        return attempt

    def _default(self, left: Left | None) -> Attempt:
        from optuna.trial import TrialState, create_trial

        config = self.bench.config(self.system, self.fixed)
        settings = {name: getattr(config, name) for name in self.space}
        attempt, seen = self._try(0, settings, lambda epoch, value: None, left)
        known = {name: dimension for name, dimension in self.space.items() if settings[name] in dimension}
        record = create_trial(
            state=TrialState.COMPLETE if attempt.state in ENDED else TrialState.PRUNED,
            value=attempt.value,
            params={name: settings[name] for name in known},
            distributions=distributions(known),
            intermediate_values=seen,
            user_attrs={"attempt": attempt.model_dump(mode="json")},
        )
        assert self.study is not None
        self.study.add_trial(record)
        return attempt

    def _suggested(self, number: int, left: Left | None) -> Attempt:
        from optuna.trial import TrialState

        assert self.study is not None
        self.study.sampler = _sampler(self.seed, number, self.trials)
        trial = self.study.ask(distributions(self.space))
        settings = {name: _tidy(self.space[name], value) for name, value in trial.params.items()}
        same = next((a for a in self.attempts if a.settings == settings), None)
        if same is not None:  # the same settings and seed give the same number
            attempt = same.model_copy(update={"number": number, "seconds": 0.0, "note": f"as trial {same.number}"})
        else:
            attempt, _ = self._try(number, settings, _reporter(trial), left)
        trial.set_user_attr("attempt", attempt.model_dump(mode="json"))
        if attempt.state in ENDED:
            self.study.tell(trial, attempt.value)
        else:
            self.study.tell(trial, state=TrialState.PRUNED)
        return attempt

    def _try(self, number: int, settings: dict[str, Any], watch: Watch, left: Left | None) -> tuple[Attempt, dict[int, float]]:
        """Fit and measure; the checkpoints of a trial live in a folder of its own until it ends."""
        seen: dict[int, float] = {}
        home = self._home(settings) if self.cls.trained else None
        clock = Clock(self.folder / "trial" / "seconds.json")

        def told(epoch: int, value: float) -> None:
            seen[epoch] = value
            if home is not None:
                clock.tick()
            watch(epoch, value)

        made: dict[str, Any] = {"number": number, "settings": settings}
        try:
            config = self.bench.config(self.system, {**self.fixed, **settings})
            tried = self.bench.attempt(self.cls, config, self.seed, home, told, left)
            state: State = "cut" if tried.cut else "done"
            attempt = Attempt(**made, state=state, value=tried.value, epochs=tried.epochs, ran=max(seen, default=1), seconds=round(clock.spent, 3))
        except _Pruned:
            attempt = Attempt(**made, state="pruned", value=max(seen.values()), epochs=max(seen), ran=max(seen), seconds=round(clock.spent, 3))
        except (ResourceError, DataError, ArtifactError):
            raise
        except VitrailError as error:
            if number + 1 == self.trials and all(a.state == "failed" for a in self.attempts):
                raise
            ran = max(seen, default=0)
            attempt = Attempt(**made, state="failed", value=None, epochs=ran, ran=ran, seconds=round(clock.spent, 3), note=str(error))
        if home is not None:
            shutil.rmtree(home, ignore_errors=True)
        return attempt, seen

    def _home(self, settings: dict[str, Any]) -> Path:
        """The folder of the trial under way; what another trial left there is removed."""
        home = self.folder / "trial"
        mark = home / "settings.json"
        asked = {"settings": settings, "fixed": self.fixed}
        if home.exists() and (not mark.exists() or fingerprint(read_json(mark)) != fingerprint(asked)):
            shutil.rmtree(home)
        home.mkdir(parents=True, exist_ok=True)
        write_json(mark, asked)
        return home

    def result(self) -> Tuned:
        """What was found."""
        config = self.bench.config(self.system, self.chosen())
        changed = config.model_dump(mode="json", exclude_defaults=True)
        return Tuned(system=self.system, metric=self.bench.metric, space=as_json(self.space), trials=self.attempts, best=self.best(), settings=changed)

    def write(self) -> Tuned:
        """`trials.json` for people and programs, `best.yaml` for `fit --config`."""
        found = self.result()
        write_json(self.folder / "trials.json", found.model_dump(mode="json"))
        write_text(self.folder / "best.yaml", yaml.safe_dump(found.settings, sort_keys=False) if found.settings else "{}\n")
        return found


def _reporter(trial: Trial) -> Watch:
    def watch(epoch: int, value: float) -> None:
        trial.report(value, epoch)
        if trial.should_prune():
            raise _Pruned

    return watch


def _tidy(dimension: Range | Choices, value: Any) -> Any:
    return dimension.tidy(value) if isinstance(dimension, Range) else value


def need_optuna() -> None:
    try:
        import optuna
    except ImportError:
        raise ResourceError("Tuning needs Optuna, which is not installed: pip install 'vitrail[tune]', or leave tuning out with --trials 0.") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _study(file: Path, trials: int, epochs: int) -> Study:
    """The study in a journal of JSON lines. A line that a kill cut off is dropped, a trial that a kill ended does not count.

    Nothing is pruned in the first tenth of the epochs, where slow learners look bad.
    """
    need_optuna()
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and (content := file.read_bytes()) and not content.endswith(b"\n"):
        write_text(file, content[: content.rfind(b"\n") + 1].decode())
    for leftover in file.parent.glob(f"{file.name}.lock*"):  # `hold` has seen to it that nobody else is at work
        leftover.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(file))),
                study_name="tune",
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=startup(trials), n_warmup_steps=max(3, min(20, epochs // 10))),
            )
        except (ValueError, KeyError, AssertionError):
            raise ArtifactError(f"{file} is damaged: tune again in another place.") from None
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _ended(study: Study) -> list[Attempt]:
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [Attempt.of(trial.user_attrs["attempt"], where="the journal") for trial in ended]


def _sampler(seed: int, number: int, trials: int) -> Any:
    """TPE after a third of the trials at random; its draws depend on the seed and the number of the trial."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=(seed * 1_000_003 + number * 7919 + 17) % 2**32, n_startup_trials=min(10, max(3, trials // 3)))
