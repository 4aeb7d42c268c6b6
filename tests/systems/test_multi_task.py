"""Rankers of several objectives: their value, their losses, and what a data set with purchases makes of them."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from vitrail.cli import app
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.errors import SettingError
from vitrail.testing_rank import impressions, settings_of, tiny, tiny_batch, tiny_rows
from vitrail.train.fit import evaluate_run, fit

BOTTOMS = [{"bottom": "shared_bottom"}, {"bottom": "mmoe", "experts": 3}, {"bottom": "ple", "levels": 2, "own": 1, "experts": 2}]
BOUGHT = {"objectives": {"bought": "bought > 0"}}


def with_outcomes():
    rows = tiny_rows()
    return replace(rows, outcomes=np.array([[1], [0], [np.nan]] * 4, dtype=np.float32))


@pytest.mark.parametrize("bottom", BOTTOMS)
def test_every_bottom_trains_both_heads(bottom):
    model = tiny("multi-task", **BOUGHT, **bottom).train()
    batch = tiny_batch(with_outcomes())
    model.loss(batch).backward()
    assert all(p.grad is not None for p in [*model.bottom.parameters(), *model.towers.parameters()])
    heads = model.heads(batch)
    known = ~batch.outcomes[:, 0].isnan()
    bought = -(batch.outcomes[known, 0] * heads["bought"][0][known] + (1 - batch.outcomes[known, 0]) * heads["bought"][1][known]).mean()
    clicked = -(batch.labels * heads["clicked"][0] + (1 - batch.labels) * heads["clicked"][1]).mean()
    torch.testing.assert_close(model.loss(batch), clicked + bought)
    weighed = tiny("multi-task", **BOUGHT, **bottom, loss_weights={"bought": 0.5}).train()
    weighed.load_state_dict(model.state_dict())
    torch.testing.assert_close(weighed.loss(batch), clicked + bought / 2)


def test_the_value_is_as_it_was_declared():
    batch, weights = tiny_batch(), {"clicked": 0.5, "bought": 2.0}
    product = tiny("multi-task", **BOUGHT, value_weights=weights)
    p = {name: log_p.exp() for name, (log_p, _) in product.heads(batch).items()}
    torch.testing.assert_close(product.logit(batch).exp(), p["clicked"] ** 0.5 * p["bought"] ** 2)
    total = tiny("multi-task", **BOUGHT, value_weights=weights, value="sum")
    odds = {name: torch.logit(chance) for name, chance in p.items()}
    torch.testing.assert_close(total.logit(batch), 0.5 * odds["clicked"] + 2 * odds["bought"], rtol=1e-4, atol=1e-4)


def test_one_objective_alone_is_an_mlp_over_experts():
    model, batch = tiny("multi-task", bottom="shared_bottom"), tiny_batch()
    z = model.towers[0](model.bottom.net(model.vectors(batch).flatten(1))).squeeze(1)
    torch.testing.assert_close(model.logit(batch), F.logsigmoid(z))
    torch.testing.assert_close(model.loss(batch), F.binary_cross_entropy_with_logits(z, batch.labels))


def test_what_can_only_follow_is_a_product():
    """A purchase has no chance above that of its click; its own head has no loss of its own."""
    model, batch = tiny("multi-task", **BOUGHT, after={"bought": "clicked"}), tiny_batch()
    heads = model.heads(batch)
    assert bool((heads["bought"][0] <= heads["clicked"][0]).all())
    chances = model.chances(tiny_rows())
    assert chances.keys() == {"clicked", "bought"} and (chances["bought"] <= chances["clicked"]).all()
    np.testing.assert_allclose(chances["clicked"], heads["clicked"][0].exp().detach().numpy(), rtol=1e-5)


def test_rare_rows_are_held_back_here_too():
    plain, rare = tiny("multi-task"), tiny("multi-task", rare=0.1)
    rare.load_state_dict(plain.state_dict())
    batch = tiny_batch()
    torch.testing.assert_close(rare.loss(batch) - plain.loss(batch), 0.1 * rare.penalty(batch))


def test_gates_that_ask_one_expert_are_seen():
    model = tiny("multi-task", **BOUGHT, experts=3)
    for gate in model.bottom.gates:
        torch.nn.init.zeros_(gate.weight)
    assert model.gates(tiny_rows()) == pytest.approx({"clicked": 1.0, "bought": 1.0})
    torch.nn.init.normal_(model.bottom.gates[1].weight, std=1e4)
    found = model.gates(tiny_rows())
    assert found["clicked"] == pytest.approx(1.0) and found["bought"] < 0.2
    assert tiny("multi-task", **BOUGHT, bottom="ple").gates(tiny_rows()) == {}


def test_names_that_are_no_objectives_are_refused():
    with pytest.raises(SettingError, match=r'no objective \(in loss_weights\) "baught". Did you mean "bought"'):
        tiny("multi-task", **BOUGHT, loss_weights={"baught": 1.0})
    with pytest.raises(SettingError, match="makes a chain of three"):
        tiny("multi-task", objectives={"bought": "b > 0", "kept": "k > 0"}, after={"bought": "clicked", "kept": "bought"})


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The checkerboard of impressions, where about half of what is clicked is bought, and of the fourth row of everybody nobody knows yet."""
    home = tmp_path_factory.mktemp("shop")
    data = impressions(home / "data")
    table = data.impressions.with_row_index("n").with_columns(
        bought=pl.when(pl.col("n") % 8 == 3).then(None).otherwise(pl.col("clicked") * (pl.col("item").str.tail(1).cast(pl.Int64) % 4 < 2))
    )
    return write_dataset(home / "more", data.info, data.interactions, data.items, impressions=table.drop("n"))


def test_purchases_are_learned_and_are_no_feature(shop, tmp_path):
    settings = settings_of("multi-task", **BOUGHT, epochs=25, value_weights={"clicked": 0.0}, expert=[16], hidden=[8])
    fit("multi-task", shop, out=tmp_path / "run", settings=settings, quiet=True)
    evaluation = evaluate_run(tmp_path / "run")
    assert evaluation.objectives.keys() == {"clicked", "bought"}
    assert evaluation.objectives["clicked"]["rows"] == evaluation.objectives["bought"]["rows"] == 32
    assert evaluation.objectives["bought"]["rate"] < evaluation.objectives["clicked"]["rate"]
    assert evaluation.objectives["bought"]["auc"] > 0.7 and 0 < evaluation.objectives["bought"]["gate_entropy"] <= 1
    plain = fit("dnn", shop, settings=settings_of("dnn", epochs=1), quiet=True).recommender
    assert "bought" in [f.name for f in plain.model.spec.owned("event")]  # it is context unless it is an objective
    run = Dataset(shop.path)
    model = fit("multi-task", run, settings=settings | {"epochs": 1}, quiet=True).recommender.model
    assert "bought" not in [f.name for f in model.spec.owned("event")]
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--quiet"])
    assert done.exit_code == 0 and "objective" in done.output


def test_an_objective_of_no_column_is_a_sentence(shop):
    with pytest.raises(SettingError, match='There is no column "sold"'):
        fit("multi-task", shop, settings=settings_of("multi-task", objectives={"sold": "sold > 0"}), quiet=True)
