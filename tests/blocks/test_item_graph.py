"""The graph of alike items: blocks equal the dense reference, masks hold, and a saved graph is not built again unless content changed."""

from __future__ import annotations

import torch

from vitrail.blocks import item_graph
from vitrail.blocks.item_graph import WIDE, ItemGraph, content_hash, directed, largest, nearest


def content(n: int = 23, width: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator), torch.rand(n, generator=generator) < 0.8


def test_blocks_equal_the_dense_reference() -> None:
    values, mask = content()
    ids, cosines = nearest(values, mask, 4, block=7)
    unit = torch.nn.functional.normalize(values, dim=1)
    dense = (unit @ unit.T).masked_fill(~mask[None, :], -2.0)
    dense.fill_diagonal_(2.0)
    best = dense.topk(4).indices
    assert torch.equal(ids[mask], best[mask])
    torch.testing.assert_close(cosines[mask], (unit @ unit.T).gather(1, best)[mask].clamp(max=1.0))
    assert (ids[~mask] == -1).all() and not cosines[~mask].any()


def test_equal_content_and_few_items() -> None:
    ids, _ = nearest(torch.ones(6, 3), torch.ones(6, dtype=torch.bool), 2)
    assert ids[:, 0].tolist() == list(range(6)), "an item is its own first neighbour among its equals"
    ids, _ = nearest(torch.ones(3, 2), torch.tensor([True, False, True]), 10)
    assert ids.shape == (3, 2)
    assert nearest(torch.ones(3, 2), torch.zeros(3, dtype=torch.bool), 10)[0].shape == (3, 0)


def test_negative_cosines_do_not_break_the_normalisation() -> None:
    values = torch.tensor([[1.0, 0], [-1, 0.1], [-1, -0.1]])
    graph = directed(*nearest(values, torch.ones(3, dtype=torch.bool), 3), edges="cosine").toarray()
    assert (graph >= 0).all() and graph[0].tolist() == [1.0, 0.0, 0.0]


def test_gradient_is_that_of_the_dense_product() -> None:
    (a, ma), (b, mb) = content(), content(seed=1)
    graph = ItemGraph({"a": a, "b": b}, {"a": ma, "b": mb}, (0.7, 0.3), 3, learned=True)
    x = torch.randn(23, 4, requires_grad=True)
    weight = torch.randn(23, 4)
    (graph(x) * weight).sum().backward()
    fast = x.grad.clone(), graph.logits.grad.clone()
    x.grad = graph.logits.grad = None
    shares = graph.weights()
    ((sum(shares[:, n, None] * (S.to_dense() @ x) for n, (S, _) in enumerate(graph.products()))) * weight).sum().backward()
    torch.testing.assert_close(fast[0], x.grad)
    torch.testing.assert_close(fast[1], graph.logits.grad)


def test_a_saved_graph_is_read_and_one_of_other_content_is_not(monkeypatch) -> None:
    values, mask = content()
    graph = ItemGraph({"a": values}, {"a": mask}, (1.0,), 3)
    expected = graph(torch.eye(23))
    state = graph.state_dict()
    again = ItemGraph({"a": values}, {"a": mask}, (1.0,), 3)
    again.load_state_dict(state)
    with monkeypatch.context() as patch:
        patch.setattr(item_graph, "nearest", lambda *_: 1 / 0)
        assert torch.equal(again(torch.eye(23)), expected)
    other = ItemGraph({"a": values.flip(0)}, {"a": mask}, (1.0,), 3)
    other.load_state_dict(state)
    assert not torch.equal(other(torch.eye(23)), expected)
    assert content_hash({"a": (values, mask)}, 3) != content_hash({"a": (values, mask)}, 4)


def test_largest_of_groups_is_the_largest_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    for columns in (WIDE, 40 * WIDE):
        x = torch.randn(9, columns, generator=generator)
        x[3] = 0.0  # all equal
        best, place = largest(x, 5)
        assert torch.equal(best, x.topk(5, dim=1).values) and torch.equal(x.gather(1, place), best)
        assert all(len(set(row)) == 5 for row in place.tolist())


def test_many_rows_equal_the_dense_reference_too() -> None:
    values, mask = content(3000, 8)
    ids = nearest(values, mask, 3)[0]
    unit = torch.nn.functional.normalize(values, dim=1)
    dense = (unit @ unit.T).masked_fill(~mask[None, :], -2.0)
    dense.fill_diagonal_(2.0)
    assert torch.equal(ids[mask], dense.topk(3).indices[mask])


def test_scaled_edges_keep_cosines_over_counts() -> None:
    values, mask = content()
    S = directed(*nearest(values, mask, 4), edges="scaled").toarray()
    assert (S.sum(1) <= 1 + 1e-6).all()
    assert (S.diagonal()[mask.numpy()] == 0.25).all() and not S[~mask.numpy()].any()


def test_transposed_and_kinds_alone() -> None:
    (a, ma), (b, mb) = content(), content(seed=1)
    graph = ItemGraph({"a": a, "b": b}, {"a": ma, "b": mb}, (0.7, 0.3), 3)
    x = torch.randn(23, 2)
    dense = graph(torch.eye(23))
    torch.testing.assert_close(graph.transposed(x), dense.T @ x)
    torch.testing.assert_close(graph.of_kind(1, x), graph.products()[1][0].to_dense() @ x)
