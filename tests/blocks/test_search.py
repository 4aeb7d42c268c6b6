"""Searching long histories: every search against a loop over rows and events, and the checks of the SIM, ETA, SDIM and MUSE cards."""

import math

import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks.modality import UnitStore, to_int8
from vitrail.blocks.search import NEVER, BucketSums, Histogram, TwoStageSearch, best, multiplicities, newest_top, signs
from vitrail.data.batches import Windows


def world(n=9, seed=0):
    """Three windows over 20 events of n items, five rows."""
    g = torch.Generator().manual_seed(seed)
    items = torch.randint(0, n, (20,), generator=g)
    windows = Windows(items.int(), torch.tensor([0, 4, 12]), torch.tensor([12, 4, 20]), torch.tensor([0, 2, 1, 0, 2]))
    return items, windows, torch.randn(5, 4, generator=g), torch.randn(n, 4, generator=g)


def reference(scores, items, windows, top):
    """The definition, a row at a time: by score, then the newest."""
    found = []
    for b, w in enumerate(windows.of.tolist()):
        span = range(int(windows.starts[w]), int(windows.stops[w]))
        told = [(float(scores[b, items[e]]), e) for e in span if scores[b, items[e]] > NEVER]
        found.append(sorted(e for _, e in sorted(told, reverse=True)[:top]))
    return found


@pytest.mark.parametrize("top", [3, 50])
@pytest.mark.parametrize("how", ["hard", "dot", "cosine", "lsh"])
def test_a_search_is_a_loop_over_rows(how, top, monkeypatch):
    items, windows, query, keys = world()
    torch.manual_seed(0)
    search = TwoStageSearch(how, top, 4, bits=8)
    if how == "hard":
        query, keys = torch.tensor([0, 1, 2, 0, 1]), torch.arange(9) % 3
        scores = torch.where(query[:, None] == keys, 0.0, NEVER)
    elif how == "dot":
        scores = query @ keys.T
    elif how == "cosine":
        keys[2] = 0.0
        scores = F.cosine_similarity(query[:, None], keys[None], dim=2)
        scores[:, 2] = NEVER
    else:
        scores = -((query @ search.planes >= 0)[:, None] != (keys @ search.planes >= 0)).sum(2).float()
    found = [search(query, keys, items, windows)]
    monkeypatch.setattr("vitrail.blocks.search.CHUNK", 1)  # a row at a time
    found.append(search(query, keys, items, windows))
    for places, mask in found:
        assert [sorted(row[there].tolist()) for row, there in zip(places, mask, strict=True)] == reference(scores, items, windows, top)


def test_nothing_hangs_on_what_else_is_in_the_batch():
    items, windows, query, keys = world()
    search = TwoStageSearch("dot", 4)
    together, mask = search(query, keys, items, windows)
    for b in range(5):
        w = int(windows.of[b])
        one = Windows(windows.items, windows.starts[w : w + 1], windows.stops[w : w + 1], torch.tensor([0]))
        alone, there = search(query[b : b + 1], keys, items, one)
        assert sorted(alone[0][there[0]].tolist()) == sorted(together[b][mask[b]].tolist())
    none = Windows(windows.items, windows.starts, windows.stops, torch.zeros(0, dtype=torch.long))
    assert search(query[:0], keys, items, none)[0].shape == (0, 4)


def test_a_bias_of_places_counts():
    items, windows, _, _ = world()
    oldest = -torch.arange(12.0).expand(3, 12)
    places, mask = best(torch.zeros(5, 9), items, windows, 2, oldest)
    assert places[0].tolist() == [0, 1] and places[1].tolist() == [12, 13] and not mask[2].any()


def test_eta_finds_the_target_itself_and_recalls_more_with_more_bits():
    torch.manual_seed(0)
    keys = torch.randn(300, 16)
    items = torch.arange(300)
    windows = Windows(items.int(), torch.tensor([0]), torch.tensor([300]), torch.zeros(40, dtype=torch.long))
    query = keys[:40]
    exact, _ = TwoStageSearch("cosine", 20)(query, keys, items, windows)
    recalls = []
    for bits in (32, 64, 256):
        search = TwoStageSearch("lsh", 20, 16, bits)
        found, _ = search(query, keys, items, windows)
        assert all(b in found[b] for b in range(40))
        distance = (bits - signs(query, search.planes) @ signs(keys, search.planes).T) / 2
        assert float(distance[torch.arange(40), torch.arange(40)].abs().max()) == 0
        recalls.append(sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(found, exact, strict=True)) / 800)
    assert recalls[0] < recalls[1] < recalls[2]


def test_sdim_collides_as_often_as_the_angle_says():
    """60 degrees, 3 bits: (1 - 1/3)^3 = .296296."""
    torch.manual_seed(0)
    sums = BucketSums(2, hashes=6000, bits=3, normalise=False)
    pair = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
    a, b = sums.buckets(pair)
    assert float((a == b).float().mean()) == pytest.approx(8 / 27, abs=0.02)


def test_sdim_is_a_loop_over_hashes_and_events():
    items, windows, query, values = world()
    torch.manual_seed(0)
    for normalise in (False, True):
        sums = BucketSums(4, 3, 2, normalise=normalise)
        found = sums(query, values, multiplicities(items, windows, 9), windows.of)
        for b, w in enumerate(windows.of.tolist()):
            events = items[int(windows.starts[w]) : int(windows.stops[w])]
            same = sums.buckets(values[events]) == sums.buckets(query[b : b + 1])  # (T, hashes)
            each = torch.stack([values[events][same[:, h]].sum(0) for h in range(3)])
            torch.testing.assert_close(found[b], (F.normalize(each, dim=1) if normalise else each).mean(0))
    everything = BucketSums(4, 1, 0, normalise=False)(query, values, multiplicities(items, windows, 9), windows.of)
    torch.testing.assert_close(everything[0], values[items[:12]].sum(0))  # no bits: sum pooling


def test_a_histogram_of_cosines():
    histogram = Histogram()
    with torch.no_grad():
        histogram.weight.fill_(1.0)
    cosines = torch.tensor([[1.0, 0.95, 0.93, 0.05, 0.0, -0.31, 0.5]])
    mask = torch.arange(7)[None] < 6
    wanted = torch.zeros(22)
    wanted[20] = 1.386294
    wanted[[11, 10, 7]] = 0.693147
    torch.testing.assert_close(histogram(cosines, mask)[0].detach(), wanted)
    torch.testing.assert_close(histogram(cosines[:, [5, 4, 3, 2, 1, 0, 6]], mask), histogram(cosines, mask))


def test_a_byte_a_number_keeps_cosines():
    torch.manual_seed(0)
    values = torch.randn(20, 32) * torch.rand(20, 1) * 9
    mask = torch.arange(20) != 3
    small, whole = (UnitStore({"text": v, "image": v[:, :8].contiguous()}, {"text": mask, "image": mask}) for v in (to_int8(values), values))
    items = torch.arange(20)
    assert to_int8(values).dtype == torch.int8 and torch.equal(to_int8(values), to_int8(7 * values))
    assert float((small(items) @ small(items).T - whole(items) @ whole(items).T).abs().max()) < 0.02
    assert not small(items)[3].any() and float(small(items)[4].norm()) == pytest.approx(1.0) and small.width == 40


def test_a_window_whose_events_stand_in_a_row_is_read_in_place():
    torch.manual_seed(0)
    relevance, windows = torch.randn(4, 12), Windows(torch.zeros(9).int(), torch.tensor([0]), torch.tensor([9]), torch.zeros(4, dtype=torch.long))
    in_place, _ = best(relevance, torch.arange(3, 12), windows, 3)
    mixed, _ = best(relevance[:, torch.arange(11, -1, -1)], torch.arange(8, -1, -1), windows, 3)
    assert in_place.tolist() == mixed.tolist() == relevance[:, 3:].topk(3, dim=1).indices.tolist()


@pytest.mark.parametrize("top", [1, 7, 20])
@pytest.mark.parametrize("values", [3, 40, 1 << 20])
def test_the_largest_of_long_rows_are_found_without_looking_at_all(values, top):
    g = torch.Generator().manual_seed(values)
    scores = torch.randint(-values, values, (25, 1003), generator=g).float() / 7
    scores[3], scores[4, 5:] = NEVER, NEVER
    scores[5, ::2] = -0.0
    found, places = newest_top(scores, top)
    for row, at, told in zip(scores.tolist(), places.tolist(), found.tolist(), strict=True):
        wanted = sorted(range(1003), key=lambda place: (row[place], place), reverse=True)[:top]
        assert told == [row[place] for place in wanted]
        assert row[at[0]] == NEVER or sorted(place for place in at if row[place] > NEVER) == sorted(place for place in wanted if row[place] > NEVER)
    distinct = torch.stack([torch.randperm(1003, generator=g) for _ in range(4)]).float()
    assert newest_top(distinct, top, distinct=True)[0].tolist() == distinct.topk(top, dim=1).values.tolist()


def test_of_equals_the_newest_are_found():
    windows = Windows(torch.zeros(6).int(), torch.tensor([0]), torch.tensor([6]), torch.zeros(2, dtype=torch.long))
    relevance = torch.tensor([[0.3, 0.7], [1e-9, 2e-9]])
    places, _ = best(relevance, torch.tensor([0, 0, 1, 0, 0, 0]), windows, 3)
    assert [sorted(row) for row in places.tolist()] == [[2, 4, 5], [2, 4, 5]]


def test_bytes_multiplied_as_bytes_are_the_cosines_of_the_store(monkeypatch):
    torch.manual_seed(0)
    values, mask = torch.randn(20, 32), torch.arange(20) != 3
    a, b = torch.tensor([3, 0, 7]), torch.tensor([1, 3, 3, 19, 4])
    for given in (to_int8(values), values):
        store = UnitStore({"text": given, "image": given[:, :8].contiguous()}, {"text": mask, "image": torch.ones(20, dtype=torch.bool)})
        wanted = store(a) @ store(b).T
        for integers in (True, False):
            monkeypatch.setattr("vitrail.blocks.modality.INTEGERS", integers)
            product = store.products(a, b)
            torch.testing.assert_close(torch.cat([product(slice(0, 2)), product(slice(2, 3))]), wanted, atol=1e-6, rtol=1e-5)
