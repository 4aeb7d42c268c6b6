"""Image encoders: the descriptor of colour and texture, tiny CLIP and DINO built here, pictures that cannot be read."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.content.base import ImageEncoder, PictureText
from vitrail.content.image import ColourTexture, TransformerImage, load_image, open_picture
from vitrail.errors import ResourceError

RNG = np.random.default_rng(0)


def plain(colour: tuple[int, int, int], size: int = 40) -> Image.Image:
    return Image.new("RGB", (size, size), colour)


def noise(colour: tuple[int, int, int]) -> Image.Image:
    pixels = np.clip(np.array(colour) + RNG.normal(scale=40, size=(40, 40, 1)), 0, 255).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(pixels, (40, 40, 3)).copy())


class TestDescriptor:
    def test_tells_colours_and_textures_apart(self) -> None:
        pytest.importorskip("skimage")
        encoder = ColourTexture()
        assert isinstance(encoder, ImageEncoder) and not isinstance(encoder, PictureText)
        red, dark_red, blue, rough = encoder.encode([plain((220, 20, 30)), plain((210, 25, 35), 70), plain((20, 30, 220)), noise((220, 20, 30))])
        assert red.shape == (152,) and abs(np.linalg.norm(red) - 1) < 1e-6
        assert red @ dark_red > 0.95 > red @ rough > red @ blue - 0.5
        assert red @ dark_red > red @ rough and red @ dark_red > red @ blue

    def test_a_mirror_keeps_colours_and_an_unreadable_picture_is_zero(self, tmp_path: Path) -> None:
        pytest.importorskip("skimage")
        (tmp_path / "broken.jpg").write_bytes(b"no picture")
        buffer = BytesIO()
        plain((1, 200, 3)).save(buffer, "PNG")
        rows = ColourTexture().encode([tmp_path / "broken.jpg", tmp_path / "absent.jpg", buffer.getvalue(), str(tmp_path)])
        assert rows.any(1).tolist() == [False, False, True, False]

    def test_needs_its_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(ResourceError, match=r'pip install "vitrail\[image\]"'):
            ColourTexture()


def test_what_is_see_through_becomes_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    opened = open_picture(clear)
    assert opened is not None and opened.mode == "RGB" and opened.getpixel((0, 0)) == (255, 255, 255)
    grey = open_picture(Image.new("L", (4, 4), 7))
    assert grey is not None and grey.getpixel((0, 0)) == (7, 7, 7)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of one layer each with random weights, saved as a transformers folder."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    words = {word: n for n, word in enumerate(["<pad>", "<unk>", "<end>", "red", "lipstick"])}
    text = {"vocab_size": 5, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 6}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    ends = {"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 0}
    config = transformers.CLIPConfig(text_config={**text, **ends}, vision_config=vision, projection_dim=6)
    transformers.CLIPModel(config).save_pretrained(path)
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", eos_token="<end>").save_pretrained(path)
    from transformers import CLIPImageProcessorPil

    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(path)
    return path


def test_clip_puts_pictures_and_texts_in_one_space(clip: Path, tmp_path: Path) -> None:
    encoder: Any = load_image(str(clip), precision="fp32")
    assert isinstance(encoder, TransformerImage) and isinstance(encoder, PictureText) and encoder.joint and encoder.dim == 6
    pictures = [plain((220, 20, 30)), b"broken", *[noise((9, 99, 199)) for _ in range(18)]]
    rows = encoder.encode(pictures)
    assert rows.shape == (20, 6) and not rows[1].any()
    np.testing.assert_allclose(np.linalg.norm(np.delete(rows, 1, 0), axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(pictures[:1]), rows[:1], atol=1e-5)
    words = encoder.encode_text(["red lipstick <end>", "lipstick <end>"])
    assert words.shape == (2, 6) and not np.allclose(words[0], words[1])
    assert encoder.revision == load_image(str(clip)).revision


def test_gradients_reach_the_pictures_model(clip: Path) -> None:
    encoder: Any = load_image(str(clip))
    encoder(encoder.pixels([plain((1, 2, 3))])).sum().backward()
    assert encoder.model.vision_model.embeddings.patch_embedding.weight.grad.any()


def test_dino_has_no_texts(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    from transformers import BitImageProcessorPil

    BitImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    encoder: Any = load_image(str(tmp_path))
    assert encoder.dim == 8 and encoder.encode([plain((1, 2, 3))]).any()
    with pytest.raises(ResourceError, match="knows no texts"):
        encoder.encode_text(["red"])


def test_models_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ResourceError, match="cannot be loaded"):
        load_image(str(tmp_path / "absent"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ResourceError, match="needs transformers"):
        load_image("clip")
