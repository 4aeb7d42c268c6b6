"""policy: what another policy would have earned, from a log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli import show
from vitrail.cli.learn import JSON

app = typer.Typer(no_args_is_help=True, help="Estimate what a policy would earn from the log of another, and make such logs.", rich_markup_mode=None)


@app.command("evaluate")
def evaluate(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="Impressions with propensities: Parquet, CSV, JSON lines, or an Open Bandit folder.")],
    policy: Annotated[str, typer.Option(help="uniform, or a file with item, propensity and, if need be, position.")] = "uniform",
    clip: Annotated[float, typer.Option(min=0.0, help="Largest weight of clipped IPS.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds.")] = 0,
    json: JSON = False,
) -> None:
    """What a policy would have earned: IPS, SNIPS, doubly robust and others, with intervals and a verdict."""
    from vitrail.evaluation.bandit_log import evaluate_log

    found = evaluate_log(log, policy, clip=clip, seed=seed)
    if json:
        show.emit(found.as_json())
        return
    show.line(f"What the policy {found.policy} would have earned an impression; the log itself earned {found.logged:.5f}")
    rows = [(e.estimator, f"{e.value:.5f}", *(f"{low:.5f} to {high:.5f}" for low, high in (e.ci, e.bootstrap))) for e in found.estimates]
    show.table(("estimator", "value", "95 % interval", "bootstrap"), rows, right=["value", "95 % interval", "bootstrap"])
    told = found.diagnostics
    facts = {"rows": told.rows, "users": told.users, "effective rows": round(told.effective), "largest weight": told.weight_max, "outside": told.outside}
    show.facts(facts | {"mean weight": f"{told.weight_mean:.3f} +- {told.weight_mean_se:.3f} (should be 1)", "verdict": told.verdict})
    if found.clipping:
        show.line("Clipped at: " + ", ".join(f"{level}: {value:.5f}" for level, value in found.clipping.items()))
    if told.reason:
        show.warn(f"{told.verdict}: {told.reason}.")


@app.command("simulate")
def simulate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A data set made by `vitrail data simulate`.")],
    out: Annotated[Path, typer.Option(metavar="LOG.parquet", help="Where the impressions go.")],
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. requests=5000 or epsilon=0.3.")] = None,
    json: JSON = False,
) -> None:
    """Show pages in a simulated shop by a policy that explores, and log them; the true value of the uniform policy is printed."""
    import numpy as np

    from vitrail.config import parse_assignments
    from vitrail.data.dataset import Dataset
    from vitrail.data.simulate_bandit import BanditSettings, simulate_bandit
    from vitrail.files import atomic_file

    settings = BanditSettings.of(parse_assignments(assignments or ()), where="settings of the simulated log")
    impressions, world = simulate_bandit(Dataset(data), settings)
    with atomic_file(out) as temporary:
        impressions.write_parquet(temporary)
    truth = world.value(np.full(len(world.items), 1.0 / len(world.items)))
    if json:
        show.emit({"out": str(out), "rows": impressions.height, "clicked": float(impressions["clicked"].mean() or 0.0), "uniform": truth})  # type: ignore[arg-type]
        return
    show.line(f"{impressions.height:,} impressions are in {out}; the uniform policy truly earns {truth:.5f} an impression.")
    show.line(f"Estimate it from the log: vitrail policy evaluate {out} --policy uniform")
