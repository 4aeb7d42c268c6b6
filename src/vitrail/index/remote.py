"""A Milvus server (or Milvus Lite, a file) as an index: for catalogues that outgrow a machine. Needs the extra `server` (pymilvus).

Filters become an allow-list of the primary key in Milvus's expression language; every id is written as a literal of that
language, so that no id is read as part of the expression. Conditions are tested here, over the attributes that were passed.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import torch

from vitrail.data.vocabulary import hash_ids
from vitrail.errors import ResourceError, SettingError
from vitrail.evaluation.ranking import by_tie_rank, tie_ranks
from vitrail.files import atomic_folder
from vitrail.index.base import Filter, Hits, Metric, as_vectors, check_k, check_metric, merged, passing

BATCH = 1000
"""Rows of one request."""
MOST = 16_384
"""Answers that Milvus gives at most."""
ID_LENGTH = 1024
"""Bytes of an id."""


def literal(text: str) -> str:
    """`text` as a string of Milvus's expression language, quotes and backslashes escaped, what is not ASCII as it is."""
    return json.dumps(text, ensure_ascii=False)


def one_of(ids: Sequence[str]) -> str:
    """The expression for these ids. The client makes such expressions by itself from `ids=`, but lets quotes in an id through: never use that."""
    return f"id in [{', '.join(literal(name) for name in ids)}]"


class MilvusIndex:
    """A collection of Milvus under the protocol of an index. The server does the search; `kind` is milvus."""

    kind: str = "milvus"
    kinds: ClassVar[tuple[str, ...]] = ("milvus",)

    def __init__(
        self,
        uri: str,
        collection: str,
        dim: int,
        *,
        metric: Metric = "ip",
        engine: str = "AUTOINDEX",
        token: str = "",
        attributes: pl.DataFrame | None = None,
        source: str | None = None,
    ) -> None:
        """`uri` is http://host:port, or a file ending in .db for Milvus Lite. The collection is made where there is none; `engine` is
        the kind of Milvus's own index (FLAT is exact). `token` is never written to disk.

        Raises SettingError for a bad name, width or metric, ResourceError where the client is not installed or the server does not answer.
        """
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", collection):
            raise SettingError(f'"{collection}" is no name of a collection: use letters, digits and _, beginning with a letter.')
        self.metric, self.dim, self.uri, self.collection, self.engine = check_metric(metric), dim, uri, collection, engine
        self.attributes, self.source = merged(None, attributes), source
        try:
            import pymilvus
        except ImportError:
            raise ResourceError("The Milvus client is not installed: pip install 'vitrail[server]'.") from None
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises, and we tell it in a sentence
        self._types = pymilvus.DataType
        self._errors = pymilvus.MilvusException
        with self._told():
            self._client = pymilvus.MilvusClient(uri=uri, token=token)
            if not self._client.has_collection(collection):
                self._make()
            self._client.load_collection(collection)
            fields = {field["name"]: field for field in self._client.describe_collection(collection)["fields"]}
        width = fields.get("vector", {}).get("params", {}).get("dim")
        if width is None or int(width) != dim or "id" not in fields:
            raise SettingError(f'The collection "{collection}" at {uri} holds vectors of the width {width}, and {dim} is needed: choose another name.')

    def _make(self) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", self._types.VARCHAR, max_length=ID_LENGTH, is_primary=True)
        schema.add_field("vector", self._types.FLOAT_VECTOR, dim=self.dim)
        parameters = self._client.prepare_index_params()
        parameters.add_index("vector", index_type=self.engine, metric_type="IP" if self.metric == "ip" else "COSINE")
        # strong: who has added an item finds it
        self._client.create_collection(self.collection, schema=schema, index_params=parameters, consistency_level="Strong")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            reason = " ".join(str(getattr(error, "message", error)).split())[:200].rstrip(".")
            raise ResourceError(f"Milvus at {self.uri} refused or does not answer ({reason}): check the address, the token and the server's log.") from None

    def __len__(self) -> int:
        with self._told():
            return int(self._client.query(self.collection, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def __repr__(self) -> str:
        return f"MilvusIndex({self.uri}, {self.collection}: {self.dim}, {self.metric})"

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def search(self, queries: Any, k: int = 10, filter: Filter | None = None) -> Hits:
        """As every index; `k` up to 16,384. Raises SettingError for a mask, which only an index on this machine can read."""
        check_k(k)
        if k > MOST:
            raise SettingError(f"k is {k:,}, and Milvus gives {MOST:,} answers at most.")
        Q = as_vectors(queries, self.dim)
        ids = np.full((len(Q), k), None, dtype=object)
        scores = np.full((len(Q), k), -np.inf, dtype=np.float32)
        expression = self._expression(filter)
        if expression is None:
            return Hits(ids, scores)
        for start in range(0, len(Q), 100):
            with self._told():
                found = self._client.search(self.collection, data=Q[start : start + 100].tolist(), limit=k, filter=expression, output_fields=["id"])
            for row, answers in enumerate(found, start=start):
                ids[row, : len(answers)] = [answer["id"] for answer in answers]
                scores[row, : len(answers)] = [answer["distance"] for answer in answers]
        return _ordered(ids, scores)

    def _expression(self, filter: Filter | None) -> str | None:
        """The filter in Milvus's language, empty for none; none where nothing passes. Raises SettingError."""
        if filter is None or (filter.ids is None and filter.where is None and filter.mask is None):
            return ""
        if filter.mask is not None:
            raise SettingError("A mask is in the order of an index on this machine, which Milvus does not have: filter by ids or by a condition.")
        allowed: set[str] | None = None if filter.ids is None else set(filter.ids)
        if filter.where is not None:
            held = passing(self.attributes, filter.where)
            assert self.attributes is not None
            names = set(self.attributes["item"].filter(pl.Series(held)).to_list())
            allowed = names if allowed is None else allowed & names
        assert allowed is not None
        return one_of(sorted(allowed)) if allowed else None

    # changing

    def add(self, ids: Sequence[str], vectors: Any, attributes: pl.DataFrame | None = None) -> None:
        """As every index; in requests of 1,000, so that a failure may leave some of them added."""
        self._put(list(ids), vectors, attributes, there=False)

    def replace(self, ids: Sequence[str], vectors: Any, attributes: pl.DataFrame | None = None) -> None:
        """As every index."""
        self._put(list(ids), vectors, attributes, there=True)

    def remove(self, ids: Sequence[str]) -> None:
        """As every index."""
        names = list(ids)
        self._check(names, there=True)
        with self._told():
            for start in range(0, len(names), BATCH):
                self._client.delete(self.collection, filter=one_of(names[start : start + BATCH]))

    def _put(self, ids: list[str], vectors: Any, attributes: pl.DataFrame | None, *, there: bool) -> None:
        array = as_vectors(vectors, self.dim) if ids else np.empty((0, self.dim), dtype=np.float32)
        if len(array) != len(ids):
            raise SettingError(f"There are {len(ids):,} ids and {len(array):,} vectors: each id needs one.")
        long = next((name for name in ids if len(name.encode()) > ID_LENGTH), None)
        if long is not None:
            raise SettingError(f'The id "{long[:40]}..." has more than {ID_LENGTH:,} bytes: Milvus is given none so long.')
        self._check(ids, there=there)
        table = merged(self.attributes, attributes)
        for start in range(0, len(ids), BATCH):
            rows = [{"id": name, "vector": vector.tolist()} for name, vector in zip(ids[start : start + BATCH], array[start : start + BATCH], strict=True)]
            with self._told():
                self._client.upsert(self.collection, rows)
        self.attributes = table

    def _check(self, ids: list[str], *, there: bool) -> None:
        """Raises SettingError where one of `ids` is twice, or is not as it must be."""
        if len(set(ids)) < len(ids):
            raise SettingError("An id occurs twice: an id has one vector.")
        known: set[str] = set()
        with self._told():
            for start in range(0, len(ids), BATCH):
                known |= {row["id"] for row in self._client.query(self.collection, filter=one_of(ids[start : start + BATCH]), output_fields=["id"])}
        wrong = next((name for name in ids if (name in known) != there), None)
        if wrong is not None:
            hint = "is not in the index: add it first" if there else "is in the index already: use replace to give it another vector"
            raise SettingError(f'The item "{wrong}" {hint}.')

    # telling and saving

    def stats(self) -> dict[str, Any]:
        """What it holds and where; the recall is the server's affair and is not measured here."""
        return {
            "kind": self.kind,
            "metric": self.metric,
            "dim": self.dim,
            "count": len(self),
            "uri": self.uri,
            "collection": self.collection,
            "engine": self.engine,
            "attributes": [] if self.attributes is None else [name for name in self.attributes.columns if name != "item"],
            "source": self.source,
            "recall": {"target": None, "measured": None},
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a folder that says where the vectors are, with the attributes; the vectors stay with the server."""
        from vitrail.index.store import write_manifest

        with self._told():
            self._client.flush(self.collection)
        with atomic_folder(path, overwrite=overwrite) as folder:
            if self.attributes is not None:
                self.attributes.write_parquet(folder / "attributes.parquet")
            write_manifest(folder, self.stats())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Connect to what `save` wrote down. Raises ArtifactError where that is damaged, ResourceError where the server does not answer."""
        from vitrail.index.store import open_index_as

        return open_index_as(cls, path)

    @classmethod
    def of(cls, manifest: dict[str, Any], attributes: pl.DataFrame | None, token: str = "") -> Self:
        """Connect as a manifest says."""
        kept = {name: manifest[name] for name in ("uri", "collection", "dim", "metric", "engine", "source")}
        return cls(**kept, token=token, attributes=attributes)


def _ordered(ids: Any, scores: Any) -> Hits:
    """Equal scores in the order of all of Vitrail: by a hash of the id."""
    names = list({name for name in ids.ravel() if name is not None})
    if not names or not (scores[:, 1:] == scores[:, :-1]).any():
        return Hits(ids, scores)
    code = {name: place for place, name in enumerate(names)}
    codes = np.array([[code.get(name, -1) for name in row] for row in ids.tolist()], dtype=np.int64)
    worth, found = by_tie_rank(torch.from_numpy(scores), torch.from_numpy(codes), tie_ranks(hash_ids(names), 0))
    table = np.array([*names, None], dtype=object)
    return Hits(table[found.numpy()], worth.numpy())
