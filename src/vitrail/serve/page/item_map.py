"""The items of a fitted system on a plane: near each other where the system holds them alike. Letters: N items, D width, P points."""

from __future__ import annotations

import base64
import html
import importlib.resources
import importlib.util
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vitrail.errors import ResourceError, SettingError, unknown
from vitrail.files import write_text
from vitrail.funnel.catalogue import columns_for_people
from vitrail.funnel.recommender import Recommender
from vitrail.plotstyle import GREY, PALETTE
from vitrail.serve.page.pictures import Pictures

Method = Literal["auto", "tsne", "pca"]
SHOWN_PICTURES = 1500
"""Items whose picture is put into the page, the popular ones first."""
PICTURE = 96
"""Longest side of a picture in the page, pixels."""


def vectors_of(recommender: Recommender) -> tuple[torch.Tensor, str]:
    """(N, D) vectors that say how alike items are, and what they are: those of the system, else its content, else the leading directions of its
    similarity. Raises SettingError where it has none of these."""
    model, given = recommender.model, recommender.given
    own = model.item_vectors()
    if own is not None:
        return own.detach().float().cpu(), "vectors of the system"
    if given.vectors:
        kinds = [F.normalize(given.vectors[name].float(), dim=1) * given.masks[name][:, None] for name in given.vectors]
        return torch.cat(kinds, 1), f"content ({', '.join(given.vectors)})"
    if model.can.similar:
        with torch.inference_mode():
            table = torch.cat([model.similarity(part).float().cpu() for part in torch.arange(model.sizes.items).split(1024)])
        return torch.svd_lowrank(table, q=min(64, len(table)))[0], "similarity of the system"
    raise SettingError(f'System "{recommender.name}" holds no items alike, so they have no place on a map: name a run of another system.')


def plane(vectors: torch.Tensor, method: Method, seed: int = 0) -> tuple[npt.NDArray[np.float32], str]:
    """vectors (P, D) -> places (P, 2), each axis within -1 to 1, and how they were found. Raises ResourceError for `tsne` without scikit-learn."""
    there = importlib.util.find_spec("sklearn") is not None
    if method == "tsne" and not there:
        raise ResourceError('A map by t-SNE needs scikit-learn, which is not installed: pip install scikit-learn, or ask with --method pca.')
    centred = vectors - vectors.mean(0) if len(vectors) else vectors
    few = len(vectors) < 5
    generator = torch.random.get_rng_state()
    torch.manual_seed(seed)
    wide = torch.pca_lowrank(centred, q=min(50, *centred.shape), center=False) if len(vectors) > 1 else None
    torch.random.set_rng_state(generator)
    reduced = centred @ wide[2] if wide is not None else torch.zeros(len(vectors), 2)
    if method == "tsne" or (method == "auto" and there and not few):
        from sklearn.manifold import TSNE

        places = TSNE(2, init="pca", random_state=seed, perplexity=min(30.0, (len(vectors) - 1) / 3)).fit_transform(reduced.numpy())
        how = "t-SNE"
    else:
        places, how = F.pad(reduced[:, :2], (0, max(0, 2 - reduced.shape[1]))).numpy(), "two principal components"
    places = places - places.mean(0) if len(places) else places
    return (places / max(float(np.abs(places).max(initial=0.0)), 1e-12)).astype(np.float32), how


def item_map(recommender: Recommender, *, most: int = 3000, method: Method = "auto", category: str | None = None, seed: int = 0) -> dict[str, Any]:
    """{system, data, what, how, category, categories, points: [{item, x, y, title, category, count}]} of the `most` popular items that have a vector.

    `category`: the attribute that colours them (none: the likeliest). Raises SettingError for an unknown attribute, and as `vectors_of` and `plane`.
    """
    columns = columns_for_people(recommender.items.schema, recommender.info.get("columns") or {})
    if category is not None and category not in recommender.items.columns:
        raise unknown("attribute", category, recommender.items.columns)
    coloured = category or columns.category
    vectors, what = vectors_of(recommender)
    have = (vectors.abs().sum(1) > 0).nonzero()[:, 0]
    order = have[recommender.popularity[have].argsort(descending=True, stable=True)][:most]
    places, how = plane(vectors[order], method, seed)
    rows = recommender.items[order.numpy()]
    titles = rows[columns.title].to_list() if columns.title else [None] * len(rows)
    groups = [_group(value) for value in (rows[coloured].to_list() if coloured else [None] * len(rows))]
    counts = recommender.popularity[order].int().tolist()
    told = zip(rows["item"].to_list(), places.tolist(), titles, groups, counts, strict=True)
    points = [
        {"item": item, "x": round(x, 4), "y": round(y, 4), "title": item if title is None else str(title), "category": group, "count": count}
        for item, (x, y), title, group, count in told
    ]
    sizes: dict[str, int] = {}
    for group in groups:
        if group is not None:
            sizes[group] = sizes.get(group, 0) + 1
    ordered = sorted(sizes, key=lambda name: (-sizes[name], name))
    data = (recommender.info.get("data") or {}).get("name")
    return {"system": recommender.name, "data": data, "what": what, "how": how, "category": coloured, "categories": ordered, "points": points}


def _group(value: Any) -> str | None:
    """The category that colours an item: of several the first."""
    if isinstance(value, list):
        value = value[0] if value else None
    return None if value is None else str(value)


def write_map(recommender: Recommender, path: str | Path, **asked: Any) -> dict[str, Any]:
    """Write the page of `item_map` with the pictures of the popular items in it; it needs nothing else. Returns the map."""
    made = item_map(recommender, **asked)
    pictures = Pictures((recommender.info.get("data") or {}).get("path"))
    shown = {}
    for point in made["points"][:SHOWN_PICTURES]:
        small = pictures.small(point["item"], PICTURE)
        if small is not None:
            shown[point["item"]] = base64.b64encode(small).decode()
    write_text(Path(path), page(made, shown))
    return made


def page(made: dict[str, Any], pictures: dict[str, str]) -> str:
    """The page as HTML. What comes from the data is text in it, never markup."""
    template = importlib.resources.files("vitrail.serve").joinpath("map.html").read_text(encoding="utf-8")
    facts = {"map": made, "pictures": pictures, "colours": [colour for colour in PALETTE if colour != GREY], "grey": GREY}
    # a script ends at the first "</", whatever it stands in
    data = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/").replace("<!--", "<\\!--")
    title = html.escape(f"The items of {made['system']}" + (f" on {made['data']}" if made["data"] else ""))
    return template.replace("{{title}}", title).replace("{{data}}", data)
