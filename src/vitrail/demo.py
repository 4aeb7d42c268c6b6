"""`vitrail demo`: a simulated shop, three systems measured side by side, a page, what one person would be shown, and the studio."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail import demo_studio
from vitrail.errors import DataError
from vitrail.files import read_json, write_json

if TYPE_CHECKING:
    from vitrail.data.dataset import Dataset
    from vitrail.data.describe import Description
    from vitrail.data.split import Part
    from vitrail.evaluation.compare import Comparison
    from vitrail.evaluation.evaluator import Evaluation
    from vitrail.evaluation.report import ShownItem
    from vitrail.funnel.recommender import Recommender

MARK = "demo.json"
"""The file by which a folder is known as a demo's own."""
MADE = ("shop", "runs", "index.html", "service.log", "studio.png")
"""What a demo puts in its folder beside the mark."""
FLOOR = "popular"
"""Fitted too, as the floor that a personal system must beat."""
SYSTEMS: dict[str, dict[str, Any]] = {
    FLOOR: {},
    "item-knn": {"weighting": "tfidf", "k": 1000, "shrink": 50},
    "lightgcn": {"layers": 2, "lr": 0.005, "epochs": 60, "patience": 5},
    "sasrec": {"dim": 32, "epochs": 30, "patience": 3},
}
"""Settings that did well on the validation part of this shop, among a few that were tried, and fit in seconds."""
METRICS = ("ndcg@10", "recall@10", "mrr@10")
"""Shown in the terminal with intervals; the page has them all."""
SHOWN = 7
"""Items of a shelf."""


def run(
    out: str | Path = "demo", *, open_page: bool = False, users: int = 2500, seed: int = 0, studio: bool = True, quiet: bool = False
) -> dict[str, Any]:
    """Simulate a shop of `users` people in `out`/shop, fit and compare systems in `out`/runs, write `out`/index.html.

    With `studio` the systems become a funnel, served on this machine with a page to look at, in a terminal until Ctrl-C, else for a picture of it
    only. `quiet` prints nothing. Returns {page, data, comparison, user, recommended, runs, studio, seconds} as plain values. Running it again starts
    over. Raises DataError where `out` holds something that no demo made, ResourceError where the disk is full.
    """
    started = time.perf_counter()
    folder = Path(out)
    _take(folder, users, seed)
    tell = _Teller(quiet)

    tell.title("A shop is simulated")
    dataset = _simulate(folder / "shop", users, seed, quiet)
    from vitrail.data.describe import describe

    description = describe(dataset)
    tell.lines(facts(dataset, description))

    tell.title("Systems are fitted on the past, chosen on validation, and asked about the future")
    evaluations, curves, part = _measure(folder / "runs", dataset, seed, quiet, tell)

    from vitrail.evaluation.compare import comparison

    compared = comparison(evaluations, METRICS[0])
    tell.title(f"How good they are: {compared.users:,} people, all {description.items:,} items ranked, 95 % intervals")
    tell.table(("system", *METRICS, "coverage@10"), [_row(row.metrics, row.ci, row.system) for row in compared.rows], right=(*METRICS, "coverage@10"))
    tell.lines([*sentences(compared), *compared.warnings])

    best = next((row.system for row in compared.rows if row.system != FLOOR), compared.rows[0].system)
    user, later = choose(dataset, part)
    models = _models(folder / "runs", [row.system for row in compared.rows])
    answer = models[best].recommend(users=[user], k=SHOWN)
    had = _history(models[best], user)
    tell.title(f"What {best} would show {user}")
    shelf = [*_cards(dataset, had, "had"), *_cards(dataset, answer["item"].to_list(), "", later)]
    tell.table(("", "item", "title", "category", "price"), shelf, right=("price",))
    tell.lines(["had: the newest events before the cut; a number: the rank; *: taken after the cut, which no system has seen"])

    page = _page(folder / "index.html", evaluations, curves, description, dataset, user, had, models, later)
    tell.title("Where to look")
    tell.lines(directions(folder, page, best, user, had))
    if open_page:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    demo_studio.keep_comparison(folder / "runs" / "comparison", compared, sentences(compared), seed)
    shown = None
    if studio:
        tell.title("The systems as one funnel, behind a service with a page")
        funnel = demo_studio.build(folder / "runs", dataset.path, list(models), FLOOR)
        shown = demo_studio.show(folder, funnel, lambda text: tell.lines([text]), stay=not quiet and sys.stdin.isatty() and sys.stdout.isatty())
    return {
        "page": str(page),
        "data": description.model_dump(mode="json"),
        "comparison": compared.as_json(),
        "user": user,
        "recommended": answer.select("item", "rank", "score").to_dicts(),
        "runs": {name: str(folder / "runs" / name) for name in models},
        "studio": shown,
        "seconds": round(time.perf_counter() - started, 2),
    }


class _Teller:
    """Prints the steps for people, numbered; nothing where it is quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.step = quiet, 0

    def title(self, text: str) -> None:
        self.step += 1
        self.lines(["", f"{self.step}. {text}"], indent="")

    def lines(self, texts: Sequence[str], indent: str = "   ") -> None:
        if self.quiet:
            return
        from vitrail.cli import show

        for text in texts:
            show.line(indent + text if text else "")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str]) -> None:
        if self.quiet:
            return
        from vitrail.cli import show

        show.table(columns, rows, right=right)


def _take(folder: Path, users: int, seed: int) -> None:
    """Make `folder` ours: empty but for the mark. What another demo made there goes, anything else stays."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file: choose another place with --out FOLDER.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARK).is_file() or not isinstance(read_json(folder / MARK), dict):
            raise DataError(f"{folder} holds something that no demo made, and is left as it is: choose another place with --out FOLDER.")
        for name in MADE:
            if (folder / name).is_dir() and not (folder / name).is_symlink():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    write_json(folder / MARK, {"made_by": "vitrail demo", "users": users, "seed": seed})


def _simulate(place: Path, users: int, seed: int, quiet: bool) -> Dataset:
    from vitrail.data.simulate import SimulatorSettings, simulate
    from vitrail.train.progress import bar, silent

    settings = SimulatorSettings(users=users, items=max(users * 2 // 5, 40), events=users * 24, seed=seed)
    with (silent if quiet else bar("simulate", "events"))(settings.events, 0) as advance:
        return simulate(place, settings=settings, progress=advance)


def facts(dataset: Dataset, found: Description) -> list[str]:
    """Five lines on the data set."""
    kinds = ", ".join(f"{count:,} {name}" for name, count in found.events_by_type.items())
    days = f" in {found.span.days:,.0f} days" if found.span else ""
    user, head = found.events_per_user, found.popularity.head
    fields = [name for name in dataset.items.columns if name != "item"]
    return [
        f"{found.users:,} people, {found.items:,} items, {found.events:,} events{days}: {kinds}",
        f"a person has {user.median:g} events (median; {user.min:g} to {user.max:g}); {100 * found.density:.1f} % of all pairs are seen",
        f"half of the events fall on {100 * head.items_share:.0f} % of the items; {100 * found.repeats_share:.1f} % repeat an earlier pair",
        f"{found.cold.items_only_in_last_tenth or 0:,} items and {found.cold.users_only_in_last_tenth or 0:,} people appear only in the last tenth of the time",
        f"an item has {', '.join(fields)}; the tastes that drew the events are kept aside in {dataset.path / 'truth'}",
    ]


def _measure(
    runs: Path, dataset: Dataset, seed: int, quiet: bool, tell: _Teller
) -> tuple[list[Evaluation], dict[str, list[dict[str, Any]]], Part]:
    """Fit every system into `runs` and measure it on the test part: evaluations, curves by system, the test part."""
    from vitrail.train.fit import evaluate_run, fit

    evaluations, curves = [], {}
    for name, settings in SYSTEMS.items():
        made = fit(name, dataset, out=runs / name, seed=seed, settings=settings, quiet=quiet)
        info, valid = made.recommender.info, (made.recommender.info.get("validation") or {}).get("metrics", {})
        chosen = f", epoch {info['epochs']} of {made.progress.epoch} kept" if made.progress.curve else ""
        reached = f", {METRICS[0]} {valid[METRICS[0]]:.4f} on validation" if METRICS[0] in valid else ""
        tell.lines([f"{name}{' (the floor)' if name == FLOOR else ''}: fitted in {info['seconds']:.1f} s{chosen}{reached}"])
        evaluations.append(evaluate_run(runs / name, quiet=True))
        if made.progress.curve:
            curves[name] = made.progress.curve
    test = made.split.test
    assert test is not None
    cuts = [str(made.split.settings[key])[:10] for key in ("cut_valid", "cut_test")]
    tell.lines([f"split: fitted on events before {cuts[0]}, chosen on those before {cuts[1]}, asked about those after"])
    return evaluations, curves, test


def _row(metrics: Mapping[str, float], ci: Mapping[str, tuple[float, float]], name: str) -> list[str]:
    cells = [f"{metrics[metric]:.4f} [{ci[metric][0]:.4f}, {ci[metric][1]:.4f}]" for metric in METRICS]
    return [name, *cells, f"{100 * metrics['coverage@10']:.0f} %"]


def sentences(compared: Comparison) -> list[str]:
    """What the paired tests say: the best two, and every system against the floor."""
    names = [row.system for row in compared.rows]
    asked = [set(names[:2]), *({name, FLOOR} for name in names)]
    found = [test for test in compared.tests if {test.a, test.b} in asked]
    return [
        f"{test.a} minus {test.b}: {test.diff:+.4f} [{test.ci[0]:+.4f}, {test.ci[1]:+.4f}], p = {test.p_holm:.4f} after Holm's correction: "
        + (f"{test.a if test.diff > 0 else test.b} is better" if test.p_holm < 0.05 else "may be chance")
        for test in found
    ]


def choose(dataset: Dataset, part: Part) -> tuple[str, set[str]]:
    """The person who is shown, and the items that person took later: of those with at least 8 events before, the first in code
    order with the usual number of them. Their later items play no role in the choice."""
    import numpy as np

    lengths = part.histories.lengths.numpy()
    long = np.flatnonzero(lengths >= min(8, int(lengths.max())))
    typical = np.median(lengths[long])
    query = int(long[np.argmin(np.abs(lengths[long] - typical))])
    targets = part.target_items[part.target_indptr[query] : part.target_indptr[query + 1]]
    user = dataset.user_ids.decode([int(part.histories.users[query])])[0]
    assert user is not None
    return user, {item for item in dataset.item_ids.decode(targets) if item is not None}


def _models(runs: Path, names: Sequence[str]) -> dict[str, Recommender]:
    from vitrail.funnel.recommender import load

    return {name: load(runs / name) for name in names}


def _history(model: Recommender, user: str) -> list[str]:
    """The newest items the system knows of `user`, oldest first, each once."""
    items = model.known.histories(model.user_ids.encode([user])).items.numpy()
    newest = dict.fromkeys(items[::-1].tolist())
    return [str(item) for item in model.item_ids.decode(list(newest)[:SHOWN][::-1])]


def _cards(dataset: Dataset, items: Sequence[str], mark: str, later: set[str] | None = None) -> list[list[Any]]:
    """Rows of the terminal's table: history items marked, then the shelf by rank, a star on what was taken later."""
    rows = [dataset.items.row(dataset.item_ids.code(item), named=True) for item in items]
    return [
        [mark or f"{rank}{' *' if later and row['item'] in later else ''}", row["item"], row["title"], row["category"], f"{row['price']:,.2f}"]
        for rank, row in enumerate(rows, start=1)
    ]


def _page(
    place: Path,
    evaluations: Sequence[Evaluation],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    found: Description,
    dataset: Dataset,
    user: str,
    had: Sequence[str],
    models: Mapping[str, Recommender],
    later: set[str],
) -> Path:
    """Write the page: everything of the comparison, and the shelf of every system for one person."""
    from vitrail.evaluation.report import Showcase, write_report

    shelves = {name: model.recommend(users=[user], k=SHOWN)["item"].to_list() for name, model in models.items()}
    showcase = Showcase(
        user=user,
        history=[_shown(dataset, item, set()) for item in had],
        recommended={name: [_shown(dataset, item, later) for item in shelf] for name, shelf in shelves.items()},
    )
    title = "A simulated shop: which system recommends best?"
    return write_report(place, evaluations, title=title, metric=METRICS[0], describe=found.model_dump(mode="json"), curves=curves, showcase=showcase)


def _shown(dataset: Dataset, item: str, later: set[str]) -> ShownItem:
    from vitrail.evaluation.report import ShownItem

    row = dataset.items.row(dataset.item_ids.code(item), named=True)
    note = row["category"] + (", taken later" if item in later else "")
    image = dataset.image_root / row["image"] if row.get("image") else None
    return ShownItem(item=item, title=row["title"], price=row["price"], image=image, note=note)


def directions(folder: Path, page: Path, best: str, user: str, had: Sequence[str]) -> list[str]:
    """The page and the next commands, as they can be typed here."""
    called = Path(sys.argv[0])
    vitrail = "vitrail" if shutil.which("vitrail") or called.name != "vitrail" else shlex.quote(str(called))
    place = shlex.quote(str(folder / "runs" / best))
    history = shlex.quote(",".join(had[-2:]))
    return [
        f"the page: {page}",
        f"{vitrail} recommend {place} --user {user} --filter 'price < 20'",
        f"{vitrail} recommend {place} --history {history}",
        f"{vitrail} similar {place} --item {shlex.quote(had[-1])}",
        f"{vitrail} serve {place}        (then http://127.0.0.1:8000/docs)",
    ]
