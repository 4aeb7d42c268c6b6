"""SIM, ETA, SDIM, DARE, MUSE and QIN by the checks of their cards that hand values allow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks.interest import RelativeTime, TargetAttention
from vitrail.blocks.quadratic import QuadraticNet
from vitrail.data.batchers_rows import gather
from vitrail.data.batches import Windows
from vitrail.errors import SettingError
from vitrail.systems.ranking.muse import ToldAttention
from vitrail.testing_rank import toy_ranker, toy_rows

LONG = {"long": 4, "length": 2, "chosen": 50, "activation": "relu"}
SEARCHING = ["sim", "eta", "sdim", "dare", "muse"]


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


def test_dare_scales_item_and_time_apart():
    """q = [1, 1], k = [2, 0]; time q = [1], k = [3]: 2 / sqrt 2 + 3."""
    model, batch = toy_ranker("dare", search_dim=1, **LONG), batch_of()
    look = model.look(batch)
    with torch.no_grad():
        model.deciding_ago.weight.fill_(3.0)
        model.deciding_ago.weight[0] = 1.0
    model.deciding.item = lambda items: torch.tensor([[1.0, 1.0], [2.0, 0.0]])[[0] + [1] * (len(items) - 1)]
    semantic, time = model.weighed(replace(look, at=torch.zeros_like(look.at)))
    assert (semantic[0, 1] + time[1]).item() == pytest.approx(4.414214, abs=1e-6)


def test_dare_with_one_set_of_tables_is_twin_and_its_gradient_the_sum():
    batch = batch_of()
    apart, one = toy_ranker("dare", search_dim=4, **LONG), toy_ranker("dare", decoupled=False, **LONG)
    one.load_state_dict({key: value for key, value in apart.state_dict().items() if not key.startswith("deciding")})
    known = apart.deciding.state_dict()
    same = {key: value for key, value in apart.features.state_dict().items() if key in known and value.shape == known[key].shape}
    assert {"of_items.weight", "of_lists.0.weight"} <= same.keys()
    apart.deciding.load_state_dict(same, strict=False)
    apart.deciding_ago.load_state_dict(apart.ago.state_dict())
    torch.testing.assert_close(apart.logit(batch), one.logit(batch))
    apart.loss(batch).backward()
    one.loss(batch).backward()
    both = apart.features.of_items.weight.grad + apart.deciding.of_items.weight.grad
    torch.testing.assert_close(one.features.of_items.weight.grad, both, atol=1e-7, rtol=1e-4)


def test_dare_learns_what_matters_and_what_it_means_apart():
    """Values give no gradient to the tables that decide, weights none to those that tell."""
    model, batch = toy_ranker("dare", **LONG), batch_of()
    look = model.look(batch)
    semantic, time = model.weighed(look)
    model.chosen(look, semantic.detach(), time.detach()).sum().backward(retain_graph=True)
    assert model.deciding.of_items.weight.grad is None and model.features.of_items.weight.grad.any()
    model.zero_grad()
    model.chosen(replace(look, item=lambda codes: model.features.item(codes).detach()), semantic, time).sum().backward()
    assert model.deciding.of_items.weight.grad.any() and model.features.of_items.weight.grad is None


def test_dare_with_as_many_chosen_as_events_has_one_stage():
    model, batch = toy_ranker("dare", **LONG), batch_of()
    look = model.look(batch)
    told = model.weighed(look)
    torch.testing.assert_close(model.chosen(look, *told), model.everything(look, *told), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("b", "wanted"), [((1, 1, 1), [0.017986, 0.982014]), ((1, 0, 0), [0.731059, 0.268941]), ((0, 1, 0), [0.000911, 0.999089])])
def test_attention_that_is_told_cosines(b, wanted):
    attention = ToldAttention(2)
    with torch.no_grad():
        attention.b.copy_(torch.tensor(b, dtype=torch.float32))
    told = attention.told(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.2, 0.9]]))
    torch.testing.assert_close(torch.softmax(told, 1)[0].detach(), torch.tensor(wanted), atol=1e-6, rtol=0)


def test_muse_told_nothing_attends_and_finds_what_is_alike():
    attention, q, k = ToldAttention(4), torch.randn(3, 4), torch.randn(3, 5, 4)
    with torch.no_grad():
        attention.b.copy_(torch.tensor([1.0, 0, 0]))
    mask = torch.arange(5) < torch.tensor([[5], [3], [0]])
    weights = torch.softmax((attention.of_key(k) @ attention.of_query(q)[:, :, None])[:2, :, 0].masked_fill(~mask[:2], -1e9), 1)
    torch.testing.assert_close(attention(q, k, mask, torch.rand(3, 5))[:2], (weights[:, :, None] * attention.of_value(k)[:2]).sum(1))
    assert not attention(q, k, mask, torch.rand(3, 5))[2].any()
    model = toy_ranker("muse", **(LONG | {"chosen": 1}))
    batch = batch_of()
    units = model.frozen(torch.arange(8))
    assert model.frozen.kinds == 2 and model.frozen.get_buffer("values_0").shape == (8, 12)
    cosines = (units @ units.T)[batch.items]
    look = model.look(batch)
    from vitrail.blocks.search import best

    places, mask = best(cosines[:, look.items], look.events, look.windows, 1)
    for b in np.flatnonzero(mask[:, 0].numpy()):
        w = int(batch.long.of[b])
        window = batch.long.items[int(batch.long.starts[w]) : int(batch.long.stops[w])].long()
        assert float(cosines[b, batch.long.items[places[b, 0]].long()]) == pytest.approx(float(cosines[b, window].max()))


def test_a_quadratic_layer():
    """x = [1, 2], W1 = I, W2 swaps: h = [[1, 2], [2, 1]], y = [3, 6]; so does one matrix W1 + W2; scaling x by c scales y by c^2."""
    net = QuadraticNet(2, 1, 2, norm=False)
    with torch.no_grad():
        net.maps[0].weight.copy_(torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0]]))
        net.maps[0].bias.zero_()
    x = torch.tensor([[1.0, 2.0]])
    assert net.product(0, x).tolist() == [[3, 6]] and net.product(0, 3 * x).tolist() == [[27, 54]]
    single = QuadraticNet(2, 1, 1, norm=False)
    with torch.no_grad():
        single.maps[0].weight.fill_(1.0)
        single.maps[0].bias.zero_()
    assert single.product(0, x).tolist() == [[3, 6]] and net(x).tolist() == [[4, 8]]


def test_sparse_attention():
    """s = [2, -1, .5] over [1, 0], [0, 1], [1, 1] is [2.5, .5]; scores of 0 and less leave the target alone."""
    attention = TargetAttention(2, "multihead", "relu", inner=2)
    with torch.no_grad():
        for layer in (attention.of_query, attention.of_key, attention.of_value, attention.out):
            layer.weight.copy_(torch.eye(2))
    events, mask = torch.tensor([[[1.0, 0], [0, 1], [1, 1]]]), torch.ones(1, 3, dtype=torch.bool)
    weights = torch.tensor([2.0, -1.0, 0.5])
    attention.scores = lambda *_: weights[:, None]
    torch.testing.assert_close(attention(torch.ones(1, 2), events, mask), torch.tensor([[2.5, 0.5]]))
    weights = -torch.ones(3)
    assert not attention(torch.ones(1, 2), events, mask).any()


@pytest.mark.parametrize("vectors", [(), ("text",)])
def test_qin_without_a_history_reads_the_target(vectors):
    model = toy_ranker("qin", vectors=vectors, attention_dim=6, layers=2)
    batch = batch_of()
    target, summed = model.attended(batch)
    empty = ~batch.mask.any(1)
    assert torch.equal(summed[empty], target[empty]) and target.shape[1] == 12 + 4 * len(vectors)
    model.train().loss(batch).backward()
    assert all(p.grad is not None for p in model.attention.parameters())
    padded = replace(batch, history=F.pad(batch.history, (0, 2)), mask=F.pad(batch.mask, (0, 2)))
    torch.testing.assert_close(model.eval().logit(padded), model.logit(batch))


def test_windows_and_clocks_of_found_events():
    model, batch = toy_ranker("sim", **LONG), batch_of()
    places, _ = batch.long.places()
    assert isinstance(batch.long, Windows) and places.shape[1] == 4
    interval = RelativeTime("interval", 4, 12, 1.0)
    assert (model.gap(interval, batch, torch.zeros(40, 2, dtype=torch.long)) == 33).all()  # no clock, so nobody knows
    timed = replace(batch, now=torch.full((40,), 5_000_000), long=replace(batch.long, times=torch.full_like(batch.long.items, 2_000_000, dtype=torch.long)))
    assert (model.gap(interval, timed, torch.zeros(40, 2, dtype=torch.long)) == 3).all()


SLOTS = [("sim", {"search": "hard", "product": False}), ("eta", {"attention": "mlp"})]


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
