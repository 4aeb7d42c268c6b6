"""doctor: every fact a bug report needs, no secret, and problems as sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vitrail import cli, doctor


def test_the_facts_are_there() -> None:
    facts = json.loads(CliRunner().invoke(cli.app, ["doctor", "--json"]).stdout)
    assert set(facts) == {"versions", "machine", "compute", "memory", "disk", "optional", "variables", "problems"}
    assert all(facts["versions"].values())
    assert facts["machine"]["usable_cores"] >= 1
    assert facts["compute"]["threads"] >= 1
    assert facts["compute"]["blas"]
    assert 0 < facts["memory"]["free_gib"] <= facts["memory"]["total_gib"]
    assert facts["disk"]["free_gib"] >= 0
    assert facts["optional"]["uvloop"]["there"] is True
    text = CliRunner().invoke(cli.app, ["doctor"]).stdout
    assert facts["versions"]["torch"] in text
    assert "usable cores" in text


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_TOKEN", "s3cret")
    monkeypatch.setenv("VITRAIL_API_KEY", "s3cret")
    monkeypatch.setenv("VITRAIL_DATA", "/data")
    monkeypatch.setenv("OTHER", "private")
    found = CliRunner().invoke(cli.app, ["doctor", "--json"]).stdout
    assert "s3cret" not in found
    assert "private" not in found
    variables = json.loads(found)["variables"]
    assert variables["VITRAIL_DATA"] == "/data"
    assert variables["VITRAIL_TOKEN"] == "(set, not shown)"


def test_problems_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: dict[str, Any] = {
        "versions": {"python": "3.11", "torch": None},
        "machine": {"usable_cores": 2},
        "compute": {"threads": 8},
        "memory": {"free_gib": 0.2},
        "disk": {"free_gib": 0.1, "folder": "/"},
    }
    problems = doctor._problems(facts)
    assert len(problems) == 4
    assert all(problem.endswith(".") for problem in problems)
    assert any("OMP_NUM_THREADS=2" in problem for problem in problems)
    monkeypatch.setattr(doctor, "_problems", lambda _: ["Mend this."])
    assert "problem: Mend this." in CliRunner().invoke(cli.app, ["doctor"]).stdout


def test_what_cannot_be_found_out_is_null(tmp_path: Path) -> None:
    assert doctor._disk(tmp_path / "absent")["free_gib"] is None
    assert doctor._version("no-such-package") is None
