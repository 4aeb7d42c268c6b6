"""The page of all recipes: what was measured beside what was published, one table a data set and protocol."""

from __future__ import annotations

from collections.abc import Sequence

from vitrail.recipes import Measured, Recipe

HEAD = """# Recipes: published and measured

Written by `python benchmarks/reproduce.py --table` from `recipes/*.yaml`; do not edit. Settings were chosen on the validation part, and all items
are ranked. Numbers of different data or protocols stand in different tables and must not be compared. `ok` and `outside` say whether our mean lies in
the band that the recipe states with its source.
"""


def table(recipes: Sequence[Recipe]) -> str:
    """Markdown. Recipes without a number, and those whose settings changed since, are listed below the tables."""
    done = [recipe for recipe in recipes if recipe.measured is not None and recipe.status != "stale"]
    parts = [HEAD]
    for key in dict.fromkeys(_key(recipe) for recipe in done):
        group = [recipe for recipe in done if _key(recipe) == key]
        parts.append(_group(group))
    waiting = [recipe for recipe in recipes if recipe not in done]
    if waiting:
        lines = [f"- `{r.name}`: {'its settings changed since it was measured' if r.status == 'stale' else r.heavy or 'not run yet'}." for r in waiting]
        parts.append("\n".join(["## Not measured", "", *lines, ""]))
    return "\n".join(parts)


def _key(recipe: Recipe) -> str:
    assert recipe.measured is not None
    return f"{recipe.measured.fingerprint} {recipe.measured.protocol}"


def _group(group: Sequence[Recipe]) -> str:
    first = group[0].measured
    assert first is not None
    lines = [f"## {group[0].data.name}, {group[0].cut}", "", f"{first.queries:,} queries. {first.protocol}.", ""]
    lines += _rows(["recipe", "metric", "measured", "95 % interval", "validation", "published", "band", ""], _cells(group))
    for recipe in group:
        lines += ["", f"**{recipe.name}**: {_facts(recipe)}"]
        lines += [f"- differs: {text}" for text in recipe.differences]
        lines += [f"- not checked: {row.check} (needs {row.needs})" for row in recipe.not_checked]
    return "\n".join([*lines, ""])


def _cells(group: Sequence[Recipe]) -> list[list[str]]:
    rows = []
    for recipe in group:
        for metric in recipe.metrics:
            measured = recipe.measured
            if measured is None or metric not in measured.metrics:
                continue
            spread = measured.metrics[metric]
            mean = f"{spread.mean:.4f}" + (f" ± {spread.sd:.4f}" if spread.sd is not None else "")
            ci = f"{spread.ci[0]:.4f} to {spread.ci[1]:.4f}" if spread.ci is not None else ""
            valid = f"{measured.validation[metric].mean:.4f}" if metric in measured.validation else ""
            published = "; ".join(f"{row.metrics[metric]:.4f} ({row.source})" for row in recipe.published if metric in row.metrics)
            band = str(recipe.accept[metric]) if metric in recipe.accept else ""
            rows.append([f"`{recipe.name}`", metric, mean, ci, valid, published, band, recipe.verdict(metric)])
    return rows


def _facts(recipe: Recipe) -> str:
    m: Measured | None = recipe.measured
    assert m is not None
    settings = ", ".join(f"{key}={value}" for key, value in recipe.settings.items()) or "default settings"
    limit = f" (must be below {recipe.fit_seconds:g})" if recipe.fit_seconds is not None else ""
    seconds = ", ".join(f"{value:g}" for value in m.seconds)
    epochs = f"chosen epoch {', '.join(str(value) for value in m.epochs)}; " if max(m.epochs) > 1 else ""
    return (
        f"{settings}; seeds {', '.join(map(str, m.seeds))}; {epochs}fit {seconds} s{limit} on {m.cpu}; "
        f"test part looked at {m.test_evaluations} times; {m.date}; `{m.command}`."
    )


def _rows(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] * len(head)
    return ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in [head, rule, *cells]]
