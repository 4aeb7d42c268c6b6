"""What the newest position reads of each event, against attention written out."""

import pytest
import torch

from vitrail.blocks.sequence import Attention, TransformerStack


def test_weights_are_those_that_the_layer_multiplies_with():
    torch.manual_seed(0)
    layer = Attention(8, 2, 0.0).eval()
    x, mask = torch.randn(3, 5, 8), torch.arange(5) < torch.tensor([5, 2, 1])[:, None]
    newest = mask.sum(1) - 1
    weights = layer.weights(x, newest, mask)
    assert torch.allclose(weights.sum(1), torch.ones(3)) and not weights[~mask].any()
    q, k, v = layer.qkv(x).view(3, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
    out = layer(x, True, None)
    for row, last in enumerate(newest.tolist()):
        by_head = torch.stack([torch.softmax(q[row, h, last] @ k[row, h, : last + 1].T / 2.0, 0) for h in range(2)])
        assert torch.allclose(weights[row, : last + 1], by_head.mean(0), atol=1e-6)
        mixed = torch.cat([by_head[h] @ v[row, h, : last + 1] for h in range(2)])
        assert torch.allclose(out[row, last], layer.out(mixed), atol=1e-5), "the same weights make the layer's output"


def test_a_stack_reads_through_its_earlier_layers():
    for norm in ("pre", "post"):
        torch.manual_seed(0)
        stack = TransformerStack(8, 2, 2, 0.0, length=6, norm=norm, causal=norm == "pre").eval()
        events, mask = torch.randn(2, 4, 8), torch.tensor([[True] * 4, [True, True, False, False]])
        weights = stack.attention(events, mask)
        assert weights.shape == (2, 4) and torch.allclose(weights.sum(1), torch.ones(2)) and not weights[~mask].any()
        alone = stack.attention(events[1:, :2], mask[1:, :2])
        assert torch.allclose(alone, weights[1:, :2], atol=1e-6), "padding changes nothing"


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("layers", [0, 2])
def test_the_newest_alone_is_what_the_whole_stack_gives_there(norm, causal, layers):
    torch.manual_seed(0)
    stack = TransformerStack(8, layers, 2, 0.3, length=6, norm=norm, causal=causal, activation="gelu").eval()
    events, mask = torch.randn(4, 5, 8), torch.arange(5) < torch.tensor([5, 2, 1, 0])[:, None]
    whole, newest = stack(events, mask), stack.newest(events, mask)
    for row, length in enumerate([5, 2, 1]):
        torch.testing.assert_close(newest[row], whole[row, length - 1])
    assert torch.isfinite(newest).all()
