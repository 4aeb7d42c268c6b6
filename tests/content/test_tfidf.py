"""TF-IDF with a truncated SVD: equal to a dense reference, the same on every run, and words it does not know say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.content.base import TextEncoder
from vitrail.content.tfidf import TfIdf, Words
from vitrail.errors import DataError

WORDS = ["red", "blue", "lipstick", "scarf", "wool", "matt", "silk", "warm", "long", "soft", "new", "old"]
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, 5)) for _ in range(60)]


def reference(texts: list[str], known: list[str], least: int) -> np.ndarray:
    """(N, V) dense weights."""
    counts = np.array([[text.split().count(word) for word in known] for text in texts], dtype=float)
    idf = np.log((1 + len(texts)) / (1 + (counts > 0).sum(0))) + 1
    X = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * idf
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.mark.parametrize("dim", [3, 256])  # by Arnoldi iterations and by the dense decomposition
def test_equals_the_dense_reference(dim: int) -> None:
    encoder = TfIdf(TEXTS, dim=dim)
    assert isinstance(encoder, TextEncoder)
    kept = [word for word in sorted(WORDS) if 2 <= sum(word in text.split() for text in TEXTS) <= 50]
    assert encoder.words["word"].to_list() == kept
    X = reference(TEXTS, kept, 2)
    _, _, V = np.linalg.svd(X, full_matrices=False)
    folded = X @ V[: encoder.dim].T
    expected = folded / np.linalg.norm(folded, axis=1, keepdims=True)
    ours = encoder.encode(TEXTS)
    np.testing.assert_allclose(ours @ ours.T, expected @ expected.T, atol=1e-5)


def test_the_same_again_and_another_revision_for_other_texts() -> None:
    one, two = TfIdf(TEXTS), TfIdf(TEXTS)
    assert np.array_equal(one.encode(TEXTS), two.encode(TEXTS)) and one.revision == two.revision
    assert TfIdf(TEXTS[1:]).revision != one.revision
    assert not one.encode(["zzz", ""]).any() and one.encode_query(["RED lipstick!"]).any()


def test_small_and_empty_catalogues() -> None:
    encoder = TfIdf(["one text alone"])
    assert encoder.dim == 1 and encoder.encode(["one text alone"]).shape == (1, 1)
    assert TfIdf(["ein", "zwei", "три"]).encode(["три"]).any()
    with pytest.raises(DataError, match="no words"):
        TfIdf(["...", ""])


def test_words_are_the_same_weights_not_folded() -> None:
    encoder = Words(TEXTS)
    kept = encoder.words["word"].to_list()
    np.testing.assert_allclose(encoder.encode(TEXTS), reference(TEXTS, kept, 2), atol=1e-6)
    assert isinstance(encoder, TextEncoder) and encoder.dim == len(kept) and encoder.revision != TfIdf(TEXTS).revision
    few = Words(TEXTS, dim=3)
    often = sorted(kept, key=lambda word: (-sum(word in text.split() for text in TEXTS), word))[:3]
    assert few.words["word"].to_list() == sorted(often) and few.encode(["zzz"]).shape == (1, 3)
