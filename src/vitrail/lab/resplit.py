"""What the split does to a comparison: the same systems with the same settings, fitted once under each further split, and how far their order changes."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.data.splits import parse_split
from vitrail.errors import ArtifactError, DataError, ResourceError, SettingError, VitrailError
from vitrail.evaluation.plots import label
from vitrail.files import fingerprint
from vitrail.lab.bench import Bench
from vitrail.lab.effects import moved
from vitrail.lab.plan import PlanRow, level
from vitrail.lab.rank_bench import open_bench
from vitrail.lab.seeds import Seat, seat, settled
from vitrail.lab.sentences import bare
from vitrail.train.loop import Left

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One system under one further split."""

    system: str
    split: int
    run: Path
    row: PlanRow
    """what it costs there"""


def open_splits(bench: Bench, names: Sequence[str], splits: Sequence[str], refit: bool) -> list[Bench]:
    """A bench a further split. Raises SettingError where one is named twice or is that of `bench`, DataError where it has no test part."""
    found: list[Bench] = []
    for text in splits:
        settings = parse_split(text)
        if any(settings == other.settings for other in (bench, *found)):
            raise SettingError(f'The split "{text}" is in this comparison already: name another with --also-split, or leave it out.')
        made = open_bench(names, bench.dataset, settings, bench.metric, refit, bench.device, bench.quiet)
        if made.split.test is None:
            raise DataError(f'The split "{text}" has no test part to compare on: name another with --also-split.')
        found.append(made)
    return found


def rows_under(bench: Bench, other: Bench, rows: Sequence[PlanRow]) -> list[PlanRow]:
    """What each system costs under `other`: an epoch grows with the events of training, a test with its queries; one fit."""
    events, queries = other.events / max(bench.events, 1), len(other.split.test) / max(len(bench.split.test), 1)
    return [row.model_copy(update={"epoch": row.epoch * events, "test": row.test * queries, "seeds": 1}) for row in rows]


def jobs_of(bench: Bench, others: Sequence[Bench], rows: Sequence[PlanRow], folder: Path) -> list[Job]:
    """Every system under every further split, split after split."""
    return [
        Job(row.system, n, folder / row.system / f"split-{fingerprint(other.settings.text)}", row)
        for n, other in enumerate(others) for row in rows_under(bench, other, rows)
    ]  # fmt: skip


def resplit(
    bench: Bench, others: Sequence[Bench], jobs: Sequence[Job], chosen: Mapping[str, Mapping[str, Any]], seats: Mapping[str, Sequence[Seat]], seed: int,
    refit: bool, left: Left | None, budget: float | None, say: Say, save: Callable[[], None],
) -> tuple[dict[str, Any], int]:  # fmt: skip
    """Fit what is not fitted yet, in the seconds that `left` tells, each in its share of them; the record, and how many were fitted now. `chosen`: settings."""
    todo = [job for job in jobs if not settled(job.run, budget)]
    cells: list[dict[str, Any]] = []
    late: list[Job] = []
    failed: list[tuple[Job, str]] = []
    for job in jobs:
        own, deadline = others[job.split], None
        if job in todo and left is not None:
            rest, needs = left(), [other.row.seed for other in todo[todo.index(job) :]]
            share = level(needs, rest)
            seconds = (rest - sum(needs[1:]) if share == math.inf else share) - job.row.tail
            if rest < (job.row.final(1) if job.row.trained else job.row.seed) and not (job.run / "evaluation.json").exists():
                late.append(job)
                continue
            deadline = _until(left, rest - max(seconds, job.row.epoch))
        config = own.config(job.system, chosen[job.system]).model_dump(mode="json", exclude_unset=True)
        try:
            made = seat(own, job.system, config, seed, job.run, refit, deadline, budget)
        except (ResourceError, DataError, ArtifactError):
            raise
        except VitrailError as error:  # settings that were chosen under one split need not do under another
            failed.append((job, str(error)))
            continue
        save()
        cells.append({"system": job.system, "condition": job.split + 1, "mean": made.evaluation.metrics[bench.metric], "cut": bool(made.cost["cut"])})
        say(f"  {job.system}, {own.settings.text}: test {bench.metric} {cells[-1]['mean']:.4f}{', stopped by the deadline' if cells[-1]['cut'] else ''}")
    first = []
    for name, seeds in seats.items():
        mean = statistics.fmean(s.evaluation.metrics[bench.metric] for s in seeds)
        first.append({"system": name, "condition": 0, "mean": mean, "cut": any(s.cost.get("cut") for s in seeds)})
    found = record([bench, *others], [*first, *cells], late, max(len(own) for own in seats.values()), failed)
    return found, len(todo) - len(late) - len(failed)


def _until(left: Left, kept: float) -> Left:
    return lambda: left() - kept


def record(benches: Sequence[Bench], rows: list[dict[str, Any]], late: Sequence[Job], seeds: int, failed: Sequence[tuple[Job, str]] = ()) -> dict[str, Any]:
    """`conditions`, the first of them the comparison's own; `rows` of {system, condition, mean, rank, cut}; `orders` of two conditions each: Kendall's tau over
    the systems of both, and how many pairs turned round; `late`: what there was no time for, `failed`: what could not be fitted and why; `sentences`."""
    metric = benches[0].metric
    for place in range(len(benches)):
        for rank, cell in enumerate(sorted((c for c in rows if c["condition"] == place), key=lambda c: -c["mean"]), start=1):
            cell["rank"] = rank
    conditions = [
        {"split": b.settings.text, "protocol": b.protocol.describe(), "events": b.events, "queries": len(b.split.test), "fits": 1 if n else seeds}
        for n, b in enumerate(benches)
    ]
    orders = [found for a, b in itertools.combinations(range(len(benches)), 2) if (found := order_of(a, b, rows)) is not None]
    result = {
        "metric": metric, "conditions": conditions, "rows": rows, "orders": orders,
        "late": [{"system": job.system, "split": benches[job.split + 1].settings.text} for job in late],
        "failed": [{"system": job.system, "split": benches[job.split + 1].settings.text, "why": why} for job, why in failed],
    }  # fmt: skip
    return {**result, "sentences": sentences(result)}


def order_of(a: int, b: int, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How alike conditions a and b order the systems that both have; none where these are fewer than two."""
    from scipy.stats import kendalltau

    value = {(row["system"], row["condition"]): row["mean"] for row in rows}
    names = [name for name, place in value if place == a and (name, b) in value]
    if len(names) < 2:
        return None
    tau = float(kendalltau([value[name, a] for name in names], [value[name, b] for name in names]).statistic)
    two = [{"split": n, "mask": "", "refit": False} for n in (a, b)]
    cells = [{"system": name, "condition": n, "mean": value[name, place]} for name in names for n, place in enumerate((a, b))]
    turns = moved("split", two, cells) or {"turned": 0, "pairs": 0}
    return {"a": a, "b": b, "tau": None if math.isnan(tau) else tau, "systems": len(names), "turned": turns["turned"], "pairs": turns["pairs"]}


def sentences(result: Mapping[str, Any]) -> list[str]:
    """How the order changes from split to split, in words."""
    texts = [condition["split"] for condition in result["conditions"]]
    best = {row["condition"]: row["system"] for row in result["rows"] if row["rank"] == 1}
    told = []
    for found in result["orders"]:
        a, b, tau = found["a"], found["b"], found["tau"]
        alike = "no order to compare" if tau is None else f"Kendall's tau {bare(tau, 2)} between the orders of {found['systems']} systems"
        leads = f"{best[a]} leads both" if best[a] == best[b] else f"{best[a]} leads the first, {best[b]} the second"
        told.append(f"{texts[a]} and {texts[b]}: {alike}, {found['turned']} of {found['pairs']} pairs turned round; {leads} by {label(result['metric'])}.")
    for n in sorted({row["condition"] for row in result["rows"] if row["cut"] and row["condition"]}):
        cut = [row["system"] for row in result["rows"] if row["cut"] and row["condition"] == n]
        told.append(f"Under {texts[n]} the deadline stopped {', '.join(cut)}, so that these numbers are lower bounds.")
    told += [f"Under {job['split']} {job['system']} could not be fitted: {job['why']}" for job in result["failed"]]
    for text in dict.fromkeys(job["split"] for job in result["late"]):
        named = ", ".join(job["system"] for job in result["late"] if job["split"] == text)
        told.append(f"Under {text} there was no time to fit {named}; the same command with a larger --budget goes on.")
    return told
