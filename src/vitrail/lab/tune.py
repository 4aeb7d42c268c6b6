"""Tuning one system: trials on the validation part, within a number and a budget.

Trial 0 is the configuration as given. What trial n tries depends on the seed and on the trials before it alone, so a job that was
interrupted ends like one that was not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vitrail.data.dataset import Dataset
from vitrail.data.splits import SplitSettings
from vitrail.errors import DataError, SettingError
from vitrail.files import read_json, write_json
from vitrail.lab.bench import Bench, Clock, check_needs, duration, hold, remember, remember_budget
from vitrail.lab.pace import Pace, held
from vitrail.lab.plan import Plan, make_plan, timed
from vitrail.lab.rank_bench import open_bench
from vitrail.lab.space import as_begun, as_json, begun_with, read_space, space_of
from vitrail.lab.tuner import Attempt, Tuned, Tuner, need_optuna
from vitrail.systems import registry

Say = Callable[[str], None]


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
    metric: str | None = None,
    device: str = "auto",
    quiet: bool = False,
    say: Say | None = None,
) -> Tuned:
    """Find good settings of `system` on the validation part, in at most `trials` fits and `budget` hours; the test part is not looked at.

    `metric` none: ndcg@10, of rankers gauc; `settings` are fixed by hand and not varied; `space` as in `lab.space.space_of`, or a YAML file.
    The same call on the same `out` goes on where an earlier one stopped, also with a larger `budget`. Raises VitrailError: one sentence.
    """
    say = say or (lambda text: None if quiet else print(text, file=sys.stderr))  # noqa: T201
    cls = registry.find(system)
    check_numbers(trials, budget)
    if trials == 0:
        raise SettingError("--trials 0 leaves nothing to tune: give at least 1.")
    asked = read_space(space) if isinstance(space, str | Path) else dict(space or {})
    asked = asked.get(system, asked) if isinstance(asked.get(system), Mapping) else asked
    fixed = dict(settings or {})
    bench = open_bench([system], data, split, metric, refit=False, device=device, quiet=quiet, protocol=protocol)
    config = bench.config(system, fixed)
    check_needs({system: config}, bench.dataset)
    check_valid(bench)
    memory = bench.check_memory(system, config)
    found = space_of(cls, config, bench.dataset.info, len(bench.dataset.items), fixed=fixed, asked=asked)
    folder = Path(out)
    found = as_begun(found, begun, asked) if (begun := begun_with(folder)) else found
    request = {
        "system": system, "data": bench.dataset.fingerprint, "split": bench.split.settings, "metric": bench.metric,
        "settings": fixed, "space": as_json(found), "trials": trials, "seed": seed,
        **bench.vectors({system: config}), **({} if protocol is None else {"protocol": bench.protocol.name}),
    }  # fmt: skip
    if not found:
        say(f'System "{system}" has no setting to tune: its default is all there is.')
    else:
        need_optuna()
    with hold(folder):
        remember(folder / "request.json", plain(request), "tuning")
        remember_budget(folder / "budget.json", budget, "tuning")
        clock = Clock(folder / "clock.json")
        tuner = Tuner(system, bench, folder, fixed=fixed, space=found, trials=trials, seed=seed)
        for name, dimension in found.items():
            say(f"  {name}: {dimension}")
        if tuner.finished:
            return tuner.write()
        file = folder / "plan.json"
        if file.exists():
            before = Plan.of(read_json(file), where=str(file))
            rows, timing = before.rows, before.timing
            say(f"going on after {len(tuner.attempts)} of {tuner.trials} trials")
        else:
            rows = [timed(bench, system, config, trials=tuner.trials, seeds=0, space=found, refit=False, memory=memory)]
            timing = clock.spent
        plan = make_plan(rows, tuner.trials, None if budget is None else 3600 * budget, timing, page=0.0)
        write_json(file, plan.model_dump(mode="json"))
        for text in plan.words():
            say(text)
        pace = Pace(plan, {system: tuner}, clock)
        while (job := pace.next()) is not None:
            attempt = tuner.step(job[1])
            clock.save()
            say(line(attempt, tuner.trials, bench.metric))
        for text in held(plan, {system: tuner}, {}):
            say(text)
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
    return json.loads(json.dumps(value, default=str))
