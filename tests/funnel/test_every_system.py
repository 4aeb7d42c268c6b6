"""Every system of the registry takes its place in a funnel file by its name, is built, and answers for people it knows and people it does not."""

import pytest

from vitrail.funnel.build import run_funnel
from vitrail.funnel.file import FunnelFile
from vitrail.systems import registry
from vitrail.testing import checkerboard, quick
from vitrail.testing_rank import settings_of

OF_STAGE = {stage: [name for name in registry.names() if registry.card(name).stage == stage] for stage in ("retrieve", "rank")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return checkerboard(tmp_path_factory.mktemp("every") / "data", side=48)


def answers(data, folder, **stages):
    """Items for somebody known, and for a stranger with one event."""
    keys = {"funnel": "every", "data": str(data.path), "split": "temporal:rolling=true", "retrieve": [{"system": "popular", "k": 48}]} | stages
    funnel = run_funnel(FunnelFile.of(keys), folder)
    return [[row["item"] for row in funnel.answer(*who, 4)["items"]] for who in (("u1", None), (None, ["i 2"]))]


@pytest.mark.parametrize("name", OF_STAGE["retrieve"])
def test_a_source(name, data, tmp_path):
    own = {"system": name, "settings": quick(name, epochs=1), "k": 12}
    beside = {"system": "ease" if name == "popular" else "popular", "k": 12, "weight": 0.1}
    for page in answers(data, tmp_path / "out", retrieve=[own, beside]):
        assert len(page) == len(set(page)) == 4


@pytest.mark.parametrize("name", OF_STAGE["rank"])
def test_a_ranker(name, data, tmp_path):
    for page in answers(data, tmp_path / "out", rank={"system": name, "settings": settings_of(name, epochs=1)}):
        assert len(page) == len(set(page)) == 4
