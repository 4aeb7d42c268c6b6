"""AutoInt: the checks of its card; those of a single layer stand in tests/blocks/test_interact.py."""

import pytest
import torch

from vitrail.errors import SettingError
from vitrail.testing_rank import tiny, tiny_batch


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_it_trains_in_both_variants(variant):
    model = tiny("autoint", variant=variant, attention_width=8, layers=2, hidden=[8], attention_dropout=0.1, dropout=0.1).train()
    model.loss(tiny_batch()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert (model.layers[0].norm is not None) == (variant == "released")


def test_without_layers_it_is_linear_in_the_vectors():
    model, batch = tiny("autoint", layers=0), tiny_batch()
    torch.testing.assert_close(model.logit(batch), model.out(model.vectors(batch).flatten(1)).squeeze(1))
    assert model.deep is None and not len(model.layers)


def test_with_silent_attention_it_is_the_mlp():
    """w = 0 leaves the deep half of AutoInt+, which is DNN."""
    model, dnn, batch = tiny("autoint", hidden=[64, 32]), tiny("dnn"), tiny_batch()
    torch.nn.init.zeros_(model.out.weight)
    dnn.load_state_dict({key: value for key, value in model.state_dict().items() if key.split(".")[0] not in ("layers", "out")})
    torch.testing.assert_close(model.logit(batch), dnn.logit(batch))


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(SettingError, match="heads=3 does not divide attention_width=64"):
        tiny("autoint", heads=3)
