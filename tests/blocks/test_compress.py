"""Vectors of codes in less memory: the checks of the cards of Unified Embedding and of embedding compression."""

import numpy as np
import pytest
import torch

from vitrail.blocks.compress import Multiplexed, Pool, Quotients, Rows, Storage, Store, folded, hashed, mixed_dims, polynomial, remainders
from vitrail.blocks.features import FeatureEmbedding, ListTable, StoredTable
from vitrail.errors import SettingError

KINDS = ["hash", "qr", "low_rank", "multi_size", "unified"]
N = 2000


def embedding(storage, dim=8):
    """Items with an id, a category of 300 values and one of 5; tags; users with an id; an event field of 10 codes."""
    torch.manual_seed(0)
    places = torch.arange(N)
    items, tags = torch.stack([places + 2, places % 300 + 2, places % 5 + 2], 1).int(), torch.stack([places % 500 + 2, torch.zeros(N).long()], 1).int()
    users = torch.arange(101)[:, None].int() + 1
    return FeatureEmbedding(
        dim, items=items, item_sizes=[N + 2, 302, 7], lists={"tags": tags}, list_sizes=[502], users=users, user_sizes=[102], event_sizes=[10],
        storage=storage, scale=0.1,
    )  # fmt: skip


def test_the_hash_is_its_polynomial_and_a_function_of_the_seed():
    c = polynomial(3, 1)
    values = torch.arange(1000)
    wanted = [(((c[0] * x + c[1]) * x + c[2]) * x + c[3]) % (2**31 - 1) % 77 for x in range(1000)]
    assert hashed(values, c, 77).tolist() == wanted
    assert polynomial(3, 1) == c != polynomial(3, 2) and len(set(c)) == 4
    tuples = torch.tensor([[1, 2], [2, 1], [1, 3]])
    assert folded(tuples, 10).tolist() == [12, 21, 13]


def test_as_many_rows_are_used_as_chance_says():
    """n = M = 100,000: M (1 - (1 - 1/M)^n), 63.2 % of the rows; a pair collides with chance 1/M."""
    for seed in range(3):
        used = len(torch.unique(hashed(torch.arange(100_000), polynomial(seed), 100_000)))
        assert abs(used / 100_000 - 0.632) < 0.01
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.integers(0, 10**6, 10**6)) for _ in range(2))
    together = int((hashed(a, polynomial(7), 1000) == hashed(b, polynomial(7), 1000))[a != b].sum())
    assert abs(together - 1000) < 5 * 1000**0.5


def test_with_a_row_a_value_hash_and_quotients_are_a_plain_table():
    values = torch.arange(50)
    table = Rows(50, 50, 4, 4, 1.0, 0)
    assert torch.equal(table(values), table.weight) and table.coefficients is None and table.map is None
    for compose in ("multiply", "add"):
        qr = Quotients(50, 50, 4, 1.0, 0, compose)
        assert qr.r == 1 and torch.equal(qr(values), qr.quotient) and qr.remainder is None


def test_quotients_and_remainders_by_hand():
    qr = Quotients(10, 7, 2, 1.0, 0)
    assert qr.r == remainders(10, 7) == 2 and qr.quotient.shape == (5, 2) and qr.remainder.shape == (2, 2)
    torch.testing.assert_close(qr(torch.tensor(7)), qr.quotient[3] * qr.remainder[1])
    added = Quotients(10, 7, 2, 1.0, 0, "add")
    torch.testing.assert_close(added(torch.tensor([7])), (added.quotient[3] + added.remainder[1])[None])
    assert remainders(10_000, 200) == 100 and remainders(10_000, 199) is None
    few = Quotients(10_000, 20, 2, 1.0, 0)  # 20 rows name at most 100 values
    assert few.values == 100 and len(few.quotient) + len(few.remainder) <= 20 and few(torch.arange(10_000)).shape == (10_000, 2)
    assert Quotients(10, 1, 2, 1.0, 0)(torch.tensor([3, 9])).shape == (2, 2)


def test_widths_of_mixed_tables_by_hand():
    assert mixed_dims([10, 1000, 100_000], 16, 0.3) == [16, 4, 1] and mixed_dims([10, 1000], 16, 0.0) == [16, 16]


def test_one_field_of_a_shared_table_is_the_hashing_trick():
    pool = Pool(40, 4, 1.0)
    one, trick = Multiplexed(pool, 1, seed=5), Rows(1000, 40, 4, 4, 1.0, seed=5)
    trick.weight = pool.weight
    values = torch.arange(1000)
    assert torch.equal(one(values), trick(values)) and not list(one.parameters())
    other = Multiplexed(pool, 1, seed=6)
    assert not torch.equal(one(values), other(values))
    three = Multiplexed(pool, 3, seed=5)(values)
    assert three.shape == (1000, 12) and torch.equal(three[:, :4], one(values)) and not torch.equal(three[:, :4], three[:, 4:8])


def test_missing_and_unseen_keep_vectors_of_their_own():
    store = Store(Rows(100, 10, 4, 4, 1.0, 0), 4)
    assert store(torch.tensor([[0, 1]])).abs().sum() == 0
    torch.testing.assert_close(store(torch.tensor(7)), store.values(torch.tensor(5)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [0.5, 0.125, 0.0625])
def test_what_is_stored_keeps_to_the_budget(kind, budget):
    e = embedding(Storage(kind, budget, chunks=2))
    assert e.whole_numbers == 8 * (N + 2 + 302 + 7 + 502 + 102 + 10)
    assert 0.6 * budget * e.whole_numbers < e.numbers() <= 1.01 * budget * e.whole_numbers
    everything = e.item(torch.arange(N))
    assert everything.shape == (N, 32) and 0.02 < float(everything[:, :8].detach().std()) < 0.4
    others = e.others(torch.tensor([0, -1]), torch.tensor([[2], [0]]))
    assert others.shape == (2, 2, 8) and not others[1, 1].any()  # missing
    everything.sum().backward()
    assert all(p.grad is not None for name, p in e.named_parameters() if "of_users" not in name and "of_events" not in name)
    assert e.state_dict().keys() == dict(e.named_parameters()).keys()


def test_a_whole_budget_has_a_row_a_value():
    for kind in ("hash", "qr"):
        e = embedding(Storage(kind))
        assert e.numbers() == e.whole_numbers and torch.unique(e.item(torch.arange(N))[:, :8], dim=0).shape[0] == N
    assert isinstance(embedding(Storage("hash", 0.5)).of_items, StoredTable) and isinstance(embedding(Storage("hash", 0.5)).of_lists[0], ListTable)
    assert embedding(Storage("full", 0.1)).numbers() == embedding(None).numbers() == embedding(None).whole_numbers


def test_another_value_of_a_field_changes_its_numbers_alone():
    e = embedding(Storage("unified", 0.25))
    a, b = e.item(torch.tensor([0])), e.item(torch.tensor([1500]))  # another item of the same category, kind and tag
    assert not torch.equal(a[:, :8], b[:, :8]) and torch.equal(a[:, 8:], b[:, 8:])


def test_settings_that_do_not_fit_are_sentences():
    with pytest.raises(SettingError, match="too small for these fields"):
        embedding(Storage("hash", 0.01))
    with pytest.raises(SettingError, match="chunks=3 does not divide the width 8"):
        embedding(Storage("unified", 0.5, chunks=3))
