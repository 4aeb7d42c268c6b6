"""Rows that share most, and their mix with rows of alike content."""

from __future__ import annotations

import torch

from vitrail.blocks.co_occurrence import CoNeighbours, EnrichedGraph

# u0 {0, 1, 1, 2}, u1 {1, 2}, u2 {}, u3 {3}, u4 {0, 2}
INDPTR, ITEMS = torch.tensor([0, 4, 6, 6, 7, 9]), torch.tensor([0, 1, 1, 2, 1, 2, 3, 0, 2])


def test_counts_and_weights_by_hand() -> None:
    items = CoNeighbours(INDPTR, ITEMS, 4, 3, "items")
    ids, counts = items.neighbours(0)
    shared = torch.zeros(4, 4).index_put_((torch.arange(4)[:, None].expand(4, 3)[ids >= 0], ids[ids >= 0].long()), counts[ids >= 0])
    torch.testing.assert_close(shared, torch.tensor([[0.0, 1, 2, 0], [1, 0, 2, 0], [2, 2, 0, 0], [0, 0, 0, 0]]))
    assert torch.equal(shared, shared.T)
    S = items.products()[0][0].to_dense()
    torch.testing.assert_close(S.sum(1), torch.tensor([1.0, 1, 1, 0]))
    torch.testing.assert_close(S[0], torch.tensor([0.0, 1, 2, 0]).softmax(0)[[1, 2]].new_tensor([0, 0.268941, 0.731059, 0]), atol=1e-5, rtol=0)
    users = CoNeighbours(INDPTR, ITEMS, 4, 2, "users").products()[0][0].to_dense()
    torch.testing.assert_close(users[0], torch.tensor([0.0, 0.5, 0, 0, 0.5]))
    assert not users[2].any() and not users[:, 2].any() and not users[3].any()


def test_a_saved_one_is_not_built_again_and_holds_for_more_rows(monkeypatch) -> None:
    made = CoNeighbours(INDPTR, ITEMS, 4, 2, "items")
    expected = made.of_kind(0, torch.eye(4))
    again = CoNeighbours(INDPTR, ITEMS, 4, 2, "items")
    again.load_state_dict(made.state_dict())
    monkeypatch.setattr(again, "find", lambda *_: 1 / 0)
    assert torch.equal(again.of_kind(0, torch.eye(4)), expected)
    other = CoNeighbours(INDPTR, ITEMS, 4, 2, "users")
    assert other._hash != made._hash


def test_enriched_is_the_weighted_sum_layer_by_layer() -> None:
    content = {"a": torch.randn(4, 3)}, {"a": torch.ones(4, dtype=torch.bool)}
    graph = EnrichedGraph(content, (1.0,), 0.3, CoNeighbours(INDPTR, ITEMS, 4, 2, "items"))
    E = 0.3 * graph.shared.of_kind(0, torch.eye(4)) + 0.7 * graph.alike(torch.eye(4))
    x = torch.randn(4, 2)
    torch.testing.assert_close(graph(x), E @ x)
    torch.testing.assert_close(graph(x, 2), E @ E @ x)
