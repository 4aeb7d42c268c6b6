"""What bench_live serves with --funnel can be read, and its table has a place."""

from __future__ import annotations

from pathlib import Path

from vitrail.funnel.file import read_funnel

ROOT = Path(__file__).parent.parent.parent


def test_the_funnel_has_every_stage_and_its_table_a_place() -> None:
    file = read_funnel(ROOT / "benchmarks" / "live.funnel.yaml")
    assert len(file.retrieve) == 5 and file.rank is not None and file.arrange is not None
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    for more in ("", " --funnel"):
        assert "<!-- end -->" in page.split(f"<!-- measured: bench_live{more} -->")[1]
