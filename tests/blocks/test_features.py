"""Field embedding: missing and unseen codes, lists, distinct look-ups, and the regularisation of rows that occur."""

import pytest
import torch

from vitrail.blocks.features import ContentFields, FeatureEmbedding, FieldTable, FirstOrder, ListTable, rare_penalty


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


def test_content_is_a_map_of_its_direction_and_absence_a_vector():
    torch.manual_seed(0)
    vectors, has = torch.randn(5, 3), torch.tensor([True, True, False, True, True])
    content = ContentFields({"text": vectors}, {"text": has}, 4, 1.0)
    torch.nn.init.normal_(content.missing)
    (found,) = content(torch.tensor([[0, 2]]))
    torch.testing.assert_close(found[0, 0], content.maps[0](vectors[0] / vectors[0].norm()))
    assert torch.equal(found[0, 1], content.missing[0])
    assert not [name for name in content.state_dict() if "values" in name]  # what was given travels beside the weights
    tenfold = ContentFields({"text": 10 * vectors}, {"text": has}, 4, 1.0)
    tenfold.load_state_dict(content.state_dict())
    torch.testing.assert_close(tenfold(torch.arange(5))[0], content(torch.arange(5))[0])
    e = FeatureEmbedding(4, items=torch.arange(5)[:, None].int() + 2, item_sizes=[7], content=content)
    assert e.item_width == 8 and e.item_fields == 2 and e.numbers() == 7 * 4
    torch.testing.assert_close(e.item(torch.arange(5))[:, 4:], content(torch.arange(5))[0])


def test_the_linear_part_is_the_sum_of_its_weights():
    e = FeatureEmbedding(1, items=torch.tensor([[2], [3]]).int(), item_sizes=[4], event_sizes=[4], scale=0.0)
    part = FirstOrder(e, bias=True)
    with torch.no_grad():
        e.of_items.weight.copy_(torch.tensor([[0.0], [0], [0.3], [7]]))
        e.of_events.weight.copy_(torch.tensor([[0.0], [0], [5], [0.2]]))
        part.bias.fill_(-0.1)
    asked = (torch.tensor([0]), torch.tensor([-1]), torch.tensor([[3]]))
    torch.testing.assert_close(part(*asked), torch.tensor([0.4]))
    assert FirstOrder(e, bias=False)(*asked).tolist() == pytest.approx([0.5])
    assert e.codes(*asked).tolist() == [[2, 3]]


def test_for_a_graph_what_is_distinct_is_the_catalogue(monkeypatch):
    e, a = embedding(), torch.tensor([5, 7, 5])
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    present, (places,) = e.distinct(a)
    assert torch.equal(present[places], a) and len(present) == 200
