"""Words of the catalogue, weighted by TF-IDF and folded to a few dimensions by a truncated SVD: a text encoder without a model.

It is fitted on the texts it encodes (latent semantic analysis, Deerwester et al., 1990); a question is folded in by the same words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import sparse
from scipy.sparse.linalg import svds

from vitrail.content.base import Float32, unit
from vitrail.errors import DataError
from vitrail.files import fingerprint

WORD = r"[\p{L}\p{N}]+"
FEW = 50
"""Texts in which any word may occur, however few texts there are."""


class TfIdf:
    """Words that occur in at least `least` texts and, but for small catalogues, in at most half of them; D = 256 dimensions, fewer for a small catalogue."""

    name = "tfidf"

    def __init__(self, texts: Sequence[str], dim: int = 256, least: int = 2) -> None:
        """Fit. Raises DataError where the texts hold no words."""
        self.revision = fingerprint(["lsa-1", dim, least, list(texts)])
        counted = self._count(texts)
        frequency = counted.group_by("word").agg(pl.len().alias("texts")).sort("word")
        kept = frequency.filter((pl.col("texts") >= least) & (pl.col("texts") <= max(len(texts) // 2, FEW)))
        if kept.height < 2:
            kept = frequency
        if not kept.height:
            raise DataError("The texts hold no words: choose other --columns, or another encoder.")
        self.words = self._choose(kept, dim).with_columns(
            code=pl.int_range(pl.len()), idf=(float(1 + len(texts)) / (1 + pl.col("texts"))).log() + 1
        ).drop("texts")  # fmt: skip
        self._settle(self._weigh(counted, len(texts)), dim)

    def _choose(self, words: pl.DataFrame, dim: int) -> pl.DataFrame:
        """Which words are read: all that were kept."""
        return words

    def _settle(self, X: sparse.csr_array, dim: int) -> None:
        """Find the axes to which the weights X (N, V) are folded."""
        self.dim = min(dim, *X.shape)
        if min(X.shape) <= 2 * self.dim:  # Arnoldi iterations want a long way to go
            _, _, V = np.linalg.svd(X.toarray(), full_matrices=False)
            self.axes = V[: self.dim].T
        else:
            _, s, V = svds(X, k=self.dim, v0=np.ones(min(X.shape)))
            self.axes = V[np.argsort(-s)].T
        self.axes = self.axes * np.where(self.axes[np.abs(self.axes).argmax(0), np.arange(self.dim)] < 0, -1.0, 1.0)

    def encode(self, texts: Sequence[str]) -> Float32:
        """(N, D) rows of length 1; 0 for a text without a known word."""
        return unit(self._weigh(self._count(texts), len(texts)) @ self.axes)

    encode_query = encode

    @staticmethod
    def _count(texts: Sequence[str]) -> pl.DataFrame:
        frame = pl.DataFrame({"word": pl.Series(list(texts), dtype=pl.String)}).with_row_index("row")
        words = frame.with_columns(pl.col("word").str.to_lowercase().str.extract_all(WORD)).explode("word").drop_nulls()
        return words.group_by("row", "word").agg(pl.len().alias("count")).sort("row", "word")

    def _weigh(self, counted: pl.DataFrame, n: int) -> sparse.csr_array:
        """(N, V): (1 + ln count) idf, rows of length 1."""
        found = counted.join(self.words, on="word", how="inner").sort("row", "code")
        values = (1 + np.log(found["count"].to_numpy())) * found["idf"].to_numpy()
        rows, codes = found["row"].to_numpy().astype(np.int64), found["code"].to_numpy().astype(np.int64)
        X = sparse.csr_array((values, (rows, codes)), shape=(n, self.words.height))
        length = np.sqrt(X.multiply(X).sum(1))
        return sparse.csr_array(sparse.diags_array(1 / np.where(length > 0, length, 1.0)) @ X)


class Words(TfIdf):
    """The same weights, not folded: a column a word, D = 4096 words that most texts have, fewer where there are fewer. For systems that read words."""

    name = "words"

    def __init__(self, texts: Sequence[str], dim: int = 4096, least: int = 2) -> None:
        super().__init__(texts, dim, least)
        self.revision = fingerprint(["words-1", self.revision])

    def _choose(self, words: pl.DataFrame, dim: int) -> pl.DataFrame:
        return words.sort(["texts", "word"], descending=[True, False]).head(dim).sort("word")

    def _settle(self, X: sparse.csr_array, dim: int) -> None:
        self.dim = self.words.height

    def encode(self, texts: Sequence[str]) -> Float32:
        """(N, D) rows of length 1, none below 0; 0 for a text without a known word."""
        return self._weigh(self._count(texts), len(texts)).toarray().astype(np.float32)

    encode_query = encode


FITTED: dict[str, type[TfIdf]] = {TfIdf.name: TfIdf, Words.name: Words}
"""Encoders that are fitted on the catalogue, by name."""
