"""One HTML file that needs nothing else: numbers with intervals, plots, and what one person would be shown."""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.config import Settings
from vitrail.data.pictures import small_jpeg
from vitrail.errors import SettingError
from vitrail.evaluation import plots
from vitrail.evaluation.compare import Comparison, comparison, names_of
from vitrail.evaluation.evaluator import Evaluation
from vitrail.evaluation.metrics import RANKERS
from vitrail.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("ndcg@10", "recall@10", "mrr@10", "coverage@10", "novelty@10", "intra_list_diversity@10", "popularity_lift@10", "auc", "gauc", "logloss", "ece")
"""Metrics of the main table; the others are under it."""
PICTURE = 176
"""Longest side of a picture in the page, pixels."""


class ShownItem(Settings):
    """An item as a card."""

    item: str
    title: str | None = None
    price: float | str | None = None
    image: Path | bytes | None = None
    """a picture file or its bytes; one that cannot be read is left out"""
    note: str | None = None
    """e.g. its category, or why it is shown"""


class Showcase(Settings):
    """One user: what they had, and what each system would show."""

    user: str
    history: list[ShownItem] = []
    """oldest first"""
    recommended: dict[str, list[ShownItem]] = {}
    """system -> items, best first"""


@dataclass(frozen=True)
class Section:
    """A part of the page that its writer fills: a table of text cells, figures and a command under it."""

    title: str
    note: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    texts: Sequence[str] = ()
    """columns of words, set to the left and wrapped"""
    figures: Sequence[Figure] = ()
    command: str = ""
    early: bool = False
    """right under the tests"""
    answers: Sequence[str] = ()
    """a sentence each, above the note"""


def write_report(
    path: str | Path,
    evaluations: Sequence[Evaluation],
    *,
    title: str | None = None,
    metric: str | None = None,
    describe: Mapping[str, Any] | None = None,
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    showcase: Showcase | Mapping[str, Any] | None = None,
    compared: Comparison | None = None,
    answers: Sequence[str] = (),
    spread: Mapping[str, Mapping[str, float]] | None = None,
    sections: Sequence[Section] = (),
) -> Path:
    """Write the page atomically and return its path.

    `metric` orders the systems (none: ndcg@10, or the first metric with an interval); `describe` are the facts of the data set
    (`Description.model_dump()`); `curves` system -> one record an epoch; `showcase` as in `Showcase`; `compared` the comparison of these
    evaluations where it was made before; `answers` a sentence a question; `spread` system -> metric -> standard deviation over seeds.
    Raises SettingError where the evaluations do not belong in one table.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    metric = metric or _leading(evaluations)
    compared = compared or comparison(evaluations, metric)
    named = dict(zip(names_of(evaluations), evaluations, strict=True))
    ordered = [named[row.system].model_copy(update={"system": row.system}) for row in compared.rows]
    shown = Showcase.of(showcase, where="the showcase") if isinstance(showcase, Mapping) else showcase
    environment = Environment(loader=PackageLoader("vitrail.evaluation", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(label=plots.label, number=number, picture=picture, money=money)
    names = [row.system for row in compared.rows]
    common = [name for name in compared.rows[0].metrics if all(name in row.metrics for row in compared.rows)]
    page = environment.get_template("report.html").render(
        title=title or f"How good: {compared.data or 'this data set'}",
        compared=compared,
        verdict=verdict(compared),
        protocol=ordered[0].protocol,
        left_out=ordered[0].left_out,
        colour=plots.colours(names),
        columns=[metric, *(name for name in COLUMNS if name in common and name != metric)],
        others=common,
        best={name: _best(name, [row.metrics[name] for row in compared.rows]) for name in common},
        speed={e.system: e.users_per_second for e in ordered},
        facts=_facts(describe or {}),
        figures=_figures(ordered, metric, common, curves or {}),
        showcase=shown,
        answers=answers,
        spread=spread or {},
        sections=[(section, [svg(drawn) for drawn in section.figures]) for section in sections],
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(path, page)
    return Path(path)


def _leading(evaluations: Sequence[Evaluation]) -> str:
    common = [name for name in (evaluations[0].metrics if evaluations else {}) if all(name in e.metrics for e in evaluations)]
    if evaluations and not common:
        raise SettingError("These evaluations have no metric in common: evaluate each with the same --metrics.")
    return "ndcg@10" if "ndcg@10" in common or not common else next((name for name in common if name in evaluations[0].ci), common[0])


def verdict(compared: Comparison) -> str:
    """The outcome in a sentence or two."""
    first, metric = compared.rows[0], compared.metric
    low, high = first.ci.get(metric, (None, None))
    between = f" (95 % interval {low:.4f} to {high:.4f})" if low is not None and high is not None else ""
    if len(compared.rows) == 1:
        return f"{first.system} reaches {plots.label(metric)} {number(metric, first.metrics[metric])}{between} over {compared.users:,} queries."
    second = compared.rows[1]
    text = f"{first.system} leads with {plots.label(metric)} {number(metric, first.metrics[metric])}{between}."
    test = next((t for t in compared.tests if {t.a, t.b} == {first.system, second.system}), None)
    if test is None:
        return text
    gap = abs(test.diff)
    if test.p_holm < 0.05:
        return f"{text} Its lead of {gap:.4f} over {second.system} is more than chance (p = {_p(test.p_holm)} after correction)."
    return f"{text} Its lead of {gap:.4f} over {second.system} may be chance (p = {_p(test.p_holm)} after correction)."


def _p(value: float) -> str:
    return f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def number(metric: str, value: float) -> str:
    """A value as people read it: shares of the catalogue in per cent, novelty in bits, the rest with four digits."""
    name = metric.partition("@")[0]
    if name == "coverage":
        return f"{100 * value:.1f} %"
    if name == "popularity_lift":
        return f"{100 * value:+,.0f} %".replace("-", "−")
    return f"{value:.2f}" if name in ("novelty", "intra_list_diversity", "gini") else f"{value:.4f}"


def money(price: float | str) -> str:
    """A price as text."""
    return price if isinstance(price, str) else f"{price:,.2f}"


def _best(metric: str, values: Sequence[float]) -> float | None:
    """The value to set in bold; none where more is neither better nor worse."""
    name = metric.partition("@")[0]
    return None if name == "popularity_lift" else min(values) if name == "gini" or name.startswith(("logloss", "ece")) else max(values)


def picture(image: Path | bytes | None) -> str | None:
    """A small copy of a picture as a data URI; none where there is none that can be read."""
    made = None if image is None else small_jpeg(image, PICTURE)
    return None if made is None else f"data:image/jpeg;base64,{base64.b64encode(made).decode()}"


def _facts(describe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to say of the data set: (what, how much)."""
    facts = [(name, f"{describe[name]:,}") for name in ("users", "items", "events") if isinstance(describe.get(name), int)]
    if isinstance(describe.get("density"), float):
        facts.append(("of all pairs seen", f"{100 * describe['density']:.2g} %"))
    for key, what in (("events_per_user", "events a user, median"), ("events_per_item", "events an item, median")):
        if isinstance(describe.get(key), Mapping) and "median" in describe[key]:
            facts.append((what, f"{describe[key]['median']:g}"))
    span = describe.get("span")
    if isinstance(span, Mapping) and "days" in span:
        facts.append(("days of events", f"{span['days']:,.0f}"))
    return facts


def _figures(ordered: Sequence[Evaluation], metric: str, common: Sequence[str], curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[Any]]:
    """Section -> inline SVG pictures."""
    second = next((name for name in ("recall@10", "recall@20", "hit_rate@10", *common) if name in common and name != metric and name in ordered[0].ci), None)
    keys = [key for records in curves.values() for record in records for key in record if key == "loss" or "@" in key or key in RANKERS]
    names = [e.system for e in ordered]
    made: dict[str, list[Figure | None]] = {
        "means": [plots.intervals_plot(ordered, name) for name in (metric, second) if name],
        "slices": [plots.slices_plot(ordered, group, metric) for group in plots.SLICES],
        "tradeoff": [plots.tradeoff_plot(ordered, metric, price) for price in plots.PRICES] if len(ordered) > 1 else [],
        "curves": [plots.curves_plot(curves, key, names) for key in dict.fromkeys(keys)],
    }
    return {section: [svg(drawn) for drawn in drawings if drawn is not None] for section, drawings in made.items()}


def svg(drawn: Figure) -> Any:
    """A figure as markup to put inside a page."""
    from markupsafe import Markup

    from vitrail.plotstyle import save

    with tempfile.TemporaryDirectory() as folder:
        text = save(drawn, Path(folder) / "figure.svg").read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)  # several figures on a page must not share names
    return Markup(re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', text, count=1))
