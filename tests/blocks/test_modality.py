"""Content tables: frozen or trained, mapped, masked."""

from __future__ import annotations

import torch

from vitrail.blocks.modality import Modalities, mean_of_items, mean_where

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


def test_the_mean_of_a_history_is_over_items_with_content() -> None:
    values, mask = torch.tensor([[1.0, 2], [3, 6], [9, 9]]), torch.tensor([True, True, False])
    mean, has = mean_of_items(values, mask, torch.tensor([0, 2, 2, 3, 5]), torch.tensor([0, 1, 2, 2, 1]))
    assert mean.tolist() == [[2, 4], [0, 0], [0, 0], [3, 6]] and has.tolist() == [True, False, False, True]
