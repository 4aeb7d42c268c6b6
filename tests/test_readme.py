"""The README and CONTRIBUTING are run: every command, every Python block, every link; their tables equal the recipes and benchmark results.

`python tests/test_readme.py` writes the tables anew.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from vitrail.recipes import Recipe, read_all
from vitrail.systems import registry

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(?:<!-- (run|file): (\S+) -->\n)?```(bash|python|toml|text|yaml|json)\n(.*?)```", re.DOTALL)
STAGES = ("retrieve", "rank", "arrange", "explore")
TOP = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = [*(ROOT / name for name in (*TOP, "benchmarks/README.md")), *sorted((ROOT / "docs").glob("*.md"))]
RUN = [ROOT / name for name in (*TOP, "docs/data.md", "docs/protocol.md")]
"""Of these every command is run."""


def blocks(page: Path, mark: str) -> list[tuple[str, str]]:
    """(language, text) of the blocks of `page` under `<!-- run: mark -->`."""
    return [(language, text) for kind, name, language, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == "run" and name == mark]


def run_block(language: str, text: str, place: Path) -> str:
    """Run a block inside `place`, as a person would type it: `vitrail` in this process, for speed. Returns what it printed."""
    from typer.testing import CliRunner

    from vitrail.cli import app

    if language == "python":
        exec(compile(text, "README.md", "exec"), {})
        return ""
    told = []
    for line in text.strip().replace("\\\n", " ").splitlines():
        words = [os.path.expandvars(word) for word in shlex.split(line, comments=True)]
        assert words[0] == "vitrail", f"only vitrail commands are run here: {line}"
        result = CliRunner().invoke(app, words[1:], prog_name="vitrail")
        assert result.exit_code == 0, f"{line}\n{result.output}"
        told.append(result.output)
    return "\n".join(told)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The walk through the README on simulated data, block after block; (place, what it printed)."""
    place = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for kind, name, _, text in BLOCK.findall(README.read_text(encoding="utf-8")):
            if kind == "file":
                (place / name).write_text(text, encoding="utf-8")
        told = "\n".join(run_block(language, text, place) for language, text in blocks(README, "simulated"))
    return place, told


def test_the_walk_on_simulated_data_works(walked):
    place, told = walked
    made_by_fit = ("runs/sasrec/artifact/manifest.json", "runs/window/funnel.json", "model/manifest.json")
    for made in ("shop/rejects.parquet", "shop-plots", "sasrec.html", "recs.parquet", *made_by_fit):
        assert (place / made).exists(), f"the walk did not make {made}"
    assert "95 % interval" in told and "popularity:tail" in told and '"fallback": null' in told
    assert "For user u001, by sasrec" in told and "8,000 recommendations for 800 users" in told


def test_the_service_of_the_readme_answers(walked):
    ((_, command),) = blocks(README, "serve")
    ((_, asked),) = blocks(README, "ask")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = shlex.split(command.replace("8000", port))
    service = subprocess.Popen([sys.executable, "-c", "from vitrail.cli import main; main()", *words[1:]], cwd=walked[0], stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", service)
        for line in asked.strip().splitlines():
            url, headers, data = curl(line.replace("8000", port))
            answer = json.load(urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20))
            assert len(answer["items"]) == 3 and answer["fallback"] is None
    finally:
        service.terminate()
        assert service.wait(20) == 0


def wait_for(url: str, service: subprocess.Popen[bytes]) -> None:
    """Until `url` answers; at most a minute."""
    for _ in range(600):
        assert service.poll() is None, "the service ended"
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def curl(line: str) -> tuple[str, dict[str, str], bytes | None]:
    """(address, headers, body) of a curl command."""
    words = iter(shlex.split(line)[1:])
    url, headers, data = "", {}, None
    for word in words:
        if word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            data = next(words).encode()
        else:
            url = word
    return url, headers, data


@pytest.mark.data
def test_the_walk_on_real_data_works(tmp_path, monkeypatch):
    home = Path(os.environ.get("VITRAIL_DATA") or ROOT.parent / "shared" / "data").resolve()
    if not all((home / name).is_dir() for name in ("ml-100k", "amazon-beauty-2014", "amazon-phones-text")):
        pytest.skip("MovieLens 100K, Amazon Beauty and Amazon Phones are not under VITRAIL_DATA")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITRAIL_DATA", str(home))
    told = "\n".join(run_block(language, text, tmp_path) for language, text in blocks(README, "data"))
    values = [float(value) for value in re.findall(r"ndcg@10 +([.\d]+)", told.replace("validation", ""))]
    assert all(f"{events} events" in told for events in ("100,000", "198,502", "194,439")) and len(values) >= 3
    assert "by item-knn" in told


def test_every_block_is_run_or_said_not_to_be():
    known = {("run", name) for name in ("setup", "simulated", "serve", "ask", "data", "plugin")} | {("file", "my.py")}
    for page in RUN:
        for kind, name, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            assert language not in ("bash", "python") or (kind, name) in known, f"{page.name}: nothing runs {text[:80]!r}"


def test_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_commands_named_in_the_pages_exist():
    import typer.main

    from vitrail.cli import app

    command = typer.main.get_command(app)
    verbs = set(command.commands) | {f"data {name}" for name in command.commands["data"].commands}
    for page in PAGES:
        for first, second in re.findall(r"[`\n]vitrail ([a-z]+)(?: ([a-z]+))?", page.read_text(encoding="utf-8")):
            assert (f"data {second}" if first == "data" else first) in verbs, f"{page.name} names vitrail {first} {second}"
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"[`\n]make ([a-z]+)", page.read_text(encoding="utf-8")):
            assert target in targets, f"{page.name} names make {target}"


# the system of CONTRIBUTING.md


@pytest.fixture
def forget():
    """Systems registered by a test are forgotten after it."""
    from vitrail.systems.base import _REGISTRY

    registry.names()
    before = dict(_REGISTRY)
    yield
    _REGISTRY.clear()
    _REGISTRY.update(before)


def test_the_system_of_contributing_works(tmp_path, monkeypatch, forget):
    page = ROOT / "CONTRIBUTING.md"
    ((_, text),) = [(name, text) for kind, name, _, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == "file"]
    assert len(text.splitlines()) <= 32
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(text)
    from vitrail.data.simulate import SimulatorSettings, simulate

    simulate("shop", settings=SimulatorSettings(users=150, items=80, events=3000, pictures=False))
    told = "\n".join(run_block(language, text, tmp_path) for language, text in blocks(page, "plugin"))
    assert "history-mean" in told and "ndcg@10" in told
    ours = float(re.findall(r"ndcg@10 +([.\d]+) +[.\d]+ to", told)[0])
    simulated_floor = 0.02  # 10 of 80 items drawn blindly
    assert ours > simulated_floor


# tables


def paper_of(card: Any) -> str:
    """The name, linked to its paper."""
    if not card.paper:
        return f"`{card.name}`"
    return f"[`{card.name}`](https://{'arxiv.org/abs' if re.fullmatch(r'[0-9]+[.][0-9]+', card.paper) else 'doi.org'}/{card.paper})"


def families_table() -> str:
    """One row a family: its systems, those that are reconstructions or drafts marked."""
    rows = [["stage", "family", "systems"], ["---"] * 3]
    cards = sorted(registry.cards(), key=lambda card: (STAGES.index(card.stage), card.family, card.name))
    for (stage, family), own in itertools.groupby(cards, key=lambda card: (card.stage, card.family)):
        names = (paper_of(card) + {"reconstruction": " (reconstruction)", "draft": " (draft)"}.get(card.status, "") for card in own)
        rows.append([stage, family, ", ".join(names)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def systems_table(recipes: list[Recipe]) -> str:
    """One row a measured recipe, and a line that names the others."""
    head = ["system", "data", "split", "metric", "published", "ours", "recipe"]
    rows, pending = [head, ["---"] * len(head)], []
    for recipe in sorted(recipes, key=lambda recipe: (recipe.system, recipe.name)):
        numbers = _numbers(recipe)
        if numbers[4] == "pending":
            pending.append(f"[{recipe.name}](recipes/{recipe.name}.yaml)")
        else:
            rows.append([f"`{recipe.system}`", *numbers])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return table + (f"\n\nWritten and not measured yet: {', '.join(pending)}." if pending else "")


def _numbers(recipe: Recipe) -> list[str]:
    metric = next((name for name in (*recipe.accept, *(n for row in recipe.published for n in row.metrics)) if name in recipe.metrics), recipe.metrics[0])
    published = next((f"{row.metrics[metric]:.4f}" for row in recipe.published if metric in row.metrics), "")
    ours = "pending"
    if recipe.measured is not None and recipe.status != "stale" and metric in recipe.measured.metrics:
        spread = recipe.measured.metrics[metric]
        ours = f"{spread.mean:.4f}" + (f" ± {spread.sd:.4f}" if spread.sd is not None else "")
    return [recipe.data.name, recipe.cut, metric, published, ours, f"[{recipe.name}](recipes/{recipe.name}.yaml)"]


def speed_table(folder: Path) -> str:
    """One row a goal of a benchmark."""
    rows = [["what", "goal", "measured", "command"], ["---"] * 4]
    for file in sorted(folder.glob("*.json")):
        if file.stem == "peers":  # they have a table of their own
            continue
        record = json.loads(file.read_text(encoding="utf-8"))
        rows += [[goal["what"], str(goal["goal"]), f"{goal['measured']:.4g}", f"`{record['command']}`"] for goal in record.get("goals", [])]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def peers_table(file: Path) -> str:
    """One row a peer's model, as benchmarks/peers/page.py writes it; nothing where the bench beside the peers was never run."""
    if not file.exists():
        return ""
    spec = importlib.util.spec_from_file_location("peers_page", ROOT / "benchmarks" / "peers" / "page.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    return page.short(json.loads(file.read_text(encoding="utf-8")))


def with_tables(text: str) -> str:
    """`text` with the tables between its marks written anew; the table of the peers only where its mark is."""
    results = ROOT / "benchmarks" / "results"
    tables = {"families": families_table(), "systems": systems_table(read_all(ROOT / "recipes")), "speed": speed_table(results)}
    tables["peers"] = peers_table(results / "peers.json")
    for name, table in tables.items():
        begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
        before, _, rest = text.partition(begin)
        if name == "peers" and not rest:
            continue
        assert rest, f"README.md lacks the mark {begin.strip()}"
        text = f"{before}{begin}{table}\n{end}{rest.partition(end)[2]}"
    return text


def test_tables_of_the_readme_are_up_to_date(forget):
    text = README.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run `make readme`: the tables of README.md differ from recipes/, benchmarks/results/ or the systems there are"


def test_the_table_of_the_peers_is_written_only_where_its_mark_is(tmp_path):
    begin, end = "<!-- begin: peers -->\n", "<!-- end: peers -->"
    before, _, rest = README.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    table = peers_table(ROOT / "benchmarks" / "results" / "peers.json")
    assert f"{begin}{table}\n{end}" in with_tables(f"{before}{begin}old\n{end}{after}")
    assert "begin: peers" not in with_tables(before + after)
    assert peers_table(tmp_path / "none.json") == ""



if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
