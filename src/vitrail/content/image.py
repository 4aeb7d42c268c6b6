"""Image encoders: CLIP, SigLIP, DINO and their like from transformers, and an offline default, a descriptor of colour and texture.

The descriptor: a joint histogram of hue, saturation and value, and uniform local binary patterns (Ojala et al., 2002) of the
grey picture in quarters, each block a root of shares (a Hellinger map), so that cosines compare distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.content.base import Float32, Picture, missing
from vitrail.content.text import Precision, half, quiet_transformers, unloadable, weights_hash
from vitrail.errors import ResourceError

if TYPE_CHECKING:
    from PIL.Image import Image

COLOUR_TEXTURE = "colour-texture"
SIDE = 96
"""Pixels a side that are described."""
BATCH = 16
"""Pictures in one pass of a model on a processor."""


def open_picture(picture: Picture) -> Image | None:
    """An RGB picture (what is see-through becomes white); none where it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(picture, Image.Image):
        opened = picture
    else:
        try:
            opened = Image.open(BytesIO(picture) if isinstance(picture, bytes) else Path(picture))
            opened.load()
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
    if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
        opened = opened.convert("RGBA")
        paper = Image.new("RGBA", opened.size, (255, 255, 255, 255))
        opened = Image.alpha_composite(paper, opened)
    return opened.convert("RGB")


class ColourTexture:
    """72 shares of colours and 4 x 20 shares of textures: D = 152."""

    name = COLOUR_TEXTURE
    revision = "1"
    dim = 152

    def __init__(self) -> None:
        """Raises ResourceError where scikit-image is not installed."""
        import importlib.util

        if importlib.util.find_spec("skimage") is None:
            raise missing("scikit-image", "image", f'The image encoder "{self.name}"')

    def encode(self, images: Sequence[Picture]) -> Float32:
        """(N, D) rows of length 1; 0 for a picture that cannot be read."""
        values = np.zeros((len(images), self.dim), dtype=np.float32)
        for row, image in enumerate(images):
            opened = open_picture(image)
            if opened is not None:
                values[row] = self.describe(opened)
        return values

    def describe(self, image: Image) -> Float32:
        """An RGB picture -> (D,)"""
        from skimage.color import rgb2gray, rgb2hsv
        from skimage.feature import local_binary_pattern

        pixels = np.asarray(image.resize((SIDE, SIDE)))
        bins = (8, 3, 3)
        hsv = np.minimum((rgb2hsv(pixels).reshape(-1, 3) * bins).astype(np.int64), np.array(bins) - 1)
        colours = np.bincount(np.ravel_multi_index(tuple(hsv.T), bins), minlength=72) / len(hsv)
        grey = (rgb2gray(pixels) * 255).astype(np.uint8)
        textures = []
        for radius in (1, 3):
            codes: Any = local_binary_pattern(grey, 8, radius, method="uniform")  # type: ignore[no-untyped-call]
            codes = codes.astype(np.int64)
            quarters = codes.reshape(2, SIDE // 2, 2, SIDE // 2).transpose(0, 2, 1, 3).reshape(4, -1)
            textures += [np.bincount(quarter, minlength=10) / quarters.shape[1] for quarter in quarters]
        # colours weigh as much as all textures; both are shares, so the squares of the roots sum to 1
        blocks = [np.sqrt(colours / 2), *(np.sqrt(texture / 2 / len(textures)) for texture in textures)]
        return np.concatenate(blocks).astype(np.float32)


class TransformerImage(nn.Module):
    """A transformers image model; as a module it can be a part of a system and be trained by the loop."""

    def __init__(self, model: nn.Module, processor: Any, *, name: str = "", tokenizer: Any = None, precision: Precision = "fp32") -> None:
        super().__init__()
        self.model, self.processor, self.tokenizer, self.name, self.precision = model, processor, tokenizer, name, precision
        config: Any = model.config
        self.joint = hasattr(model, "get_image_features")
        """whether texts share the space"""
        self.dim = int(getattr(config, "projection_dim", None) or getattr(getattr(config, "vision_config", config), "hidden_size"))  # noqa: B009

    @property
    def revision(self) -> str:
        """Of the weights."""
        return weights_hash(self.model)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W) -> (B, D) rows of length 1, differentiable."""
        found: Any = self.model.get_image_features(pixel_values=pixels) if self.joint else self.model(pixel_values=pixels)  # type: ignore[operator]
        return F.normalize(pooled(found).float(), dim=-1)

    def pixels(self, images: Sequence[Image]) -> Tensor:
        """Pictures -> (B, 3, H, W), resized, cropped and normalised as the model's own settings say."""
        ready: Tensor = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return ready

    @torch.inference_mode()
    def encode(self, images: Sequence[Picture]) -> Float32:
        """(N, D) rows of length 1; 0 for a picture that cannot be read."""
        training, device = self.training, next(self.parameters()).device
        self.eval()
        values = np.zeros((len(images), self.dim), dtype=np.float32)
        step = 8 * BATCH if device.type == "cuda" else BATCH
        for start in range(0, len(images), step):
            opened = [open_picture(image) for image in images[start : start + step]]
            rows = [start + n for n, picture in enumerate(opened) if picture is not None]
            if rows:
                pixels = self.pixels([picture for picture in opened if picture is not None]).to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=half(self.precision, device)):
                    values[rows] = self(pixels).float().cpu().numpy()
        self.train(training)
        return values

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Float32:
        """(N, D) in the space of the pictures. Raises ResourceError where the model knows no texts."""
        if not self.joint or self.tokenizer is None:
            raise ResourceError(f'The image encoder "{self.name}" knows no texts: ask with --image FILE, or encode with a CLIP or SigLIP model.')
        device = next(self.parameters()).device
        limit = self.model.config.text_config.max_position_embeddings  # type: ignore[union-attr]
        # SigLIP was trained on texts padded to the full length
        padding = "max_length" if "siglip" in str(self.model.config.model_type) else True  # type: ignore[union-attr]
        ready = self.tokenizer(list(texts), padding=padding, truncation=True, max_length=limit, return_tensors="pt")
        given = {key: value.to(device) for key, value in ready.items() if key in ("input_ids", "attention_mask")}
        found: Any = self.model.get_text_features(**given)  # type: ignore[operator]
        return F.normalize(pooled(found).float(), dim=-1).cpu().numpy()


def pooled(found: Any) -> Tensor:
    """The one vector a picture or text (B, D) of whatever a model returns: its pooled output, else its first token."""
    if isinstance(found, Tensor):
        return found
    pooler: Tensor | None = getattr(found, "pooler_output", None)
    first: Tensor = pooler if pooler is not None else found.last_hidden_state[:, 0]
    return first


def load_image(name: str, *, device: torch.device | None = None, precision: Precision = "auto") -> ColourTexture | TransformerImage:
    """An image encoder by name: "colour-texture", or a transformers name or local path. Raises ResourceError where it cannot be loaded."""
    if name == COLOUR_TEXTURE:
        return ColourTexture()
    try:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
    except ImportError:
        raise missing("transformers", "image", f'The image encoder "{name}"') from None
    try:
        with quiet_transformers():
            processor = AutoImageProcessor.from_pretrained(name, backend="pil")  # type: ignore[no-untyped-call]
            model = AutoModel.from_pretrained(name)
            tokenizer = AutoTokenizer.from_pretrained(name) if hasattr(model, "get_image_features") else None
    except (OSError, ValueError, KeyError) as error:
        raise unloadable(name, error) from None
    made = TransformerImage(model, processor, name=name, tokenizer=tokenizer, precision=precision)
    return made.to(device or torch.device("cpu")).eval()
