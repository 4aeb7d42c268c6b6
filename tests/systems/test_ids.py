"""Id tables, their graph, and people met after training."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.systems.base import Given, Sizes
from vitrail.systems.ids import fold, folding, id_graph, id_tables
from vitrail.systems.skeletons import TwoTower

LOG = Log(np.array([0, 2, 2, 3]), np.array([0, 1, 1], dtype=np.int32), 3)
GIVEN = Given.of(LOG, Needs(given=("interactions",)))


def test_tables_and_graph() -> None:
    class Host(nn.Module):
        pass

    host = Host()

    class Config(TwoTower.Config):
        init: str = "normal"
        init_scale: float = 3.0

    torch.manual_seed(0)
    id_tables(host, Config(dim=50), Sizes(3, 3), GIVEN)
    id_graph(host, Sizes(3, 3), GIVEN)
    assert host.users.shape == (3, 50) and not host.users[1].any() and host.users[0].any()
    assert 2.5 < float(host.items.detach().std()) < 3.5
    assert host.degrees.tolist() == [1.0, 2.0, 1.0] and host.adjacency.shape == (6, 6)
    assert not host.state_dict().keys() & {"adjacency", "degrees"}, "the graph is given, not saved"


def test_folding_by_hand() -> None:
    below = [torch.arange(5.0)[:, None], torch.ones(5, 1)]  # two users, three items
    sent = folding(below, 2, torch.tensor([1.0, 4.0, 1.0]), 3)
    torch.testing.assert_close(sent, torch.tensor([[1.0], [2 / 3], [5 / 3]]))
    histories = Sets(torch.tensor([-1, -1]), torch.tensor([0, 2, 2]), torch.tensor([0, 2]))
    torch.testing.assert_close(fold(sent, histories), torch.tensor([[(1 + 5 / 3) / 2**0.5], [0.0]]))
