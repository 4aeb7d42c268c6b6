"""What an answer of each ranker costs: `score` of one person's candidates, from the history in codes to calibrated chances, on one core.

Weights are as they start (an answer takes as long as with any). An item has its id, three attributes and two vectors of content; an impression the features
of its past, which are worked out anew for each answer, and the score and place that retrieval gave it. Every answer is another person's, and nothing is kept
from one to the next. A batch of one is what a service asks.
"""

from __future__ import annotations

import time
from typing import Any

import _record
import numpy as np
import polars as pl
import torch

from vitrail.blocks.modality import to_int8
from vitrail.data import fields as F
from vitrail.data.batches import Sets
from vitrail.data.fields import Catalogue, FeatureSpec, Field
from vitrail.data.log import Log
from vitrail.data.past import DAY, ItemPast
from vitrail.systems import registry
from vitrail.systems.base import Given, Sizes
from vitrail.systems.ranker import Ranker

ITEMS, SHORT, LONG = 20_000, 50, 10_000
ATTRIBUTES = {"category": 48, "subcategory": 400, "colour": 12}
CONTENT = {"text": 384, "image": 512}
SEARCHING: dict[str, tuple[str, dict[str, Any]]] = {
    "SIM soft": ("sim", {}),
    "SIM hard": ("sim", {"search": "hard", "category": "subcategory"}),
    "ETA": ("eta", {}),
    "SDIM": ("sdim", {}),
    "MUSE, text": ("muse", {"vectors": ["text"]}),
    "MUSE, text and image": ("muse", {}),
    "DARE": ("dare", {}),
}
"""Those that search a long history; `attention: mlp`, where they have it, is measured too."""


class World:
    """People with histories of `length` events over a catalogue, and what rankers know of it."""

    def __init__(self, people: int, length: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.rng, self.people = rng, people
        indptr = np.arange(people + 1) * length
        times = np.sort(rng.integers(0, 365 * DAY, (people, length)), axis=1).reshape(-1)
        self.log = Log(indptr, self.drawn(people * length).astype(np.int32), ITEMS, times)
        codes = np.stack([np.arange(ITEMS) + 2, *(rng.integers(2, n + 2, ITEMS) for n in ATTRIBUTES.values())], axis=1).astype(np.int32)
        users = np.concatenate([rng.integers(2, 22, (people, 1)), [[F.UNSEEN]]]).astype(np.int32)
        self.catalogue = Catalogue(codes, users)
        others, when = self.drawn(500_000), rng.integers(0, 365 * DAY, 500_000)
        self.events = ItemPast(ITEMS, np.concatenate([self.log.items.astype(np.int64), others]), np.concatenate([times, when]))
        self.spec = self._spec()
        generator = torch.Generator().manual_seed(seed)
        self.vectors = {name: torch.randn(ITEMS, width, generator=generator) for name, width in CONTENT.items()}

    def drawn(self, n: int) -> np.ndarray:
        """(n,) items, few of them often."""
        return np.minimum((ITEMS * self.rng.random(n) ** 3).astype(np.int64), ITEMS - 1)

    def _spec(self) -> FeatureSpec:
        fields = [Field(name="item", whose="item", kind="id", codes=ITEMS + 2)]
        fields += [Field(name=name, whose="item", kind="category", codes=n + 2) for name, n in ATTRIBUTES.items()]
        fields.append(Field(name="city", whose="user", kind="category", codes=22))
        spec = FeatureSpec(fields=fields)
        categories = self.catalogue.categories(spec)
        names = ["user count", "user gap", "item count", "item gap", *(F.AFFINITY + name for name in categories)]
        owners, items = self.rng.integers(0, self.people, 2_000), self.drawn(2_000)
        now, starts = np.full(2_000, 365 * DAY), self.log.indptr[owners]
        values = F.past_values(names, self.log, owners, starts, self.log.indptr[owners + 1], items, now, self.events, None, self.catalogue, categories)
        edges = {name: F.quantile_edges(values[name], 32) for name in names} | {"score": [n / 32 for n in range(1, 32)], "place": list(range(10, 500, 16))}
        fields += [Field(name=name, whose="event", kind="number", codes=len(cuts) + 3, edges=cuts) for name, cuts in edges.items()]
        return FeatureSpec(fields=fields)

    def model(self, name: str, settings: dict[str, Any]) -> Ranker:
        """The ranker, as it starts."""
        cls = registry.find(name)
        read = settings.get("vectors", cls.Config.model_fields["vectors"].default)
        tables = {key: torch.from_numpy(value) for key, value in self.catalogue.arrays().items()} | {"occurrences": torch.ones(ITEMS, dtype=torch.int64)}
        tables |= {"events.items": torch.from_numpy(self.events.items), "events.times": torch.from_numpy(self.events.times)}
        masks = {n: torch.ones(ITEMS, dtype=torch.bool) for n in read}
        sizes = Sizes(self.people, ITEMS, {n: CONTENT[n] for n in read}, self.spec)
        torch.manual_seed(0)
        config = cls.Config.of({key: value for key, value in settings.items() if key in cls.Config.model_fields})
        stored = {n: to_int8(self.vectors[n]) if getattr(config, "store", "") == "int8" else self.vectors[n] for n in read}
        model = cls(config, sizes, Given(vectors=stored, masks=masks, tables=tables)).eval()
        assert isinstance(model, Ranker)
        return model

    def question(self, person: int, candidates: int) -> tuple[Sets, torch.Tensor, dict[str, pl.Series]]:
        """A person, items to rank, and what retrieval says of them."""
        told = {"score": pl.Series(self.rng.random(candidates)), "place": pl.Series(np.arange(1.0, candidates + 1))}
        return self.log.histories(np.array([person % self.people])), torch.from_numpy(self.drawn(candidates)[None]), told

    def cost(self, model: Ranker, candidates: int, calls: int) -> dict[str, dict[str, float]]:
        """Milliseconds of an answer, by the clock and by what the processor did, for busy machines."""
        wall, work = [], []
        asked = [self.question(person, candidates) for person in range(calls + max(calls // 5, 3))]
        with torch.inference_mode():
            for histories, items, told in asked:
                cpu, clock = time.process_time(), time.perf_counter()
                model.score(histories, items, 365 * DAY, told)
                wall.append(1e3 * (time.perf_counter() - clock))
                work.append(1e3 * (time.process_time() - cpu))
        return {"ms": _record.spread(wall[-calls:]), "processor ms": _record.spread(work[-calls:])}


def measure(systems: list[str], calls: int, settings: dict[str, Any]) -> int:
    """Every ranker (or `systems`, by name as the registry has it) at 200 and 500 candidates; those that search at 200, over 10,000 events."""
    torch.set_num_threads(1)
    before, results, goals = _record.load(), {}, []

    def row(world: World, label: str, name: str, told: dict[str, Any], bars: dict[int, float]) -> None:
        model = world.model(name, told)
        results[label] = {f"{n} candidates": world.cost(model, n, calls) for n in bars}
        for n, bar in bars.items():
            found = results[label][f"{n} candidates"]
            print(f"{label:40} {n:>4} candidates {found['ms']['median']:8.2f} ms, processor {found['processor ms']['median']:8.2f} ms", flush=True)
            goals.append(_record.goal(f"{label}, {n} candidates, ms", found["ms"]["median"], below=bar))

    chosen = systems or [name for name in registry.names() if registry.card(name).stage == "rank"]
    short = World(400, SHORT)
    for name in chosen:
        if registry.find(name).trained:
            told = {"long": SHORT} if "long" in registry.find(name).Config.model_fields else {}
            row(short, f"{name}, {SHORT} events", name, told | settings, {200: 3.0, 500: 8.0})
    long = World(40, LONG)
    for label, (name, own) in SEARCHING.items():
        if name in chosen:
            row(long, f"{label}, {LONG:,} events", name, own | {"long": LONG} | settings, {200: 25.0})
            if "attention" in registry.find(name).Config.model_fields:
                row(long, f"{label}, {LONG:,} events, MLP attention", name, own | {"long": LONG, "attention": "mlp"} | settings, {200: 25.0})
    return _record.save("rank_serving", results, goals, before=before, settings={"systems": chosen, "calls": calls, **settings})
