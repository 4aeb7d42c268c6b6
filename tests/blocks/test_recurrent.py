"""GRU cells with attention in the gate: the scalar checks of the DIEN card, and padding."""

import pytest
import torch

from vitrail.blocks.recurrent import AttentionGRU, padded


def scalar(cell):
    """u = sigmoid(x), r = sigmoid(h), c = tanh(x + r h)."""
    gru = AttentionGRU(1, cell)
    with torch.no_grad():
        gru.of_input.weight.copy_(torch.tensor([[1.0], [0], [1]]))
        gru.of_input.bias.zero_()
        gru.of_state.weight.copy_(torch.tensor([[0.0], [1], [1]]))
    return gru


CASES = [
    ("augru", (0.5, 0.25), 0.278385, 0.213502), ("augru", (1.0, 1.0), None, 0.254001), ("gru", (0.5, 0.25), None, 0.254001),
    ("agru", (0.5, 0.25), None, 0.123317), ("augru_released", (0.5, 0.25), 0.659182, 0.130115),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "weights", "first", "second"), CASES)
def test_hand_values(cell, weights, first, second):
    x, a = torch.tensor([[[1.0], [-1.0]]]), torch.tensor([weights])
    gru = scalar(cell)
    if first is not None:
        assert float(gru(x[:, :1], torch.ones(1, 1, dtype=torch.bool), a[:, :1])) == pytest.approx(first, abs=1e-6)
    assert float(gru(x, torch.ones(1, 2, dtype=torch.bool), a)) == pytest.approx(second, abs=1e-6)


def test_what_no_attention_does():
    """Nothing in the paper's form; a plain step in the released one; aigru reads zeros."""
    torch.manual_seed(0)
    x, mask, none = torch.randn(3, 4, 5), torch.ones(3, 4, dtype=torch.bool), torch.zeros(3, 4)
    grus = {cell: AttentionGRU(5, cell) for cell in ("augru", "augru_released", "gru", "aigru", "agru")}
    for gru in grus.values():
        gru.load_state_dict(grus["gru"].state_dict())
    assert not grus["augru"](x, mask, none).any() and not grus["agru"](x, mask, none).any()
    torch.testing.assert_close(grus["augru_released"](x, mask, none), grus["gru"](x, mask, none))
    torch.testing.assert_close(grus["aigru"](x, mask, none), grus["gru"](torch.zeros_like(x), mask, none))


@pytest.mark.parametrize("cell", ["augru", "augru_released", "agru", "aigru"])
def test_a_batch_of_any_lengths_is_a_loop_over_its_rows(cell):
    torch.manual_seed(1)
    gru, lengths = AttentionGRU(3, cell), [2, 0, 4, 1]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    x, a = torch.randn(4, 6, 3), torch.rand(4, 6)
    found = gru(x, mask, a)
    for b, n in enumerate(lengths):
        alone = gru(x[b : b + 1, :n], torch.ones(1, n, dtype=torch.bool), a[b : b + 1, :n]) if n else torch.zeros(1, 3)
        torch.testing.assert_close(found[b : b + 1], alone)
    torch.testing.assert_close(padded(x[mask], mask), x * mask[..., None])
