"""What rankers with a history have in common, and those that search: padding, ties, windows, the quick way for one person."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitrail.blocks.interest import RelativeTime
from vitrail.data.batchers_rows import gather
from vitrail.data.batches import Windows
from vitrail.testing_rank import toy_ranker, toy_rows

LONG = {"long": 4, "length": 2, "chosen": 50, "activation": "relu"}
SEARCHING = ["sim", "eta", "sdim", "dare", "muse"]
SLOTS = [("sim", {"search": "hard", "product": False}), ("eta", {"attention": "mlp"})]


def batch_of(length=2, long=4, n=40, weights=False):
    return gather(toy_rows(n, weights), np.arange(n), length, long)


def more_padding(batch):
    """Twice the windows: the second half belongs to nobody and makes the first be padded."""
    long = batch.long
    events = torch.cat([long.items, long.items.repeat(5)])
    wide = replace(long, items=events, starts=torch.cat([long.starts, torch.tensor([0])]), stops=torch.cat([long.stops, torch.tensor([len(events)])]))
    wide = replace(wide, signals=None if long.signals is None else torch.cat([long.signals, long.signals.repeat(5)]))
    return replace(batch, long=wide)


@pytest.mark.parametrize("name", SEARCHING)
def test_padding_of_windows_changes_nothing(name):
    model, batch = toy_ranker(name, **LONG), batch_of()
    torch.testing.assert_close(model.logit(more_padding(batch)), model.logit(batch))
    hard = toy_ranker("sim", search="hard", **LONG)
    torch.testing.assert_close(hard.logit(more_padding(batch)), hard.logit(batch))


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in SEARCHING), ("sim", {"search": "hard"}), ("dare", {"decoupled": False})])
def test_they_train_and_answer_without_events(name, settings):
    model = toy_ranker(name, signal=True, **(LONG | settings)).train()
    model.loss(batch_of(weights=True)).backward()
    assert bool(torch.isfinite(model.features.of_items.weight.grad).all()) and model.features.of_items.weight.grad.any()
    batch = batch_of()
    nobody = replace(batch, mask=torch.zeros_like(batch.mask), long=replace(batch.long, stops=batch.long.starts))
    assert bool(torch.isfinite(model.eval().logit(nobody)).all())


@pytest.mark.parametrize(("name", "settings"), [("sim", {}), ("sim", {"search": "hard"}), ("eta", {})])
def test_with_as_many_chosen_as_events_a_search_is_attention_over_the_window(name, settings):
    """Of the soft and the hashed search all events; of the hard one those of the target's category."""
    model, batch = toy_ranker(name, **(LONG | settings)), batch_of()
    look = model.look(batch)
    asked = model._asked(look) if name == "sim" else (look.target, look.values)
    places, mask = model.search(*asked, look.events, look.windows)
    found = model.found(model.long, batch, look, places, mask, model.ago)
    rows = toy_rows(40)
    for b in range(40):
        span = np.arange(max(rows.starts[b], rows.stops[b] - 4), rows.stops[b])
        items = torch.from_numpy(rows.log.items[span].astype(np.int64))
        if settings:
            keep = items % 2 == int(batch.items[b]) % 2
            items, span = items[keep], span[keep.numpy()]
        events = model.features.item(items)[None]
        if model.ago is not None:
            events = events + model.ago(torch.from_numpy(rows.stops[b] - span))[None]
        wanted = model.long(look.target[b : b + 1], events, torch.ones(1, len(items), dtype=torch.bool))
        torch.testing.assert_close(found[b : b + 1], wanted, atol=1e-5, rtol=1e-4)


def test_windows_and_clocks_of_found_events():
    model, batch = toy_ranker("sim", **LONG), batch_of()
    places, _ = batch.long.places()
    assert isinstance(batch.long, Windows) and places.shape[1] == 4
    interval = RelativeTime("interval", 4, 12, 1.0)
    assert (model.gap(interval, batch, torch.zeros(40, 2, dtype=torch.long)) == 33).all()  # no clock, so nobody knows
    timed = replace(batch, now=torch.full((40,), 5_000_000), long=replace(batch.long, times=torch.full_like(batch.long.items, 2_000_000, dtype=torch.long)))
    assert (model.gap(interval, timed, torch.zeros(40, 2, dtype=torch.long)) == 3).all()


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in [*SEARCHING, "hcn", "diffumin"]), *SLOTS])
def test_one_persons_candidates_are_answered_as_rows_of_many(name, settings):
    """A single window takes the quick way: events in a row, nothing looked up but what is chosen, keys of the newest events made once."""
    kept = {key: value for key, value in LONG.items() if key in type(toy_ranker(name)).Config.model_fields}
    model = toy_ranker(name, signal=True, **(kept | settings))
    rows = toy_rows(40, weights=True)
    person = np.flatnonzero(rows.users == rows.users[np.argmax(rows.stops - rows.starts)])
    alone = model.logit(gather(rows, person, 2, 4))
    assert len(gather(rows, person, 2, 4).long.starts) == 1
    together = model.logit(gather(rows, np.arange(40), 2, 4))[person]
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)
