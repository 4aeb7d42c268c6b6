"""Small copies of pictures."""

import io

import pytest
from PIL import Image

from vitrail.data.pictures import small_jpeg


def made(kind, size, mode="RGB", colour="red"):
    coded = io.BytesIO()
    Image.new(mode, size, colour).save(coded, kind)
    return coded.getvalue()


def test_a_copy_is_small_and_stands_on_white(tmp_path):
    (tmp_path / "a.png").write_bytes(made("PNG", (300, 150), "RGBA", (0, 0, 0, 0)))
    copy = Image.open(io.BytesIO(small_jpeg(tmp_path / "a.png", 96)))
    assert copy.format == "JPEG" and copy.size == (96, 48) and copy.getpixel((10, 10)) == (255, 255, 255)
    assert Image.open(io.BytesIO(small_jpeg(made("PNG", (20, 10)), 96))).size == (20, 10), "a small one is not blown up"


def test_what_is_no_picture_or_too_large_or_of_another_format_gives_none(monkeypatch):
    assert small_jpeg(b"text", 96) is None and small_jpeg(made("PNG", (9, 9)), 96, formats=("JPEG",)) is None
    monkeypatch.setattr("vitrail.data.pictures.PIXELS", 50)
    assert small_jpeg(made("PNG", (9, 9)), 96) is None


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP", "WEBP"])
def test_formats(kind):
    assert small_jpeg(made(kind, (50, 50)), 24) is not None
