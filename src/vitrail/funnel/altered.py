"""A fitted system over other content than it was fitted on: what a kind of content does for it."""

from __future__ import annotations

from dataclasses import replace

import torch

from vitrail.funnel.recommender import Recommender
from vitrail.systems.base import Given, System


def changed(given: Given, what: str, name: str | None, level: float, seed: int) -> Given:
    """The content with the vectors `name` taken away from every item (`without`) or a share `level` of those that have them (`missing`), or with normal
    noise of `level` times the root mean square of each vector (`noise`)."""
    if name is None:
        return given
    values, mask = given.vectors[name], given.masks[name]
    generator = torch.Generator().manual_seed(seed)
    if what == "noise":
        scale = level * values.square().mean(1, keepdim=True).sqrt()
        values = values + scale * torch.randn(values.shape, generator=generator)
    else:
        have = mask.nonzero()[:, 0]
        gone = have if what == "without" else have[torch.randperm(len(have), generator=generator)[: round(level * len(have))]]
        mask = mask.index_fill(0, gone, False)
        values = values * mask[:, None]
    return replace(given, vectors=given.vectors | {name: values}, masks=given.masks | {name: mask})


def with_content(recommender: Recommender, given: Given) -> Recommender:
    """The same weights over other content; what was computed from content is computed anew, what was learned stays."""
    model = recommender.model
    made = type(model)(model.config, model.sizes, given)
    state = made.state_dict()
    if state.keys() != model.state_dict().keys():  # a table, whose weights are there once it is restored
        made.restore(model.state_dict())
    else:
        with torch.no_grad():
            for key, old in model.state_dict().items():
                if state[key].shape == old.shape:
                    state[key].copy_(old)
    return like(recommender, made, given)


def like(recommender: Recommender, model: System, given: Given) -> Recommender:
    """A recommender with all that `recommender` knows, and another model."""
    return Recommender(model, given, recommender.known, recommender.popularity, recommender.items, recommender._users, recommender.info)
