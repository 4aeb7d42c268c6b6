"""SIM by the checks of its card that hand values allow."""

import numpy as np
import pytest
import torch

from vitrail.data.batchers_rows import gather
from vitrail.errors import SettingError
from vitrail.testing_rank import toy_ranker, toy_rows

LONG = {"long": 4, "length": 2, "chosen": 50, "activation": "relu"}


def batch_of(length=2, long=4, n=40, weights=False):
    return gather(toy_rows(n, weights), np.arange(n), length, long)


def test_sim_hard_with_one_category_is_attention_to_the_newest():
    model, batch = toy_ranker("sim", search="hard", category="category", **(LONG | {"chosen": 2})), batch_of()
    model.categories.fill_(2)
    look = model.look(batch)
    places, mask = model.search(*model._asked(look), look.events, look.windows)
    stops = look.windows.stops[look.windows.of]
    assert bool(((places == stops[:, None] - 1 - torch.arange(2)) | ~mask).all())
    with pytest.raises(SettingError, match='there is no "brand": name one of category, tags'):
        toy_ranker("sim", search="hard", category="brand")
    assert toy_ranker("sim", search="hard", category="tags").categories.tolist() == [2, 4] * 4
    with pytest.raises(SettingError, match="heads=3 does not divide"):
        toy_ranker("eta", heads=3)


def test_the_auxiliary_prediction_of_sim_reads_the_mean_of_score_times_event():
    model, batch = toy_ranker("sim", **LONG), batch_of()
    look = model.look(batch)
    rows = toy_rows(40)
    wanted = []
    for b in range(40):
        items = torch.from_numpy(rows.log.items[max(rows.starts[b], rows.stops[b] - 4) : rows.stops[b]].astype(np.int64))
        events = model.features.item(items)
        scores = model.of_event(events) @ model.of_target(look.target[b])
        pooled = (scores[:, None] * events).sum(0) / max(len(items), 1)
        wanted.append(model.foresees(torch.cat([look.target[b], pooled])[None])[0, 0])
    torch.testing.assert_close(model.auxiliary(look), torch.stack(wanted), atol=1e-5, rtol=1e-4)
    alone = toy_ranker("sim", auxiliary=0.0, **LONG)
    alone.load_state_dict(model.state_dict())
    both = model.loss(batch)
    torch.testing.assert_close(both, alone.loss(batch) + model.loss_of(model.auxiliary(look), batch))
