"""What can be checked of deploy/ without a container: paths, versions, users, and that the commands are ones the command line takes."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.specifiers import SpecifierSet

from vitrail.cli import app
from vitrail.serve.guard import OPEN

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) of the Dockerfile in order, comments left out and lines that go on put together."""
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def all_of(word: str) -> list[str]:
    return [rest for found, rest in instructions() if found == word]


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings that `vitrail WORDS` gives its verb; raises where the command line would refuse them."""
    monkeypatch.delenv("VITRAIL_TOKEN", raising=False)
    group: Any = typer.main.get_command(app)
    verb = group.commands[words[0]]
    return dict(verb.make_context(words[0], words[1:]).params)


def test_the_image_stands_on_one_pinned_python_that_vitrail_runs_on() -> None:
    (base,) = {line.split()[0] for line in all_of("FROM")}
    version = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-\w+", base)
    assert version is not None, "a patch version and a release of the system, not a tag that moves"
    assert SpecifierSet(PROJECT["requires-python"]).contains(version[1])


def test_what_is_copied_is_there_and_let_through() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    copied = {source for line in all_of("COPY") if not line.startswith("--from") for source in line.split()[:-1]}
    assert copied == kept and all((ROOT / source).exists() for source in copied)
    assert PROJECT["readme"] in copied and set(PROJECT["license-files"]) <= copied, "the build of the package reads them"
    assert not all_of("ADD")


def test_what_is_installed_is_pinned_and_named_in_the_project() -> None:
    installs = [line for line in all_of("RUN") if "pip install" in line]
    assert installs and all("--constraint /src/constraints.txt" in line for line in installs)
    extras = re.search(r"/src\[([\w,]+)\]", installs[-1])
    assert extras is not None and set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
    assert "torch" in installs[0] and "/cpu" in " ".join(all_of("ARG")), "without CUDA, unless it is asked for"


def test_it_runs_as_somebody_who_may_write_the_store_alone() -> None:
    words = [word for word, _ in instructions()]
    (user,) = all_of("USER")
    assert user not in ("root", "0") and words.index("USER") < words.index("ENTRYPOINT")
    assert any(f" {user}" in line and "useradd" in line for line in all_of("RUN"))
    (volume,) = all_of("VOLUME")
    store = next(line.partition("=")[2] for line in all_of("ENV") if line.startswith("VITRAIL_STORE="))
    assert Path(store).parent == Path(volume)
    assert not [line for line in all_of("ENV") + all_of("ARG") if re.search("TOKEN|SECRET|PASSWORD", line)], "no secret in a layer"


def test_the_command_is_one_the_command_line_takes_and_asks_for_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    words = json.loads(all_of("ENTRYPOINT")[0]) + json.loads(all_of("CMD")[0])
    assert words[0] in PROJECT["scripts"]
    told = parsed(words[1:], monkeypatch)
    assert told["host"] == "0.0.0.0" and told["tokens"] is not None, "open to other machines only with tokens"
    (check,) = all_of("HEALTHCHECK")
    route = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", check)
    assert route is not None and int(route[1]) == told["port"] == int(all_of("EXPOSE")[0]) and route[2] in OPEN


def test_the_unit_starts_a_command_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = dict(line.split("=", 1) for line in (ROOT / "deploy" / "vitrail.service").read_text(encoding="utf-8").splitlines() if "=" in line)
    words = shlex.split(lines["ExecStart"])
    told = parsed(words[1:], monkeypatch)
    assert Path(words[0]).name in PROJECT["scripts"] and told["tokens"] is not None and told["host"] == "127.0.0.1"
    assert str(told["store"]).startswith(f"/var/lib/{lines['StateDirectory']}/") and lines["User"] != "root"
    assert lines["ProtectSystem"] == "strict" and lines["NoNewPrivileges"] == "yes"
