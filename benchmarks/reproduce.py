"""Run recipes, show our numbers beside the published ones and the bands they must lie in, and write both down.

    python benchmarks/reproduce.py                       every recipe but the heavy ones; run it again to go on where it stopped
    python benchmarks/reproduce.py ease.ml-100k --write  one recipe, and store what was measured in recipes/ease.ml-100k.yaml
    python benchmarks/reproduce.py --table               run nothing, write docs/results/recipes.md from the recipes

The data are looked for in VITRAIL_DATA (else ../shared/data beside the repository); runs are kept in runs/.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from vitrail import recipes
from vitrail.errors import SettingError, VitrailError, unknown
from vitrail.files import write_text
from vitrail.recipes_table import table

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """0: all ran and lie in their bands; 1: one does not; 2: one could not be run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="RECIPE", help="names of recipes; none: all but the heavy ones")
    parser.add_argument("--all", action="store_true", help="the heavy ones too")
    parser.add_argument("--write", action="store_true", help="store what was measured in the recipes and in docs/results/recipes.md")
    parser.add_argument("--table", action="store_true", help="run nothing, only write docs/results/recipes.md")
    parser.add_argument("--work", type=Path, default=ROOT / "runs", help="where runs and data sets are kept (default: runs)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    try:
        if options.table:
            _write_table()
            return 0
        chosen = _chosen(options.names, options.all)
    except VitrailError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    worst = 0
    for recipe in chosen:
        worst = max(worst, _run(recipe, options))
    return worst


def _chosen(names: list[str], everything: bool) -> list[recipes.Recipe]:
    known = {recipe.name: recipe for recipe in recipes.read_all(ROOT / "recipes")}
    wrong = next((name for name in names if name not in known), None)
    if wrong is not None:
        raise unknown("recipe", wrong, known)
    chosen = [known[name] for name in names] if names else [recipe for recipe in known.values() if everything or not recipe.heavy]
    for recipe in known.values():
        if recipe not in chosen and not names:
            print(f"{recipe.name}: left out ({recipe.heavy}); name it, or pass --all")
    if not chosen:
        raise SettingError("There is no recipe in recipes/.")
    return chosen


def _run(recipe: recipes.Recipe, options: argparse.Namespace) -> int:
    data_root = Path(os.environ.get("VITRAIL_DATA") or ROOT.parent / "shared" / "data")
    try:
        measured = recipes.reproduce(recipe, data_root=data_root, work=options.work, say=_say, quiet=options.quiet)
    except VitrailError as error:
        print(f"{recipe.name}: error: {error}", file=sys.stderr)
        return 2
    recipe = recipe.model_copy(update={"measured": measured})
    _show(recipe)
    if options.write:
        recipes.store(ROOT / "recipes" / f"{recipe.name}.yaml", measured)
        _write_table()
    return 0 if recipe.status == "measured" else 1


def _say(text: str) -> None:
    print(text, flush=True)


def _show(recipe: recipes.Recipe) -> None:
    measured = recipe.measured
    assert measured is not None
    print(f"\n{recipe.name} ({recipe.system}, split {recipe.split}{', refit' if recipe.refit else ''}): {measured.queries:,} queries, seeds {measured.seeds}")
    print(f"  {measured.protocol}")
    for name, spread in measured.metrics.items():
        sd = f" sd {spread.sd:.4f}" if spread.sd is not None else ""
        ci = f" [{spread.ci[0]:.4f}, {spread.ci[1]:.4f}]" if spread.ci is not None else ""
        beside = ", ".join(f"{row.metrics[name]:.4f} ({row.source})" for row in recipe.published if name in row.metrics)
        band = f"; band {recipe.accept[name]}: {recipe.verdict(name)}" if name in recipe.accept else ""
        valid = f"; validation {measured.validation[name].mean:.4f}" if name in measured.validation else ""
        print(f"  {name:12} {spread.mean:.4f}{sd}{ci}{valid}{'; published ' + beside if beside else ''}{band}")
    limit = f" (must be below {recipe.fit_seconds:g})" if recipe.fit_seconds is not None else ""
    looked = f"test part looked at {measured.test_evaluations} times"
    print(f"  epochs {measured.epochs}, seconds {measured.seconds}{limit}; {looked}; {recipe.status}\n", flush=True)


def _write_table() -> None:
    write_text(ROOT / "docs" / "results" / "recipes.md", table(recipes.read_all(ROOT / "recipes")))


if __name__ == "__main__":
    sys.exit(main())
