"""The catalogue of the simulated shop: latent vectors, attributes, text and drawn pictures of its items.

Letters: N items, C categories, I interests (category x subcategory x colour), D latent factors.
"""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.data import simulate_words as words
from vitrail.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vitrail.data.simulate import SimulatorSettings

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

START = date(2024, 1, 1)
"""First day of every simulated shop."""
NOISE = 0.25
"""Length of the part of an item's vector that no attribute tells."""
PARTS = (1.0, 0.7, 0.5)
"""Lengths of the category, subcategory and colour parts of a vector."""
COLD_SPAN = 0.1
"""Cold items are released in this last share of the time span."""


@dataclass(frozen=True)
class Catalogue:
    """What the shop sells, in code order."""

    ids: pl.Series
    """(N,) outside ids"""
    category: Int64
    """(N,)"""
    subcategory: Int64
    """(N,) within the category"""
    colour: Int64
    """(N,)"""
    price: npt.NDArray[np.float64]
    """(N,) euros"""
    price_level: Float32
    """(N,) log price against the mean of its category, in standard deviations"""
    released: Int64
    """(N,) day of the time span on which the item appears; negative: before the first day"""
    cold: npt.NDArray[np.bool_]
    """(N,) appears only in the last part"""
    appeal: npt.NDArray[np.float64]
    """(N,) Zipf weight, the largest is 1"""
    vectors: Float32
    """(N, D)"""
    interests: Float32
    """(I, D) vector of each interest"""
    season: npt.NDArray[np.float64]
    """(days, C) factor on each category's exposure"""

    @property
    def n_categories(self) -> int:
        """C."""
        return self.season.shape[1]


def generator(seed: int, *stream: int) -> np.random.Generator:
    """The generator of one named stream of randomness, e.g. (seed, 3, block)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *stream])))


def interest_of(category: Int64, subcategory: Int64, colour: Int64) -> Int64:
    """The interest code of a (category, subcategory, colour)."""
    return (category * words.SUBCATEGORIES + subcategory) * len(words.COLOURS) + colour


def category_of(interest: Int64) -> Int64:
    """The category of an interest."""
    return interest // (words.SUBCATEGORIES * len(words.COLOURS))


def category_names(count: int) -> list[str]:
    """C names; past the word lists a name comes again with a number."""
    base = list(words.CATEGORIES)
    return [base[c % len(base)] + (f" {c // len(base) + 1}" if c >= len(base) else "") for c in range(count)]


def _directions(rng: np.random.Generator, count: int, width: int) -> npt.NDArray[np.float64]:
    vectors = rng.normal(size=(count, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_catalogue(settings: SimulatorSettings) -> Catalogue:
    """Draw the items of the shop; the same settings give the same items."""
    rng = generator(settings.seed, 0)
    n, c, d = settings.items, settings.categories, settings.factors
    ids = Vocabulary.of([f"i{number:0{len(str(n))}d}" for number in range(1, n + 1)]).ids
    sizes = rng.dirichlet(np.full(c, 4.0))
    category = rng.choice(c, size=n, p=sizes)
    subcategory = rng.integers(words.SUBCATEGORIES, size=n)
    colour = rng.integers(len(words.COLOURS), size=n)

    kinds = interest_of(*(grid.ravel() for grid in np.meshgrid(np.arange(c), np.arange(words.SUBCATEGORIES), np.arange(len(words.COLOURS)), indexing="ij")))
    centres, finer, styles = _directions(rng, c, d), _directions(rng, c * words.SUBCATEGORIES, d), _directions(rng, len(words.COLOURS), d)
    interests = PARTS[0] * centres[category_of(kinds)] + PARTS[1] * finer[kinds // len(words.COLOURS)] + PARTS[2] * styles[kinds % len(words.COLOURS)]
    vectors = interests[interest_of(category, subcategory, colour)] + NOISE * _directions(rng, n, d)

    level = rng.normal(size=n)
    typical = rng.normal(math.log(18.0), 0.6, size=c)
    price = np.asarray(np.maximum(np.exp(typical[category] + 0.4 * level), 0.5).round(2), dtype=np.float64)

    rank = rng.permutation(n)
    appeal = np.asarray((rank + 1.0) ** -settings.popularity_skew, dtype=np.float64)
    late = rng.random(n) < 0.2
    released = np.where(late, rng.integers(0, max(int(settings.days * 0.8), 1), size=n), -rng.integers(1, 730, size=n))
    cold = np.zeros(n, dtype=bool)
    cold[rng.permutation(n)[: round(settings.cold_items * n)]] = True
    first_cold = min(math.ceil(settings.days * (1 - COLD_SPAN)), settings.days - 1)
    released = np.where(cold, rng.integers(first_cold, settings.days, size=n), released)
    if not (released <= 0).any():
        # A shop with nothing to sell on its first day cannot have events.
        opener = int(np.argmin(rank))
        released[opener], cold[opener] = 0, False

    phase = rng.random(c)
    year = (np.arange(settings.days)[:, None] % 365.25) / 365.25
    season = np.exp(settings.season_strength * np.cos(2 * np.pi * (year - phase)))
    return Catalogue(
        ids, category, subcategory, colour, price, level.astype(np.float32), released.astype(np.int64), cold, appeal,
        vectors.astype(np.float32), interests.astype(np.float32), season,
    )  # fmt: skip


def item_table(catalogue: Catalogue, settings: SimulatorSettings) -> pl.DataFrame:
    """The `items` table (N rows, code order): item, title, description, category, subcategory, colour, shape, price, released, image."""
    rng = generator(settings.seed, 1)
    n = len(catalogue.ids)
    names, base, colours = category_names(catalogue.n_categories), list(words.CATEGORIES), list(words.COLOURS)
    subs = [list(words.CATEGORIES[base[c % len(base)]]) for c in range(catalogue.n_categories)]
    fine = [[words.CATEGORIES[base[c % len(base)]][sub].split() for sub in subs[c]] for c in range(catalogue.n_categories)]
    tones = [words.COLOURS[colour][1].split() for colour in colours]
    picks = rng.integers(1 << 30, size=(n, 7)).tolist()
    titles, texts = [], []
    for c, s, k, pick in zip(catalogue.category.tolist(), catalogue.subcategory.tolist(), catalogue.colour.tolist(), picks, strict=True):
        noun, speak, tone = subs[c][s], fine[c][s], tones[k]
        a, b = speak[pick[0] % len(speak)], speak[(pick[0] + 1 + pick[1] % (len(speak) - 1)) % len(speak)]
        finish = words.FINISHES[pick[2] % len(words.FINISHES)]
        titles.append(f"{finish.capitalize()} {colours[k]} {noun}, {a}")
        parts = (words.OPENINGS[pick[3] % len(words.OPENINGS)], words.MIDDLES[pick[4] % len(words.MIDDLES)], words.CLOSINGS[pick[5] % len(words.CLOSINGS)])
        tell = {"a": a, "A": a.capitalize(), "b": b, "noun": noun, "colour": colours[k], "c": tone[pick[6] % len(tone)], "category": names[c]}
        texts.append(" ".join(parts).format_map(tell))
    table = pl.DataFrame(
        {
            "item": catalogue.ids,
            "title": titles,
            "description": texts,
            "category": [names[c] for c in catalogue.category.tolist()],
            "subcategory": [subs[c][s] for c, s in zip(catalogue.category.tolist(), catalogue.subcategory.tolist(), strict=True)],
            "colour": [colours[k] for k in catalogue.colour.tolist()],
            "shape": [shape_name(c) for c in catalogue.category.tolist()],
            "price": catalogue.price,
            "released": pl.Series((catalogue.released + (START - date(1970, 1, 1)).days).astype(np.int32)).cast(pl.Date),
        }
    )
    if settings.pictures:
        table = table.with_columns(("pictures/" + pl.col("item") + ".png").alias("image"))
    return table


def shape_name(category: int) -> str:
    """The form that pictures of a category are drawn in."""
    shape = words.SHAPES[category % len(words.SHAPES)]
    return shape if category // len(words.SHAPES) % 2 == 0 else f"framed {shape}"


def draw_pictures(catalogue: Catalogue, settings: SimulatorSettings, folder: Path) -> str:
    """Write `folder`/<item>.png (64 x 64) for every item; returns the SHA-256 over all of them in code order.

    Shape tells the category, pattern the subcategory, colour the colour; size, turn and tint are noise.
    """
    rng = generator(settings.seed, 2)
    folder.mkdir(parents=True, exist_ok=True)
    jitter = rng.random((len(catalogue.ids), 5))
    digest = hashlib.sha256()
    colours = [colour[0] for colour in words.COLOURS.values()]
    rows = zip(catalogue.ids.to_list(), catalogue.category.tolist(), catalogue.subcategory.tolist(), catalogue.colour.tolist(), jitter.tolist(), strict=True)
    for name, c, s, k, noise in rows:
        content = _picture(c, s, colours[k], noise)
        digest.update(content)
        (folder / f"{name}.png").write_bytes(content)
    return digest.hexdigest()


def _picture(category: int, pattern: int, colour: tuple[int, int, int], noise: list[float]) -> bytes:
    from PIL import Image, ImageDraw

    size = 128
    tint = [min(max(round(v + 30 * (noise[0] - 0.5)), 0), 255) for v in colour]
    main = (tint[0], tint[1], tint[2])
    pale = tuple(round(255 - (255 - v) * 0.16) for v in tint)
    light = tuple(round(255 - (255 - v) * 0.42) for v in tint)
    mask = Image.new("L", (size, size), 0)
    radius, turn = 40 + 8 * noise[1], 0.5 * (noise[2] - 0.5)
    centre = (size / 2 + 8 * (noise[3] - 0.5), size / 2 + 8 * (noise[4] - 0.5))
    ImageDraw.Draw(mask).polygon(_outline(words.SHAPES[category % len(words.SHAPES)], centre, radius, turn), fill=255)
    fill = Image.new("RGB", (size, size), main)
    pen: Any = ImageDraw.Draw(fill)
    step = 18
    if words.PATTERNS[pattern] == "stripes":
        for x in range(-size, 2 * size, step):
            pen.line([(x, 0), (x + size, size)], fill=light, width=7)
    elif words.PATTERNS[pattern] == "dots":
        for row, y in enumerate(range(0, size + step, step)):
            for x in range(-(row % 2) * step // 2, size + step, step):
                pen.ellipse([x - 5, y - 5, x + 5, y + 5], fill=light)
    elif words.PATTERNS[pattern] == "checks":
        for row, y in enumerate(range(0, size, step)):
            for x in range((row % 2) * step, size, 2 * step):
                pen.rectangle([x, y, x + step - 1, y + step - 1], fill=light)
    picture = Image.new("RGB", (size, size), pale)
    if category // len(words.SHAPES) % 2 == 1:
        ImageDraw.Draw(picture).rectangle([5, 5, size - 6, size - 6], outline=main, width=6)
    picture.paste(fill, mask=mask)
    buffer = io.BytesIO()
    picture.resize((64, 64), Image.Resampling.LANCZOS).save(buffer, format="PNG")
    return buffer.getvalue()


def _outline(shape: str, centre: tuple[float, float], radius: float, turn: float) -> list[tuple[float, float]]:
    """Corners of a shape of `radius` pixels, turned by `turn` radians."""
    if shape == "star":
        polar = [(math.pi * k / 5, 1.15 if k % 2 == 0 else 0.5) for k in range(10)]
    elif shape == "drop":
        polar = [(a, 0.75 + 0.6 * max(math.cos(a), 0.0) ** 14) for a in (2 * math.pi * k / 48 for k in range(48))]
    elif shape == "cross":
        polar = [(math.pi / 2 * k + side, 1.05 if side else 0.5) for k in range(4) for side in (-0.36, 0.36)]
        polar = [corner for k in range(4) for corner in (polar[2 * k], polar[2 * k + 1], (math.pi / 2 * k + math.pi / 4, 0.52))]
    elif shape == "square":
        polar = [(math.pi / 4 + math.pi / 2 * k, 1.15) for k in range(4)]
    elif shape == "diamond":
        polar = [(math.pi / 2 * k, 1.15 if k % 2 == 0 else 0.75) for k in range(4)]
    else:
        corners = {"triangle": 3, "hexagon": 6, "circle": 48}[shape]
        polar = [(2 * math.pi * k / corners, 1.1 if corners == 3 else 1.0) for k in range(corners)]
    return [(centre[0] + radius * r * math.sin(a + turn), centre[1] - radius * r * math.cos(a + turn)) for a, r in polar]


def shop_schema(pictures: bool) -> dict[str, Any]:
    """Kinds of the columns of the simulated tables, as in DatasetInfo.columns."""
    items = {"title": "text", "description": "text", "category": "category", "subcategory": "category", "colour": "category", "shape": "category"}
    items |= {"price": "number", "released": "date"} | ({"image": "image"} if pictures else {})
    return {"items": items, "users": {"age": "category", "country": "category"}, "interactions": {}}
