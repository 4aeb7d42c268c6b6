"""Field embedding: missing and unseen codes, lists, distinct look-ups, and the regularisation of rows that occur."""

import torch

from vitrail.blocks.features import FeatureEmbedding, FieldTable, ListTable, rare_penalty


def embedding(n=200):
    torch.manual_seed(0)
    items = torch.stack([torch.arange(n) + 2, torch.arange(n) % 3 + 2], 1).int()
    lists = {"tags": torch.tensor([[2, 3], [4, 0]]).repeat(n // 2, 1).int()}
    users = torch.tensor([[2], [3], [1]]).int()
    return FeatureEmbedding(4, items=items, item_sizes=[n + 2, 5], lists=lists, list_sizes=[5], users=users, user_sizes=[4], event_sizes=[3, 6], scale=1.0)


def test_an_item_is_its_fields_side_by_side():
    e = embedding()
    vector = e.item(torch.tensor([[1]]))
    assert vector.shape == (1, 1, 12) and e.item_width == 12 and e.other_fields == 3
    torch.testing.assert_close(vector[0, 0, :4], e.of_items.weight[3])
    torch.testing.assert_close(vector[0, 0, 4:8], e.of_items.weight[202 + 3])
    torch.testing.assert_close(vector[0, 0, 8:], e.of_lists[0].weight[4])
    torch.testing.assert_close(e.item(torch.tensor([0]))[0, 8:], e.of_lists[0].weight[2:4].mean(0))


def test_missing_and_unseen_start_at_zero():
    e = embedding()
    assert e.of_items.weight[[0, 1, 202, 203]].abs().sum() == 0 and e.of_events.weight[[0, 1, 3, 4]].abs().sum() == 0
    assert ListTable(5, 4, 1.0)(torch.zeros(2, 3, dtype=torch.int32)).abs().sum() == 0
    other = e.others(torch.tensor([0, -1]), torch.tensor([[2, 5], [0, 1]]))
    assert other.shape == (2, 3, 4) and other[1].abs().sum() == 0  # a stranger with nothing known


def test_distinct_items_give_back_what_was_asked_in_both_ways():
    e = embedding()
    a, b = torch.tensor([5, 7, 5]), torch.tensor([[7, 0], [9, 5]])
    for table in (e, embedding(20_000)):
        present, (of_a, of_b) = table.distinct(a, b)
        assert present.tolist() == [0, 5, 7, 9] and torch.equal(present[of_a], a) and torch.equal(present[of_b], b)


def test_rare_rows_are_pulled_more_and_absent_rows_not_at_all():
    torch.manual_seed(0)
    table = FieldTable([6], 3, 1.0)
    every, ones = torch.arange(6)[:, None], torch.ones(6)
    torch.testing.assert_close(rare_penalty(table, every, ones), table.weight.square().sum())
    counts = torch.tensor([1.0, 1, 4, 2, 1, 1])
    value = rare_penalty(table, torch.tensor([[2], [3], [2]]), counts)
    value.backward()
    torch.testing.assert_close(table.weight.grad[2], 2 * table.weight[2].detach() / 4)
    assert table.weight.grad[[0, 1, 4, 5]].abs().sum() == 0
    lists = ListTable(6, 3, 1.0)
    torch.testing.assert_close(rare_penalty(lists, torch.tensor([2, 2, 5]), counts), lists.weight[2].square().sum() / 4 + lists.weight[5].square().sum())
