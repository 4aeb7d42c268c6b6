"""A small simulated shop, and a funnel file over it."""

import pytest

from vitrail.data.simulate import SimulatorSettings, simulate


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("funnel") / "shop", settings=SimulatorSettings(users=120, items=60, events=3000, pictures=False))


@pytest.fixture
def keys(shop):
    """The keys of a funnel file with two sources."""
    return {
        "funnel": "shop",
        "data": str(shop.path),
        "split": "temporal:rolling=true",
        "retrieve": [{"system": "item-knn", "k": 20}, {"system": "popular", "settings": {"half_life": 30}, "k": 10, "weight": 0.5}],
        "fuse": {"k": 25},
    }
