"""Tuning: trials on the validation part, guided by Optuna, each written down when it ends, so that a killed job goes on where it stopped.

Trial 0 is the configuration as given. What trial n tries depends on the seed and on the trials before it alone, so a job that was
interrupted ends like one that was not.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from vitrail.config import Settings
from vitrail.data.dataset import Dataset
from vitrail.data.splits import SplitSettings
from vitrail.errors import ArtifactError, DataError, ResourceError, SettingError, VitrailError
from vitrail.files import fingerprint, read_json, write_json, write_text
from vitrail.lab.bench import Bench, Clock, check_needs, duration, hold, remember
from vitrail.lab.space import Choices, Range, Space, as_json, distributions, read_space, size, space_of
from vitrail.systems import registry

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

Say = Callable[[str], None]
State = Literal["done", "pruned", "failed"]
JOURNAL = "study.journal"
SAVE_SECONDS = 10.0
"""Least time between two notes of how long the trial under way has taken."""


class Attempt(Settings):
    """A trial that ended."""

    number: int
    state: State
    """pruned: worse than the median of the others at the same epoch; failed: it could not be fitted"""
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


class _Late(Exception):
    """No time is left."""


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

    def best(self, limit: int | None = None) -> Attempt | None:
        """The best trial (among the first `limit`); the earliest of equals. None where no trial came to an end."""
        done = [a for a in self.attempts[:limit] if a.state == "done" and a.value is not None]
        return max(done, key=lambda a: (a.value, -a.number), default=None)

    def chosen(self, limit: int | None = None) -> dict[str, Any]:
        """The settings to go on with: what is fixed, and the best of the trials."""
        best = self.best(limit)
        return {**self.fixed, **(best.settings if best else {})}

    def step(self, late: Callable[[], bool] | None = None) -> Attempt | None:
        """Make the next trial; none where `late` said that time is up. Raises VitrailError where no trial at all can be fitted."""
        assert self.study is not None
        number = len(self.attempts)
        attempt = self._default(late) if number == 0 else self._suggested(number, late)
        if attempt is not None:
            self.attempts.append(attempt)
            self.write()
        return attempt

    def _default(self, late: Callable[[], bool] | None) -> Attempt | None:
        from optuna.trial import TrialState, create_trial

        def watch(epoch: int, value: float) -> None:
            if late is not None and late():
                raise _Late

        config = self.bench.config(self.system, self.fixed)
        settings = {name: getattr(config, name) for name in self.space}
        try:
            attempt, seen = self._try(0, settings, watch)
        except _Late:
            return None
        known = {name: dimension for name, dimension in self.space.items() if settings[name] in dimension}
        record = create_trial(
            state=TrialState.COMPLETE if attempt.state == "done" else TrialState.PRUNED,
            value=attempt.value,
            params={name: settings[name] for name in known},
            distributions=distributions(known),
            intermediate_values=seen,
            user_attrs={"attempt": attempt.model_dump(mode="json")},
        )
        assert self.study is not None
        self.study.add_trial(record)
        return attempt

    def _suggested(self, number: int, late: Callable[[], bool] | None) -> Attempt | None:
        from optuna.trial import TrialState

        assert self.study is not None
        self.study.sampler = _sampler(self.seed, number, self.trials)
        trial = self.study.ask(distributions(self.space))
        settings = {name: _tidy(self.space[name], value) for name, value in trial.params.items()}
        same = next((a for a in self.attempts if a.settings == settings), None)
        if same is not None:  # the same settings and seed give the same number
            attempt = same.model_copy(update={"number": number, "seconds": 0.0, "note": f"as trial {same.number}"})
        else:
            try:
                attempt, _ = self._try(number, settings, _reporter(trial, late))
            except _Late:
                self.study.tell(trial, state=TrialState.FAIL)
                return None
        trial.set_user_attr("attempt", attempt.model_dump(mode="json"))
        if attempt.state == "done":
            self.study.tell(trial, attempt.value)
        else:
            self.study.tell(trial, state=TrialState.PRUNED)
        return attempt

    def _try(self, number: int, settings: dict[str, Any], watch: Callable[[int, float], None]) -> tuple[Attempt, dict[int, float]]:
        """Fit and measure; the checkpoints of a trial live in a folder of its own until it ends."""
        seen: dict[int, float] = {}
        home = self._home(settings) if self.cls.trained else None
        clock = Clock(self.folder / "trial" / "seconds.json")
        saved = [clock.spent]

        def told(epoch: int, value: float) -> None:
            seen[epoch] = value
            if home is not None and clock.spent > saved[0] + SAVE_SECONDS:
                clock.save()
                saved[0] = clock.spent
            watch(epoch, value)

        made: dict[str, Any] = {"number": number, "settings": settings}
        try:
            config = self.bench.config(self.system, {**self.fixed, **settings})
            tried = self.bench.attempt(self.cls, config, self.seed, home, told)
            attempt = Attempt(**made, state="done", value=tried.value, epochs=tried.epochs, ran=max(seen, default=1), seconds=round(clock.spent, 3))
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

    def result(self, limit: int | None = None) -> Tuned:
        """What was found, in the first `limit` trials."""
        config = self.bench.config(self.system, self.chosen(limit))
        changed = config.model_dump(mode="json", exclude_defaults=True)
        return Tuned(
            system=self.system, metric=self.bench.metric, space=as_json(self.space), trials=self.attempts[:limit], best=self.best(limit), settings=changed
        )

    def write(self, limit: int | None = None) -> Tuned:
        """`trials.json` for people and programs, `best.yaml` for `fit --config`."""
        found = self.result(limit)
        write_json(self.folder / "trials.json", found.model_dump(mode="json"))
        write_text(self.folder / "best.yaml", yaml.safe_dump(found.settings, sort_keys=False) if found.settings else "{}\n")
        return found


def _reporter(trial: Trial, late: Callable[[], bool] | None) -> Callable[[int, float], None]:
    def watch(epoch: int, value: float) -> None:
        trial.report(value, epoch)
        if trial.should_prune():
            raise _Pruned
        if late is not None and late():
            raise _Late

    return watch


def _tidy(dimension: Range | Choices, value: Any) -> Any:
    return dimension.tidy(value) if isinstance(dimension, Range) else value


def _optuna() -> None:
    try:
        import optuna
    except ImportError:
        raise ResourceError("Tuning needs Optuna, which is not installed: pip install 'vitrail[tune]', or leave tuning out with --trials 0.") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _study(file: Path, trials: int, epochs: int) -> Study:
    """The study in a journal of JSON lines. A line that a kill cut off is dropped, a trial that a kill ended does not count.

    Nothing is pruned in the first tenth of the epochs, where slow learners look bad.
    """
    _optuna()
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
                pruner=optuna.pruners.MedianPruner(n_startup_trials=min(4, max(2, trials // 4)), n_warmup_steps=max(3, min(20, epochs // 10))),
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


def tune(
    system: str,
    data: str | Path | Dataset,
    *,
    out: str | Path,
    split: str | SplitSettings | None = None,
    protocol: str | None = None,
    trials: int = 20,
    budget: float | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    space: Mapping[str, Any] | str | Path | None = None,
    metric: str = "ndcg@10",
    device: str = "auto",
    quiet: bool = False,
    say: Say | None = None,
) -> Tuned:
    """Find good settings of `system` on the validation part, in at most `trials` fits and `budget` hours; the test part is not looked at.

    `settings` are fixed by hand and not varied; `space` as in `lab.space.space_of`, or a YAML file. The same call on the same `out` goes on
    where an earlier one stopped. Raises VitrailError: one sentence.
    """
    say = say or (lambda text: None if quiet else print(text, file=sys.stderr))  # noqa: T201
    cls = registry.find(system)
    check_numbers(trials, budget)
    if trials == 0:
        raise SettingError("--trials 0 leaves nothing to tune: give at least 1.")
    asked = read_space(space) if isinstance(space, str | Path) else dict(space or {})
    asked = asked.get(system, asked) if isinstance(asked.get(system), Mapping) else asked
    fixed = dict(settings or {})
    bench = Bench.open(data, split, metric, refit=False, device=device, quiet=quiet, protocol=protocol)
    config = bench.config(system, fixed)
    check_needs({system: config}, bench.dataset)
    check_valid(bench)
    bench.check_memory(system, config)
    found = space_of(cls, config, bench.dataset.info, len(bench.dataset.items), fixed=fixed, asked=asked)
    folder = Path(out)
    request = {
        "system": system, "data": bench.dataset.fingerprint, "split": bench.split.settings, "metric": bench.metric,
        "settings": fixed, "space": as_json(found), "trials": trials, "budget": budget, "seed": seed,
        **bench.vectors({system: config}), **({} if protocol is None else {"protocol": bench.protocol.name}),
    }  # fmt: skip
    if not found:
        say(f'System "{system}" has no setting to tune: its default is all there is.')
    else:
        _optuna()
    with hold(folder):
        remember(folder / "request.json", plain(request), "tuning")
        clock = Clock(folder / "clock.json")
        limit = float("inf") if budget is None else 3600 * budget
        tuner = Tuner(system, bench, folder, fixed=fixed, space=found, trials=trials, seed=seed)
        for name, dimension in found.items():
            say(f"  {name}: {dimension}")
        if tuner.attempts and not tuner.finished:
            say(f"going on after {len(tuner.attempts)} of {tuner.trials} trials")
        while not tuner.finished:
            mean = sum(a.seconds for a in tuner.attempts) / max(len(tuner.attempts), 1)
            attempt = None if tuner.attempts and clock.spent + mean > limit else tuner.step(lambda: clock.spent > limit)
            clock.save()
            if attempt is None and not tuner.attempts:
                raise SettingError(f"The budget of {duration(limit)} ended before the first trial did: raise --budget, or set fewer epochs (--set epochs=20).")
            if attempt is None:
                say(f"the budget of {duration(limit)} ends the tuning after {len(tuner.attempts)} of {tuner.trials} trials")
                break
            say(line(attempt, tuner.trials, bench.metric))
        return tuner.write()


def line(attempt: Attempt, trials: int, metric: str) -> str:
    """A trial for people."""
    settings = ", ".join(f"{name}={value}" for name, value in attempt.settings.items())
    value = "" if attempt.value is None else f"{metric} {attempt.value:.4f}, "
    state = "" if attempt.state == "done" else f"{attempt.state}{': ' + attempt.note if attempt.note else ''}, "
    return f"trial {attempt.number + 1} of {trials}: {value}{state}{duration(attempt.seconds)} ({settings}{', the default' if attempt.number == 0 else ''})"


def check_numbers(trials: int, budget: float | None) -> None:
    """Raises SettingError for numbers out of bounds."""
    if trials < 0:
        raise SettingError(f"--trials is {trials}: give 0 or more.")
    if budget is not None and not budget > 0:
        raise SettingError(f"--budget is {budget:g} hours: give more than 0.")


def check_valid(bench: Bench) -> None:
    """Raises DataError where there is no validation part to choose on."""
    if bench.split.valid is None:
        raise DataError(f'The split "{bench.settings.text}" has no validation part to choose settings on: use one that has, or --trials 0.')


def plain(value: Any) -> Any:
    """As JSON reads it back."""
    import json

    return json.loads(json.dumps(value, default=str))
