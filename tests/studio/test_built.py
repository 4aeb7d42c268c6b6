"""The built page in the package is that of the sources beside it; told without node."""

import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES, BUILT = ROOT / "studio", ROOT / "src" / "vitrail" / "serve" / "studio"
SINGLE = ("index.html", "package-lock.json", "package.json", "sources.ts", "tsconfig.json", "vite.config.ts")


def sources_hash() -> str:
    """As studio/sources.ts computes it."""
    inside = [file.relative_to(SOURCES).as_posix() for file in (SOURCES / "src").rglob("*") if file.is_file()]
    whole = hashlib.sha256()
    for name in sorted([*SINGLE, *inside]):
        whole.update(f"{name}\0{hashlib.sha256((SOURCES / name).read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


@pytest.mark.skipif(not SOURCES.is_dir(), reason="no sources of the studio beside this installation")
def test_the_built_page_is_not_stale():
    stamp = json.loads((BUILT / "sources.json").read_text(encoding="utf-8"))
    assert stamp["sha256"] == sources_hash(), "studio/ has changed since it was built: run make studio"


def test_the_page_names_nothing_from_elsewhere_and_stays_small():
    page = (BUILT / "index.html").read_text(encoding="utf-8")
    assets = list((BUILT / "assets").iterdir())
    assert sorted(file.suffix for file in assets) == [".css", ".js"]
    for file in assets:
        assert f"/studio/assets/{file.name}" in page
    style = next(file for file in assets if file.suffix == ".css").read_text(encoding="utf-8")
    assert "@import" not in style and "url(" not in style and "http" not in style
    assert not re.search(r"<script(?![^>]*\bsrc=)", page) and "<style" not in page, "the rule of the page allows no script or style inside it"
    assert "dangerouslySetInnerHTML" not in "".join(file.read_text(encoding="utf-8") for file in (SOURCES / "src").rglob("*.tsx"))
    assert sum(file.stat().st_size for file in assets) < 400_000
