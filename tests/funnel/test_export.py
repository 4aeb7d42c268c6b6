"""Rankers as graphs: every one of the registry equals the house in onnxruntime."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vitrail.cli import app
from vitrail.data.batchers_rows import gather
from vitrail.data.fields import Field
from vitrail.errors import DataError, ResourceError, SettingError
from vitrail.funnel import export
from vitrail.funnel.export import Graph, compared, drawn, export_run
from vitrail.systems import registry
from vitrail.testing import checkerboard, quick
from vitrail.testing_rank import impressions, settings_of, tiny
from vitrail.train.fit import fit

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RANKERS = [name for name in registry.names() if registry.card(name).stage == "rank"]
FIELDS = [
    Field(name="price", whose="event", kind="number", codes=6, edges=[1.0, 2.0, 3.0]),
    Field(name="slot", whose="event", kind="category", codes=6, values=["a", "b", "c", "d"]),
]
CONTENT = {"vectors": {"text": torch.randn(8, 3, generator=torch.Generator().manual_seed(0))}, "masks": {"text": torch.arange(8) < 6}}


def difference(model, file, rows=40):
    """Of onnxruntime to the system, on batches of other sizes than the one that was traced."""
    graph = Graph(model)
    inputs = export._inputs(model)
    export._write(graph, inputs, file)
    made = onnx.load(file)
    used = {name for node in made.graph.node for name in node.input}
    names = [name for name in inputs if name in used]
    for value in [value for value in made.graph.input if value.name not in used]:
        made.graph.input.remove(value)
    onnx.save(made, file)
    assert made.opset_import[0].version == export.OPSET
    batches = [drawn(model, rows, 7), drawn(model, 1, 1), drawn(model, 5, 12)]
    nobody = drawn(model, 4, 3)
    batches.append(type(nobody)(**{**vars(nobody), "mask": torch.zeros_like(nobody.mask)}))
    return max(compared(file, graph, batch, names) for batch in batches)


@pytest.mark.parametrize("name", RANKERS)
def test_every_ranker_equals_its_graph(name, tmp_path):
    model = tiny(name, fields=FIELDS)
    if not model.trained:
        pytest.skip("has no weights before it is fitted: see below")
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    assert difference(model, tmp_path / "m.onnx") < 1e-5


def test_a_system_that_goes_step_by_step_has_a_graph_of_its_length(tmp_path, monkeypatch):
    model = tiny("dnn", fields=FIELDS)
    monkeypatch.setattr(type(model), "unrolled", True)
    assert drawn(model, 4, 2).history.shape == (4, 5)
    assert difference(model, tmp_path / "m.onnx") < 1e-5
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in onnx.load(tmp_path / "m.onnx").graph.input}
    assert shapes["history"] == [0, 5]


SLOTS = [
    ("din", {"activation": "dice", "weights": "softmax"}),
    ("din", {"attention": "multihead", "heads": 2, "weights": "relu", "attention_scale": True}),
    ("dnn", {"tables": "qr", "budget": 0.8}),
    ("dnn", {"norm": True, "dropout": 0.2, "activation": "dice", "history": False}),
    ("dcnv2", {"cross": "mix", "structure": "stacked"}),
    ("sim", {"long": 12, "chosen": 3, "time": "none"}),
    ("sim", {"long": 12, "chosen": 3, "search": "hard", "category": "category"}),
    ("sim", {"chosen": 3, "attention": "mlp", "search": "hard", "category": "tags"}),
    ("eta", {"chosen": 3, "time": "position"}),
    ("sdim", {"hashes": 3, "bits": 2, "normalise": False}),
    ("dare", {"chosen": 3, "decoupled": False}),
    ("muse", {"chosen": 3}),
    ("muse", {"chosen": 3, "attention": "mlp", "store": "float32"}),
    ("wide-deep", {"crosses": [["city", "slot"], ["item", "price"]]}),
    ("autoint", {"variant": "released", "hidden": [8]}),
]


@pytest.mark.parametrize(("name", "settings"), SLOTS)
def test_slots_and_content_equal_their_graphs(name, settings, tmp_path):
    model = tiny(name, fields=FIELDS, **CONTENT, **settings)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    assert difference(model, tmp_path / "m.onnx") < 1e-5


@pytest.mark.parametrize("kind", ["hash", "qr", "low_rank", "multi_size", "unified"])
def test_stored_tables_equal_their_graphs(kind, tmp_path):
    """Hash functions are arithmetic of the graph: values of the impression are hashed where it runs."""
    wide = [Field(name="shop", whose="event", kind="category", codes=500, values=[str(n) for n in range(498)])]
    model = tiny("fm", fields=wide, tables=kind, budget=0.2, chunks=2)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    assert difference(model, tmp_path / "m.onnx") < 1e-5


def test_calibration_by_stairs_is_the_same_curve():
    model = tiny("fm", calibration="isotonic")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=500)
    model.calibrator.fit(logits, (rng.random(500) < 1 / (1 + np.exp(-logits))).astype(float))
    asked = torch.cat([torch.linspace(-5, 5, 400), model.calibrator.get_buffer("knots")[0, :20].float()])
    torch.testing.assert_close(Graph(model).chances(asked), model.calibrator(asked), atol=1e-6, rtol=0)
    plain = tiny("fm", calibration="isotonic")
    torch.testing.assert_close(Graph(plain).chances(asked), torch.sigmoid(asked))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return impressions(tmp_path_factory.mktemp("shop") / "data")


def test_a_run_becomes_a_file_with_its_meaning(shop, tmp_path, monkeypatch):
    fit("deepfm", shop, out=tmp_path / "run", settings=settings_of("deepfm", epochs=2), quiet=True)
    done = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--out", str(tmp_path / "m.onnx"), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["opset"] == 17 and told["difference"] < 1e-5 and told["bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert told["inputs"] == ["items", "users", "fields", "history", "mask"]  # no clock is read
    props = {prop.key: prop.value for prop in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert props["system"] == "deepfm" and json.loads(props["inputs"]).keys() == set(told["inputs"])
    assert [f["name"] for f in json.loads(props["fields"])][:1] == ["user count"]
    printed = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--out", str(tmp_path / "n.onnx")])
    assert printed.exit_code == 0 and "difference" in printed.output
    with pytest.raises(DataError, match="exists already"):
        export_run(tmp_path / "run", tmp_path / "m.onnx")
    monkeypatch.setattr(export, "CLOSE", -1.0)
    with pytest.raises(ResourceError, match="beside the system"):
        export_run(tmp_path / "run", tmp_path / "p.onnx")
    assert not (tmp_path / "p.onnx").exists()


def test_what_searches_takes_long_histories_as_inputs(shop, tmp_path):
    """Two people's candidates over two windows, one of them empty, as the house answers them; its random planes are part of the graph."""
    import onnxruntime

    recommender = fit("eta", shop, settings=settings_of("eta", epochs=1, long=8, chosen=2), quiet=True).recommender
    made = export_run(recommender, tmp_path / "m.onnx")
    assert made.difference < 1e-5 and {"events", "starts", "stops", "windows"} <= set(made.inputs) and "planes" in " ".join(recommender.model.state_dict())
    histories = recommender.known.histories(recommender.user_ids.encode(["u0", "nobody"]))
    rows = recommender.model.rows_at(histories, torch.arange(6).expand(2, -1))
    batch = gather(rows, np.arange(12), recommender.model.config.length, 8)
    batch = replace(batch, users=histories.users.repeat_interleave(6))
    assert len(batch.long.starts) == 2
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    given = export._given(batch)
    found = session.run(["probability"], {name: given[name].numpy().astype(np.int64 if given[name].dtype != torch.bool else bool) for name in made.inputs})[0]
    torch.testing.assert_close(torch.from_numpy(found).view(2, 6), recommender.model.score(histories, torch.arange(6).expand(2, -1)), atol=1e-5, rtol=1e-5)


def test_trees_leave_as_a_graph_and_as_text(shop, tmp_path):
    lightgbm = pytest.importorskip("lightgbm")
    recommender = fit("lightgbm", shop, settings=settings_of("lightgbm"), quiet=True).recommender
    made = export_run(recommender, tmp_path / "m.onnx")
    assert made.difference < 1e-5
    text = export_run(recommender, tmp_path / "m.txt", "trees")
    assert text.opset is None and lightgbm.Booster(model_file=str(tmp_path / "m.txt")).num_trees() > 0
    assert [name.replace(" ", "_").replace(":", "_") for name in text.inputs] == lightgbm.Booster(model_file=str(tmp_path / "m.txt")).feature_name()


def test_what_cannot_be_exported_is_a_sentence(shop, tmp_path, monkeypatch):
    board = checkerboard(tmp_path / "board", side=10)
    popular = fit("popular", board, split="none", settings=quick("popular"), quiet=True).recommender
    with pytest.raises(SettingError, match='System "popular" is no ranker'):
        export_run(popular, tmp_path / "m.onnx")
    fm = fit("fm", shop, settings=settings_of("fm", epochs=1), quiet=True).recommender
    with pytest.raises(SettingError, match='System "fm" has no trees'):
        export_run(fm, tmp_path / "m.txt", "trees")
    with pytest.raises(SettingError, match='There is no format "pickle"'):
        export_run(fm, tmp_path / "m", "pickle")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export_run(fm, tmp_path / "blind.onnx").difference is None
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ResourceError, match=r'pip install "vitrail\[onnx\]"'):
        export_run(fm, tmp_path / "m.onnx")
