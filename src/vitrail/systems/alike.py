"""Systems whose items take from alike items: what behaviour and each kind of content add to a score, and which items it came through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vitrail.blocks.item_graph import ItemGraph
from vitrail.data.batches import Sets


class Alike:
    """Tells the parts of its scores; name it after the skeleton of a system whose vectors of items are a sum, `layered`, over a `graph` of alike items."""

    graph: ItemGraph
    config: Any

    def layered(self) -> dict[str, Tensor]:
        """What the vectors of items (N, D) are a sum of: `behaviour`, and by name what each kind of content carries over from alike items."""
        raise NotImplementedError

    def parts(self, histories: Sets, items: Tensor) -> dict[str, Tensor]:
        """What behaviour and each kind of content add to the scores of items (B, K): part -> (B, K)."""
        system: Any = self
        found = {part: system.narrow(vectors) for part, vectors in self.layered().items()}
        whole = torch.stack(list(found.values())).sum(0)
        length = whole.norm(dim=1, keepdim=True).clamp(min=1e-12) if self.config.cosine else torch.ones(len(whole), 1, device=whole.device)
        u = system.query_vectors(histories)
        return {part: torch.einsum("bd,bkd->bk", u, (vectors / length)[items.to(u.device)]).cpu() for part, vectors in found.items()}

    def leant_on(self, histories: Sets, items: Tensor) -> tuple[Tensor, Tensor]:
        """The alike items of items (1, K), (K, M), -1 where there are fewer, and what each adds to the score by one propagation over the item graph; an
        item is among its own, which is its own vector."""
        system: Any = self
        ids, weights = self.graph.neighbours_of(items[0].cpu())
        vectors = system.narrow(system.items)[ids.clamp(min=0).to(system.items.device)]
        return ids, weights * (vectors @ system.query_vectors(histories)[0]).cpu()
