"""Fresh: newest first events, an event too few comes last."""

import numpy as np
import pytest
import torch

from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes
from vitrail.systems.registry import find


def scores(least):
    cls = find("fresh")
    log = Log(np.array([0, 3, 5]), np.array([0, 1, 0, 2, 1], dtype=np.int32), 4, np.array([10, 20, 30, 40, 50]))
    model = cls(cls.Config(least=least), Sizes(2, 4), Given())
    return model.fit(log)


def test_newest_first_event_first_and_items_without_one_last():
    found = scores(1)
    assert torch.argsort(-found).tolist() == [2, 1, 0, 3] and found[3] < 0


def test_items_nobody_took_twice_do_not_lead():
    found = scores(2)
    assert torch.argsort(-found).tolist() == [1, 0, 2, 3] and found[2] < 0


def test_it_needs_a_clock():
    from vitrail.data.schema import DatasetInfo
    from vitrail.errors import DataError

    with pytest.raises(DataError, match="clock times"):
        find("fresh").needs.check(DatasetInfo(name="x", order="none"), "fresh")
