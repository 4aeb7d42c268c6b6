"""Content tables: frozen or trained, mapped, masked."""

from __future__ import annotations

import pytest
import torch

from vitrail.blocks.modality import Modalities, bezier, cosine_transform, mean_of_items, mean_where, side_by_side, slerp, softmax_where

VALUES = {"a": torch.randn(5, 3), "b": torch.randn(5, 2)}
MASKS = {"a": torch.ones(5, dtype=torch.bool), "b": torch.tensor([True, False, True, True, True])}


def test_maps_rows_and_tells_who_has_them() -> None:
    made = Modalities(VALUES, MASKS, 4, trained=False)
    items = torch.tensor([[0, 1], [2, 2]])
    expected = VALUES["b"][items] @ made.maps[1].weight.T + made.maps[1].bias
    torch.testing.assert_close(made(1, items), expected)
    torch.testing.assert_close(made(0)[items], made(0, items))
    assert made.has(1, items).tolist() == [[True, False], [True, True]] and made.has(0).all()
    assert len(list(made.parameters())) == 4 and "values_0" not in made.state_dict()


def test_trained_tables_are_parameters_of_their_own() -> None:
    made = Modalities(VALUES, MASKS, 4, trained=True)
    made(0, torch.tensor([1])).sum().backward()
    assert made.values_0.grad[1].any() and not made.values_0.grad[0].any()
    with torch.no_grad():
        made.values_0.zero_()
    assert VALUES["a"].any()


def test_means_over_what_is_there() -> None:
    assert float(mean_where(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([True, False, True]))) == 3.0
    assert float(mean_where(torch.tensor([float("inf")]), torch.tensor([False]))) == 0.0


def test_a_hidden_layer_is_two_maps_with_a_leaky_bend() -> None:
    made = Modalities(VALUES, MASKS, 4, trained=False, hidden=6)
    first, _, second = made.maps[0]
    h = VALUES["a"] @ first.weight.T + first.bias
    torch.testing.assert_close(made(0), torch.where(h > 0, h, 0.01 * h) @ second.weight.T)
    assert second.bias is None


def test_kinds_side_by_side() -> None:
    plain = side_by_side(VALUES, MASKS)
    assert torch.equal(plain[:, :3], VALUES["a"]) and not plain[1, 3:].any()
    over = torch.tensor([True, True, True, False, True])
    even = side_by_side(VALUES, MASKS, over)
    for part, rows in ((slice(0, 3), [0, 1, 2, 4]), (slice(3, 5), [0, 2, 4])):
        torch.testing.assert_close(even[rows][:, part].mean(0), torch.zeros(part.stop - part.start), atol=1e-6, rtol=0)
        torch.testing.assert_close(even[rows][:, part].square().sum(1).mean(), torch.tensor(1.0))
    assert torch.equal(side_by_side(VALUES, MASKS, torch.zeros(5, dtype=torch.bool)), plain)


def test_cosine_transform_by_hand() -> None:
    found = cosine_transform(torch.tensor([[1.0, 2, 3, 4]]))
    torch.testing.assert_close(found, torch.tensor([[5.0, -2.23044, 0, -0.15851]]), atol=1e-5, rtol=0)
    assert float(found.square().sum()) == pytest.approx(30, rel=1e-6)


def test_softmax_among_what_is_there() -> None:
    logits, has = torch.tensor([[0.0, 5.0], [1.0, 1.0], [2.0, 3.0]]), torch.tensor([[True, False], [True, True], [False, False]])
    torch.testing.assert_close(softmax_where(logits, has), torch.tensor([[1.0, 0], [0.5, 0.5], [0, 0]]))


def test_slerp_by_hand_and_on_the_sphere() -> None:
    p, q = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]])
    torch.testing.assert_close(slerp(p, q, torch.tensor([0.25])), torch.tensor([[0.38268, 0.92388]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(slerp(p, q, torch.tensor([1.0])), p)
    torch.testing.assert_close(slerp(p, q, torch.tensor([0.0])), q)
    a, b = (torch.nn.functional.normalize(torch.randn(50, 5), dim=1) for _ in range(2))
    torch.testing.assert_close(slerp(a, b, torch.rand(50)).norm(dim=1), torch.ones(50))
    for other in (a, -a):  # no angle, or a half turn
        same = a.clone().requires_grad_()
        made = slerp(same, other, torch.rand(50))
        made.sum().backward()
        assert made.isfinite().all() and same.grad.isfinite().all()
    torch.testing.assert_close(slerp(a, a, torch.rand(50)), a, atol=1e-5, rtol=0)


def test_bezier_skips_what_is_missing_and_stays_on_the_sphere() -> None:
    points = [torch.nn.functional.normalize(torch.randn(4, 5), dim=1) for _ in range(3)]
    share = torch.rand(4)
    every = [torch.ones(4, dtype=torch.bool)] * 3
    first, second = slerp(points[0], points[1], share), slerp(points[1], points[2], share)
    torch.testing.assert_close(bezier(points, every, share), slerp(first, second, share))
    torch.testing.assert_close(bezier(points[:2], every[:2], share), first)
    some = [torch.tensor([True, False, False, True]), torch.tensor([True, True, False, False]), torch.tensor([True, False, False, False])]
    made = bezier(points, some, share)
    torch.testing.assert_close(made[1:], torch.stack([points[1][1], torch.zeros(5), points[0][3]]))


def test_the_mean_of_a_history_is_over_items_with_content() -> None:
    values, mask = torch.tensor([[1.0, 2], [3, 6], [9, 9]]), torch.tensor([True, True, False])
    mean, has = mean_of_items(values, mask, torch.tensor([0, 2, 2, 3, 5]), torch.tensor([0, 1, 2, 2, 1]))
    assert mean.tolist() == [[2, 4], [0, 0], [0, 0], [3, 6]] and has.tolist() == [True, False, False, True]


def test_a_trained_table_gets_a_gradient_as_long_as_the_items_of_the_batch() -> None:
    made = Modalities(VALUES, MASKS, 4, trained=True)
    items = torch.tensor([[3, 1], [1, 1]])
    weigh = torch.arange(16.0).view(2, 2, 4)
    (made(0, items) * weigh).sum().backward()
    few = made.values_0.grad
    assert few.is_sparse and few._indices().tolist() == [[1, 3]]
    map_gradient, made.values_0.grad, made.maps[0].weight.grad = made.maps[0].weight.grad, None, None
    (made(0)[items] * weigh).sum().backward()
    torch.testing.assert_close((few.to_dense(), map_gradient), (made.values_0.grad, made.maps[0].weight.grad))
    frozen = Modalities(VALUES, MASKS, 4, trained=False)
    assert frozen.values_0.data_ptr() == VALUES["a"].data_ptr(), "what stays as it is is read where it lies"
