"""Sources: candidates that may be shown, by a system, by a date of the catalogue, through an index."""

import sys
import types
from datetime import date

import numpy as np
import polars as pl
import pytest
import torch

from vitrail.data.batches import Sets
from vitrail.errors import DataError, SettingError
from vitrail.evaluation.ranking import tie_ranks, top_k
from vitrail.funnel.sources import Ask, DateSource, IndexSource, SystemSource, block_for
from vitrail.testing import SIDE, checkerboard
from vitrail.train.fit import fit


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return checkerboard(tmp_path_factory.mktemp("data") / "board")


@pytest.fixture(scope="module")
def knn(data):
    return fit("item-knn", data, split="leave-last-out", quiet=True).recommender


def asked(recommender, users, **more):
    histories = recommender.known.histories(recommender.user_ids.encode(users))
    return Ask(histories, **{"seen": histories, **more})


def test_a_system_gives_what_it_would_recommend(knn):
    source = SystemSource("knn", knn, knn._ties)
    found = source.search(asked(knn, ["u1", "nobody", "u3"]), 5)
    assert found.codes.shape == (3, 5) and (found.codes[1] == -1).all() and source.personal
    for row, user in ((0, "u1"), (2, "u3")):
        assert knn.item_ids.decode(found.codes[row]) == knn.recommend(users=[user], k=5)["item"].to_list()


def test_filters_are_part_of_the_search(knn):
    source = SystemSource("knn", knn, knn._ties)
    allowed = torch.zeros(SIDE, dtype=torch.bool)
    allowed[:3] = True
    found = source.search(asked(knn, ["u1"], allowed=allowed, seen=None), 10)
    assert set(found.codes[0].tolist()) <= {0, 1, 2, -1} and (found.codes[0] >= 0).sum() == 3
    both = source.search(asked(knn, ["u1"], allowed=allowed), 10)
    assert (both.codes[0] >= 0).sum() <= 3


def test_items_without_evidence_are_no_candidates(knn):
    plain, above = (SystemSource("knn", knn, knn._ties, above=least).search(asked(knn, ["u1"], seen=None), SIDE) for least in (None, 0.0))
    assert (plain.codes >= 0).all() and (above.codes >= 0).sum() < SIDE and (above.scores[above.codes >= 0] > 0).all()


@pytest.mark.parametrize("above", [None, 8.0])
def test_one_order_for_everybody_is_the_search_of_each(data, knn, above):
    """Against the plain way: scores of everybody, masked, and their top k."""
    popular = fit("popular", data, split="leave-last-out", quiet=True).recommender
    source = SystemSource("popular", popular, popular._ties, above=above)
    allowed = torch.arange(SIDE) % 3 > 0
    for ask in (asked(knn, ["u1", "nobody", "u3"]), asked(knn, ["u1", "u2"], allowed=allowed), asked(knn, ["u1"], seen=None), asked(knn, [])):
        for k in (3, SIDE + 5):
            scores = popular.score(ask.histories)[0].float()
            scores = scores if above is None else scores.masked_fill(scores <= above, -torch.inf)
            codes, values = top_k(ask.mask(scores).contiguous(), k, popular._ties)
            found = source.search(ask, k)
            width = found.codes.shape[1]
            np.testing.assert_array_equal(found.codes, codes[:, :width].numpy())
            np.testing.assert_array_equal(found.scores, values[:, :width].numpy())
            assert (codes[:, width:] == -1).all()


def test_a_large_catalogue_is_asked_in_smaller_blocks():
    assert block_for(1000) == 256 and block_for(1_000_000) == 16 and block_for(10**9) == 1 and block_for(0) == 256


def test_dates_of_the_catalogue_and_nothing_from_the_future():
    items = pl.DataFrame({"item": ["a", "b", "c", "d"], "released": [date(2024, 1, 1), None, date(2024, 3, 1), date(2024, 2, 1)]})
    ties = tie_ranks(np.arange(4, dtype=np.uint64), 0)
    source = DateSource("new", items, "released", ties)
    two = Sets(torch.tensor([-1, -1]), torch.tensor([0, 0, 0]), torch.empty(0, dtype=torch.int64))
    found = source.search(Ask(two), 4)
    assert found.codes.tolist() == [[2, 3, 0, -1]] * 2 and not source.personal
    february = int(np.datetime64("2024-02-15").astype("datetime64[us]").astype(np.int64))
    now = np.array([february, february + 60 * 86_400_000_000])
    assert source.search(Ask(two, now=now), 2).codes.tolist() == [[3, 0], [2, 3]]
    with pytest.raises(DataError, match='Did you mean "released"'):
        DateSource("new", items, "release", ties)
    with pytest.raises(DataError, match="kind date"):
        DateSource("new", items, "item", ties)


class FakeIndex:
    """Searches by inner product, under the names the index room has."""

    metric = "ip"

    def __init__(self, vectors, ids, tells=True):
        self.vectors, self.names, self.filters, self.dim = vectors, np.array(ids, dtype=object), [], vectors.shape[1]
        if tells:
            self.ids = ids

    def search(self, queries, k, filter):
        self.filters.append(filter)
        scores = queries @ self.vectors.T
        if filter is not None:
            scores[:, ~(np.isin(self.names, filter.ids) if filter.mask is None else filter.mask)] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        values = np.take_along_axis(scores, order, axis=1)
        return types.SimpleNamespace(ids=np.where(np.isfinite(values), self.names[order], None), scores=values)


@pytest.mark.parametrize("tells", [True, False])
def test_an_index_is_searched_past_what_was_seen(knn, monkeypatch, tmp_path, tells):
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(SIDE, 4)).astype(np.float32), rng.normal(size=(3, 4)).astype(np.float32)
    order = rng.permutation(SIDE)  # an index has an order of its own
    fake = FakeIndex(vectors[order], [knn.item_ids.ids[int(code)] for code in order], tells)
    store = types.SimpleNamespace(open_index=lambda path: fake)
    base = types.SimpleNamespace(Filter=lambda ids=None, mask=None: types.SimpleNamespace(ids=ids, mask=mask))
    for name, module in (("vitrail.index", types.SimpleNamespace()), ("vitrail.index.store", store), ("vitrail.index.base", base)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(type(knn.model), "query_vectors", lambda self, histories: torch.from_numpy(queries[: len(histories)]), raising=False)
    monkeypatch.setattr(type(knn.model), "item_vectors", lambda self: torch.from_numpy(vectors), raising=False)
    source = IndexSource("knn", knn, tmp_path)
    ask = asked(knn, ["u1", "nobody", "u3"])
    found = source.search(ask, 6)
    scores = ask.mask(torch.from_numpy(queries[[0, 0, 1]] @ vectors.T))  # the stranger is not asked about
    for row in (0, 2):
        assert found.codes[row].tolist() == scores[row].topk(6).indices.tolist()
    assert (source.search(asked(knn, ["nobody"]), 6).codes == -1).all()
    assert (found.codes[1] == -1).all()
    allowed = torch.arange(SIDE) < 4
    kept = source.search(Ask(ask.histories, allowed), 10)
    assert set(kept.codes[0].tolist()) == {0, 1, 2, 3, -1}
    fake.metric = "cosine"
    with pytest.raises(SettingError, match="needs ip over 4"):
        IndexSource("knn", knn, tmp_path)


def test_an_index_needs_vectors_and_the_index_room(knn, monkeypatch, tmp_path):
    with pytest.raises(SettingError, match="no inner products"):
        IndexSource("knn", types.SimpleNamespace(model=object(), name="popular"), tmp_path)
    monkeypatch.setattr(type(knn.model), "item_vectors", lambda self: torch.zeros(SIDE, 2), raising=False)
    monkeypatch.setitem(sys.modules, "vitrail.index.store", None)
    with pytest.raises(SettingError, match="this installation has none"):
        IndexSource("knn", knn, tmp_path)
