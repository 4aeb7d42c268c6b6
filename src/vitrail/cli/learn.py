"""systems, fit, evaluate."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitrail.cli import complete, show

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from vitrail.evaluation.evaluator import Evaluation
    from vitrail.systems.base import Card

STAGES = ("retrieve", "rank", "arrange", "explore")
JSON = Annotated[bool, typer.Option("--json", help=show.JSON_HELP)]
Plugin = Annotated[list[Path] | None, typer.Option("--system", metavar="FILE.py", help=show.PLUGIN_HELP)]


def load_plugins(files: Iterable[Path] | None) -> None:
    """Register the systems in `files`. Raises SettingError where one is absent or registers none."""
    if files:
        from vitrail.systems.registry import load_file

        for file in files:
            load_file(file)


def systems(
    name: Annotated[str | None, typer.Argument(help="A system to explain; none: list all.", autocompletion=complete.systems)] = None,
    stage: Annotated[str | None, typer.Option(help="Only those of a stage: retrieve, rank or arrange.")] = None,
    system: Plugin = None,
    json: JSON = False,
) -> None:
    """List the systems, or explain one and every setting of it."""
    from vitrail.errors import unknown
    from vitrail.systems import registry

    load_plugins(system)
    if name is not None:
        card, config = registry.part(name)
        fields = config.model_fields
        if json:
            show.emit({**_card_json(card), "settings": {key: _setting(field) for key, field in fields.items()}})
        else:
            _explain(card, fields)
        return
    if stage not in (None, *STAGES):
        raise unknown("stage", str(stage), STAGES)
    cards = [card for card in registry.cards() if card.stage == (stage or card.stage)]
    if json:
        show.emit([_card_json(card) for card in cards])
        return
    columns = ("name", "stage", "family", "needs", "can", "paper", "year", "status")
    show.table(columns, [(c.name, c.stage, c.family, _needs(c), _can(c), c.paper, str(c.year or ""), c.status) for c in cards])
    show.line("Explain one and its settings: vitrail systems NAME")


def _card_json(card: Card) -> dict[str, Any]:
    values = card.model_dump(mode="json")
    return {key: values[key] for key in ("name", "stage", "family", "status", "paper", "needs", "can")} | {"year": card.year, "summary": card.summary}


def _needs(card: Card) -> str:
    needs = card.needs
    words = [] if not needs.history else ["items of users"] if needs.order is None else ["ordered events"]
    if needs.timestamp:
        words.append("clock times")
    words += [f"{name} vectors" for name in needs.vectors]
    return ", ".join(words)


def _can(card: Card) -> str:
    words = {"new_users": "new users", "cold_items": "cold items", "similar": "similar items", "filters": "filters", "dense": "an index"}
    return ", ".join(word for key, word in words.items() if getattr(card.can, key))


def _explain(card: Card, fields: dict[str, FieldInfo]) -> None:
    show.line(f"{card.name}: {card.summary}")
    paper = f"{card.paper} ({card.year})" if card.paper else card.year and str(card.year)
    show.facts({"stage": card.stage, "family": card.family, "needs": _needs(card) or None, "can": _can(card), "paper": paper, "status": card.status})
    rows = []
    for key, field in fields.items():
        facts = _setting(field)
        rows.append((key, facts["type"], "" if facts["default"] is None else str(facts["default"]), facts["bounds"], facts["meaning"]))
    show.table(("setting", "type", "default", "bounds", "meaning"), rows)
    if card.stage in ("arrange", "explore"):
        show.line(f"It stands in a funnel file, as in: {card.stage}: {{{'system' if card.stage == 'arrange' else 'policy'}: {card.name}}}")
        return
    show.line(f"Set them with --set, as in: vitrail fit {card.name} --data D --out RUN" + (f" --set {rows[0][0]}={rows[0][2]}" if rows else ""))


def _setting(field: FieldInfo) -> dict[str, Any]:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{sign} {getattr(fact, name)}" for fact in field.metadata for name, sign in signs.items() if getattr(fact, name, None) is not None]
    return {"type": _type_name(field.annotation), "default": field.get_default(call_default_factory=True) if not field.is_required() else None,
            "bounds": ", ".join(bounds), "meaning": " ".join((field.description or "").split())}  # fmt: skip


def _type_name(annotation: Any) -> str:
    from typing import Literal, get_args, get_origin

    if get_origin(annotation) is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if annotation is type(None):
        return "none"
    if get_origin(annotation) is Annotated:
        return _type_name(get_args(annotation)[0])
    names = {"int": "whole number", "float": "number", "bool": "true or false", "str": "text"}
    if isinstance(annotation, type) and not get_args(annotation):
        return names.get(annotation.__name__, annotation.__name__)
    parts = [_type_name(part) for part in get_args(annotation) if part is not Ellipsis]
    return f"list of {parts[0]}" if get_origin(annotation) in (list, tuple) and parts else " | ".join(parts) or str(annotation)


def fit(
    name: Annotated[str, typer.Argument(metavar="SYSTEM", help="Which system; `vitrail systems` lists them.", autocompletion=complete.systems)],
    data: Annotated[Path | None, typer.Option(help="The data-set folder.", file_okay=False)] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="The run folder to write.")] = None,
    split: Annotated[
        str | None, typer.Option(help="How to cut the data, e.g. temporal, leave-last-out, ratio:test=0.2.", autocompletion=complete.splits)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(metavar="NAME[:CHOICE=VALUE]", help="How the numbers are made where it is not as the split has it, e.g. mmrec.")
    ] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting; repeat for more. Wins over --config.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="F.yaml", help="Settings from a YAML file.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    refit: Annotated[bool, typer.Option("--refit", help="After selection, fit again on train and valid.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run at that place.")] = False,
    system: Plugin = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings as YAML and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    json: JSON = False,
) -> None:
    """Fit a system on a data set and write a run folder."""
    from vitrail.config import parse_assignments, read_yaml
    from vitrail.errors import SettingError

    settings: dict[str, Any] = (read_yaml(config) if config else {}) | parse_assignments(assignments or ())
    load_plugins(system)
    if print_config:
        _print_config(name, settings, json)
        return
    if data is None or out is None:
        raise SettingError(f"fit needs {'--data D, the data-set folder' if data is None else '--out RUN, the folder to write'}.")
    from vitrail.train.fit import fit as run

    result = run(
        name, data, split=split, protocol=protocol, out=out, seed=seed, resume=resume, overwrite=overwrite, settings=settings, refit=refit,
        device=device, quiet=quiet,
    )  # fmt: skip
    summary = result.summary()
    for leak in summary.get("leaks") or ():
        show.warn(leak)
    if json:
        show.emit(summary)
        return
    validation = summary.pop("validation", None) or {}
    protocol = summary.pop("protocol", None)
    if isinstance(protocol, dict):
        from vitrail.evaluation.protocol import recorded_protocol

        summary["protocol"] = recorded_protocol(protocol).describe()
    show.facts({key: value for key, value in summary.items() if key != "leaks"})
    if validation.get("metrics"):
        rows = sorted(validation["metrics"].items())
        show.table(("metric", "validation"), [(key, f"{value:.4f}") for key, value in rows], right=["validation"])
    show.line(f"Measure it on the test part: vitrail evaluate {out}")


def _print_config(name: str, settings: dict[str, Any], json: bool) -> None:
    import yaml

    from vitrail.systems.registry import find

    values = find(name).Config.of(settings, where=f'settings of system "{name}"').model_dump(mode="json")
    if json:
        show.emit(values)
    else:
        typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True) if values else "{}", nl=False)


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    part: Annotated[str, typer.Option(help="test or valid.")] = "test",
    data: Annotated[Path | None, typer.Option(help="The data-set folder, if it moved since the fit.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Such as ndcg@10,recall@20, of rankers auc,gauc,logloss; repeat or separate by commas.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order among equal scores.")] = 0,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with the numbers and plots.")] = None,
    importance: Annotated[bool, typer.Option("--importance", help="Of a ranker: what each field is worth, by changing its values' places.")] = False,
    system: Plugin = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    json: JSON = False,
) -> None:
    """Measure a run over the whole catalogue (a ranker: over what was shown), with 95 % intervals and slices."""
    from vitrail.evaluation.metrics import check_metric
    from vitrail.train.fit import evaluate_run

    load_plugins(system)
    names = [name.strip() for text in metrics for name in text.split(",") if name.strip()] if metrics else None
    for name in names or ():
        check_metric(name)  # before a bar is shown
    evaluation = evaluate_run(run, part=part, data=data, metrics=names, tie_seed=seed, quiet=quiet, importance=importance)
    if report is not None:
        from vitrail.evaluation.binary import RankEvaluation
        from vitrail.evaluation.rank_report import sections
        from vitrail.evaluation.report import write_report

        write_report(report, [evaluation], sections=sections(evaluation) if isinstance(evaluation, RankEvaluation) else ())
        show.note(f"The page is at {report}.")
    for warning in evaluation.warnings:
        show.warn(warning)
    if json:
        show.emit(evaluation.as_json())
    else:
        _print_evaluation(evaluation)


def _print_evaluation(evaluation: Evaluation) -> None:
    show.line(f"{evaluation.system} on {evaluation.data}, {evaluation.part} part, fingerprint {evaluation.fingerprint}")
    show.line(f"protocol {evaluation.protocol.describe()}")
    left_out = "".join(f"; left out, {reason}: {count:,}" for reason, count in evaluation.left_out.items() if count)
    rows = getattr(evaluation, "rows", None)
    asked = f"{evaluation.users:,} queries" if rows is None else f"{rows:,} rows of {evaluation.users:,} users"
    show.line(f"{asked} in {evaluation.seconds:.2f} s{left_out}")
    found = [(name, f"{value:.4f}", _interval(evaluation.ci.get(name))) for name, value in evaluation.metrics.items()]
    show.table(("metric", "value", "95 % interval"), found, right=["value", "95 % interval"])
    if evaluation.slices:
        columns = list(dict.fromkeys(key for row in evaluation.slices.values() for key in row if key != "users"))
        shown = [name for name in columns if name.endswith("@10")] or columns[:6]
        cut = [(name, f"{row.get('users', 0):,.0f}", *(f"{row[key]:.4f}" if key in row else "" for key in shown)) for name, row in evaluation.slices.items()]
        show.table(("slice", "queries" if rows is None else "rows", *shown), cut, right=["queries", "rows", *shown])
    if told := getattr(evaluation, "objectives", None):
        keys = list(dict.fromkeys(key for row in told.values() for key in row if key != "rows"))
        rows_of = [(name, f"{row['rows']:,.0f}", *(f"{row[key]:.4f}" if key in row else "" for key in keys)) for name, row in told.items()]
        show.table(("objective", "rows", *keys), rows_of, right=["rows", *keys])
    worth = getattr(evaluation, "importance", None)
    if worth:
        keys = list(dict.fromkeys(key for row in worth.values() for key in row))
        ordered = sorted(worth.items(), key=lambda pair: -max(pair[1].values(), default=0.0))
        rows_of = [(name, *(f"{row[key]:+.4f}" if key in row else "" for key in keys)) for name, row in ordered]
        show.table(("field", *(f"{key} lost" for key in keys)), rows_of, right=[f"{key} lost" for key in keys])


def _interval(bounds: tuple[float, float] | None) -> str:
    return f"{bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else ""
