"""What an encoder of text or pictures is. Letters: N rows, D width."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from vitrail.errors import ResourceError

if TYPE_CHECKING:
    from PIL.Image import Image

Float32 = npt.NDArray[np.float32]
Picture: TypeAlias = "str | Path | bytes | Image"
"""A file, the bytes of one, or a picture that is open."""


@runtime_checkable
class Encoder(Protocol):
    """What every encoder tells of itself."""

    @property
    def name(self) -> str:
        """What `encode` calls it: a short name, or a model's name or path."""
        ...

    @property
    def revision(self) -> str:
        """Its version, down to the weights and the settings that move its vectors."""
        ...

    @property
    def dim(self) -> int:
        """D"""
        ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """Texts -> vectors."""

    def encode(self, texts: Sequence[str]) -> Float32:
        """(N, D) rows of length 1; a row of zeros where the text says nothing to it."""
        ...

    def encode_query(self, texts: Sequence[str]) -> Float32:
        """(N, D) vectors of questions, in the same space."""
        ...


@runtime_checkable
class ImageEncoder(Encoder, Protocol):
    """Pictures -> vectors."""

    def encode(self, images: Sequence[Picture]) -> Float32:
        """(N, D) rows of length 1; a row of zeros where a picture cannot be read."""
        ...


@runtime_checkable
class PictureText(ImageEncoder, Protocol):
    """An image encoder that puts texts into the space of its pictures (CLIP)."""

    def encode_text(self, texts: Sequence[str]) -> Float32:
        """(N, D)"""
        ...


def unit(values: npt.NDArray[np.floating]) -> Float32:
    """(N, D) -> rows of length 1; rows of zeros stay."""
    length = np.sqrt((values.astype(np.float64) ** 2).sum(-1, keepdims=True))
    return (values / np.where(length > 0, length, 1.0)).astype(np.float32)


def missing(package: str, extra: str, what: str) -> ResourceError:
    """The error for an optional library that is not installed."""
    return ResourceError(f'{what} needs {package}, which is not installed: pip install "vitrail[{extra}]".')
