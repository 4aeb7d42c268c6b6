"""Every registered system runs the whole battery: a new one needs no line here."""

import pytest

from vitrail.systems import registry
from vitrail.testing import battery, checkerboard
from vitrail.train.fit import fit


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory):
    """Lazy imports of the first fit are not the system's cost."""
    folder = tmp_path_factory.mktemp("warm")
    fit("bpr-mf", checkerboard(folder / "data"), settings={"epochs": 1}, split="leave-last-out", out=folder / "run", quiet=True)


@pytest.mark.parametrize("name", registry.names())
def test_battery(name, tmp_path):
    battery(name, tmp_path, say=print)
