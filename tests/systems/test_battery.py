"""Every registered system runs the whole battery: a new one needs no line here."""

import sys

import pytest

from vitrail.systems import registry
from vitrail.testing import CPU_SECONDS, battery, checkerboard
from vitrail.train.fit import fit


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory):
    """Lazy imports of the first fit are not the system's cost."""
    folder = tmp_path_factory.mktemp("warm")
    fit("bpr-mf", checkerboard(folder / "data"), settings={"epochs": 1}, split="leave-last-out", out=folder / "run", quiet=True)


@pytest.mark.parametrize("name", registry.names())
def test_battery(name, tmp_path):
    traced = sys.gettrace() is not None  # the tracer of the coverage gate costs half as much again
    battery(name, tmp_path, limit=CPU_SECONDS * (1.6 if traced else 1.0), say=print)
