"""Small copies of pictures, for pages."""

from __future__ import annotations

import io
from pathlib import Path

PIXELS = 60_000_000
"""Of a picture that is decoded."""


def small_jpeg(image: Path | bytes, size: int, *, quality: int = 85, subsampling: int = 2, formats: tuple[str, ...] | None = None) -> bytes | None:
    """A copy of a picture on white, `size` pixels on its longer side at most; none where it cannot be read, or is larger than PIXELS.

    `subsampling` as Pillow counts it: 0 keeps colours as sharp as the drawing, 2 is smaller. `formats`: those that may be decoded; none: any.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=formats) as opened:
            if opened.width * opened.height > PIXELS:
                return None
            opened.draft("RGB", (2 * size, 2 * size))
            flat = opened.convert("RGBA")
            flat.thumbnail((size, size))
            paper = Image.new("RGB", flat.size, "white")
            paper.paste(flat, mask=flat.getchannel("A"))
            coded = io.BytesIO()
            paper.save(coded, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return coded.getvalue()
