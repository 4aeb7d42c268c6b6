"""Approximate search by faiss: inverted lists or an HNSW graph over the vectors of an exact index, which stays beside them for
what must be exact: filters that few items pass, the order of candidates of compressed kinds, and the recall itself.

Filters: the effort of a search grows with 1 / (share of items that pass), until the measured cost says that scoring those
items exactly is cheaper. The first search under a filter also asks for exact answers to some of its queries; where the
recall on them is under the target, this filter is answered exactly from then on. A list is never shorter than min(k, items that pass).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveInt, Settings, Share
from vitrail.evaluation.ranking import by_tie_rank
from vitrail.index.base import Float, Int, Mask, Metric
from vitrail.index.exact import ExactIndex, Kept, Number
from vitrail.index.rows import Rows

if TYPE_CHECKING:
    import faiss

KINDS = {"ivf": "IVF{lists},Flat", "hnsw": "HNSW{links},Flat", "ivf-sq8": "IVF{lists},SQ8", "ivf-rabitq": "IVF{lists},RaBitQ"}
"""The kinds, as faiss names them; the last two are compressed and order their candidates anew by the vectors."""
LINKS, BREADTH = 32, 80
"""HNSW: links of a node, and how many are looked at when one is added."""
TRAINED_ON = 64
"""Vectors a list that k-means sees."""
AUDIT = 16
"""Queries of the first search under a filter that are answered exactly too."""
FEW = 32
"""Queries under which one thread searches: waking others costs more than it brings."""
FILE = "structure.faiss"


class Plan(Settings):
    """How an approximate index searches, found out when it was built."""

    effort: PositiveInt = 1
    """Lists that are looked into (ivf), or candidates kept on the way (hnsw)."""
    refine: NonNegativeInt = 0
    """Candidates an answer that are ordered anew by the vectors; 0: none."""
    k: PositiveInt = 10
    """Answers it was tuned for."""
    target: Share = 0.95
    """The recall asked for."""
    measured: Share | None = None
    """The recall on queries that the tuning did not see."""
    queries: NonNegativeInt = 0
    """How many those were."""
    seconds: NonNegativeFloat = 0.0
    """A query costs this without a filter."""
    gather: NonNegativeFloat = 0.0
    """Copying out one row for an exact search, seconds."""
    dot: NonNegativeFloat = 0.0
    """Scoring one row for one query exactly, seconds."""


def lists_for(n: int) -> int:
    """Inverted lists for n vectors: the power of two at or under 2 sqrt(n)."""
    return 1 << max(0, int(np.log2(max(2 * n**0.5, 1))))


def make_structure(kind: str, dim: int, n: int) -> faiss.Index:
    """An empty, untrained faiss index for about n vectors of width `dim`."""
    import faiss

    lists = lists_for(n)
    structure = faiss.index_factory(dim, KINDS[kind].format(lists=lists, links=LINKS), faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        structure.hnsw.efConstruction = BREADTH
    else:
        structure.cp.min_points_per_centroid, structure.cp.max_points_per_centroid = 1, TRAINED_ON
    return structure


class AnnIndex(ExactIndex):
    """An exact index with a faiss structure over the same rows."""

    kinds: ClassVar[tuple[str, ...]] = tuple(KINDS)

    def __init__(
        self,
        ids: Sequence[str] | Rows,
        vectors: Any,
        *,
        kind: str,
        plan: Plan | None = None,
        structure: faiss.Index | None = None,
        metric: Metric = "ip",
        dtype: Number = "float32",
        attributes: pl.DataFrame | None = None,
        source: str | None = None,
    ) -> None:
        """As ExactIndex; the structure is built where none is given. Use `vitrail.index.build.build_index`, which tunes it."""
        super().__init__(ids, vectors, metric=metric, dtype=dtype, attributes=attributes, source=source)
        self.kind = kind
        self._mapped = structure is not None
        self._structure = self._built() if structure is None else structure
        self.plan = Plan()
        self.follow(plan or Plan(refine=0 if kind in ("ivf", "hnsw") else 4))

    def follow(self, plan: Plan) -> None:
        """Search as `plan` says."""
        with self._gate.change():
            self.plan = plan
            if self.kind == "hnsw":
                self._structure.hnsw.efSearch = plan.effort
            else:
                self._structure.nprobe = min(plan.effort, self._structure.nlist)
            self._changed()

    @property
    def ceiling(self) -> int:
        """The largest effort that makes sense."""
        return 4096 if self.kind == "hnsw" else int(self._structure.nlist)

    @property
    def lowest(self) -> Mask:
        """(N,) true for the nodes of a graph that stand on its lowest level alone and are not where searches enter."""
        import faiss

        graph = self._structure.hnsw
        lowest = np.asarray(faiss.vector_to_array(graph.levels) == 1)
        lowest[graph.entry_point] = False
        return lowest

    @contextmanager
    def aside(self, rows: Int) -> Iterator[None]:
        """While it lasts no link of the graph leads to `rows` (S,), of `lowest`: a search is one of an index that they were never added to.

        A vector that asks from within the graph stands beside its answers by the links that were made for it, and promises too much of those that do not.
        """
        import faiss

        if not len(rows):
            yield
            return
        graph = self._structure.hnsw
        links, starts = (faiss.vector_to_array(part) for part in (graph.neighbors, graph.offsets))
        gone = np.zeros(self.rows.n + 1, dtype=bool)  # the last is where -1, no link, looks
        gone[rows] = True
        nodes = np.unique(np.searchsorted(starts, np.flatnonzero(gone[links]), side="right") - 1)
        places = starts[nodes].astype(np.int64)[:, None] + np.arange(int(faiss.vector_to_array(graph.cum_nneighbor_per_level)[1]))
        left = np.where(gone[links[places]], -1, links[places])
        changed = links.copy()
        changed[places] = np.take_along_axis(left, np.argsort(left < 0, axis=1, kind="stable"), axis=1)  # a list ends with the first that is no link
        faiss.copy_array_to_vector(changed, graph.neighbors)
        try:
            yield
        finally:
            faiss.copy_array_to_vector(links, graph.neighbors)

    # searching

    def _search(self, Q: Float, k: int, kept: Kept | None) -> tuple[Int, Float]:
        if kept is None and k < self.rows.n:
            rows, scores = self._approximate(Q, k, None)
            if len(Q) == 1 and rows[0, k - 1] >= 0:  # the common case, in which every microsecond is seen
                return rows, scores
            wanting = rows[:, k - 1] < 0
        elif kept is None or kept.exactly or kept.count <= k or self._scan_is_cheaper(kept, k, len(Q)):
            return self._scan(Q, k, kept)
        else:
            rows, scores = self._approximate(Q, k, kept)
            wanting = rows[:, k - 1] < 0
            if kept.exactly is None and len(Q):
                truth = self._scan(Q[:AUDIT], k, kept)
                found = recalls(scores[:AUDIT], truth[1])
                kept.exactly = bool(found.mean() + found.std() / len(found) ** 0.5 < self.plan.target)
                rows[:AUDIT], scores[:AUDIT] = truth
                wanting = np.arange(len(Q)) >= AUDIT if kept.exactly else rows[:, k - 1] < 0
        if wanting.any():
            rows[wanting], scores[wanting] = self._scan(Q[wanting], k, kept)
        return rows, scores

    def _scan_is_cheaper(self, kept: Kept, k: int, queries: int) -> bool:
        share = kept.count / max(self.rows.n, 1)
        gather = self.plan.gather / max(queries, 1)
        return kept.count * (gather + self.plan.dot) < self.plan.seconds * max(1.0, k / self.plan.k) / share

    def _approximate(self, Q: Float, k: int, kept: Kept | None, effort: int | None = None) -> tuple[Int, Float]:
        import faiss

        plan, n = self.plan, self.rows.n
        fetch = min(max(k, plan.k) * plan.refine if plan.refine else k, n)
        parameters = None
        if effort is not None or kept is not None or k > plan.k:
            share = 1.0 if kept is None else kept.count / n
            scaled = int(np.ceil((effort or plan.effort) * max(1.0, k / plan.k) / share))
            parameters = self._parameters(scaled, fetch, kept)
        faiss.omp_set_num_threads(1 if len(Q) < FEW else torch.get_num_threads())
        scores, rows = self._structure.search(Q, fetch, params=parameters)
        if plan.refine:
            return self._refined(Q, rows, k)
        tied = len(set(scores[0].tolist())) < fetch if len(Q) == 1 else (scores[:, 1:] == scores[:, :-1]).any()
        if tied:
            scores[rows < 0] = -np.inf
            worth, codes = by_tie_rank(torch.from_numpy(scores), torch.from_numpy(rows), self.rows.keys)
            scores, rows = worth.numpy(), codes.numpy()
        return (rows, scores) if fetch == k else (_padded(rows, k, -1), _padded(scores, k, -np.inf))

    def _parameters(self, effort: int, fetch: int, kept: Kept | None) -> faiss.SearchParameters:
        import faiss

        selector = None
        if kept is not None:
            if kept.selector is None:
                kept.selector = faiss.IDSelectorBitmap(kept.bits)
            selector = kept.selector
        if self.kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=min(max(effort, fetch), max(self.ceiling, fetch)), sel=selector)
        return faiss.SearchParametersIVF(nprobe=min(effort, self.ceiling), sel=selector)

    def _refined(self, Q: Float, rows: Int, k: int) -> tuple[Int, Float]:
        """The k best of candidates (B, R) by the vectors themselves."""
        scores = np.empty(rows.shape, dtype=np.float32)
        step = max(1, (1 << 24) // max(rows.shape[1] * self.dim, 1))
        for start in range(0, len(Q), step):
            part = slice(start, start + step)
            scores[part] = np.matmul(self._vectors[rows[part]].astype(np.float32, copy=False), Q[part, :, None])[..., 0]
        scores[rows < 0] = -np.inf
        worth, codes = by_tie_rank(torch.from_numpy(scores), torch.from_numpy(rows), self.rows.keys)
        return _padded(codes[:, :k].numpy(), k, -1), _padded(worth[:, :k].numpy(), k, -np.inf)

    # changing

    def _built(self) -> faiss.Index:
        import faiss

        structure = make_structure(self.kind, self.dim, len(self))
        faiss.omp_set_num_threads(torch.get_num_threads())
        rng = np.random.default_rng(0)
        most = TRAINED_ON * lists_for(len(self))
        sample = slice(None) if self.rows.n <= most else np.sort(rng.choice(self.rows.n, most, replace=False))
        if not structure.is_trained:
            structure.train(np.ascontiguousarray(self._vectors[: self.rows.n][sample], dtype=np.float32))
        self._fill(structure)
        return structure

    def _fill(self, structure: faiss.Index, step: int = 1 << 16) -> None:
        for start in range(0, self.rows.n, step):
            structure.add(np.ascontiguousarray(self._vectors[start : min(start + step, self.rows.n)], dtype=np.float32))

    def _own(self) -> None:
        """Take a mapped structure into memory: what is mapped cannot change."""
        if self._mapped:
            import faiss

            self._structure, self._mapped = faiss.deserialize_index(faiss.serialize_index(self._structure)), False

    def _append(self, ids: list[str], vectors: npt.NDArray[Any], births: Int | None = None) -> None:
        if not ids:
            return
        self._own()
        super()._append(ids, vectors, births)
        self._structure.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def _compact(self) -> None:
        super()._compact()
        self._own()
        if self.kind == "hnsw":
            self._structure = make_structure(self.kind, self.dim, len(self))
            self._structure.hnsw.efSearch = self.plan.effort
        else:
            self._structure.reset()
        self._fill(self._structure)

    # telling and saving

    def _plan(self) -> dict[str, Any]:
        plan = self.plan
        engine = {"links": LINKS} if self.kind == "hnsw" else {"lists": self.ceiling}
        told = {"recall": {"target": plan.target, "measured": plan.measured, "k": plan.k, "queries": plan.queries}, "effort": plan.effort}
        return {**told, "plan": plan.model_dump(mode="json"), "engine": engine}

    def _write(self, folder: Path) -> None:
        import faiss

        faiss.write_index(self._structure, str(folder / FILE))

    @classmethod
    def _read(cls, folder: Path, manifest: dict[str, Any], rows: Rows, vectors: Any, attributes: pl.DataFrame | None) -> Self:
        import faiss

        structure = faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP_IFC)
        if structure.ntotal != rows.n or structure.d != manifest["dim"]:
            raise ValueError
        kept = {name: manifest[name] for name in ("metric", "dtype", "source", "kind")}
        return cls(rows, vectors, plan=Plan(**manifest["plan"]), structure=structure, attributes=attributes, **kept)


def recall(scores: Float, truth: Float) -> float:
    """Share of the exact answers that were found, by their scores (B, K), so that an equal one counts as found."""
    return float(recalls(scores, truth).mean()) if len(truth) else 1.0


def recalls(scores: Float, truth: Float) -> Float:
    """(B,) recall of each query: answers as good as the last exact one, over the number of exact ones."""
    there = truth > -np.inf
    asked = there.sum(1)
    last = np.where(there, truth, np.inf).min(1, keepdims=True, initial=np.inf)
    slack = 1e-5 * np.maximum(np.abs(np.where(np.isfinite(last), last, 0)), 1e-3)
    found = np.minimum(((scores >= last - slack) & (scores > -np.inf)).sum(1), asked)
    return np.where(asked > 0, found / np.maximum(asked, 1), 1.0).astype(np.float32)


def _padded(array: npt.NDArray[Any], k: int, value: float) -> npt.NDArray[Any]:
    """`array` (B, K') brought to (B, k)."""
    if array.shape[1] >= k:
        return np.ascontiguousarray(array[:, :k])
    return np.pad(array, ((0, 0), (0, k - array.shape[1])), constant_values=value)
