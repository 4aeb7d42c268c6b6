"""Vocabularies: hash order, growth that never moves a code, and ids of every kind."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.vocabulary import Vocabulary, hash_ids, mix

IDS = ["7", "007", "a b", "Ü-ber", "9223372036854775807", "2b0d1c6e-58c4-4a7e-9a3e-0f6a1f3a9d11", "", " ", "日本"]


def test_order_is_that_of_the_hash_and_not_of_the_file() -> None:
    numbers = [str(n) for n in range(1000)]
    v = Vocabulary.of(numbers)
    assert v.ids.to_list() == Vocabulary.of(numbers[::-1]).ids.to_list()
    assert (np.diff(hash_ids(v.ids.to_list()).astype(object)) > 0).all()
    assert abs(np.corrcoef(np.arange(1000), v.ids.cast(pl.Int64).to_numpy())[0, 1]) < 0.1


def test_hashes_are_the_same_everywhere() -> None:
    """Values written down once: a change would reorder every saved artifact."""
    assert hash_ids(["a", "ü"]).tolist() == [3405396810240292928, 3976460501203677525]
    published = [16294208416658607535, 7960286522194355700, 487617019471545679]
    """the first outputs of SplitMix64 from state 0"""
    assert [int(mix(np.zeros(1, dtype=np.uint64), seed)[0]) for seed in range(3)] == published


def test_mix_redraws_without_collisions() -> None:
    hashes = hash_ids([str(n) for n in range(2000)])
    draws = [mix(hashes, seed) for seed in (0, 1, 2, -1)]
    assert all(len(np.unique(d)) == 2000 for d in draws)
    orders = [np.argsort(np.argsort(d)) for d in draws]
    assert all(abs(np.corrcoef(orders[a], orders[b])[0, 1]) < 0.1 for a in range(4) for b in range(a))


@given(st.lists(st.text(max_size=4)), st.lists(st.text(max_size=4)))
@settings(max_examples=50, deadline=None)
def test_growth_keeps_codes_and_adds_each_new_id_once(first: list[str], more: list[str]) -> None:
    v = Vocabulary.of(first)
    grown = v.grown(more)
    assert grown.ids.to_list()[: len(v)] == v.ids.to_list()
    assert len(grown) == len(set(first) | set(more)) == len(set(grown.ids.to_list()))
    assert grown.decode(grown.encode(first + more)) == first + more
    assert grown.grown(more).ids.to_list() == grown.ids.to_list()


def test_encode_series_lists_and_single_ids_agree() -> None:
    v = Vocabulary.of(IDS)
    asked = [*IDS, "unknown", "7 ", "07", *IDS]
    codes = v.encode(asked)
    assert codes.tolist() == v.encode(pl.Series(asked)).tolist() == [v.code(i) for i in asked]
    assert (codes < 0).sum() == 3 and v.decode(codes[: len(IDS)]) == IDS
    assert v.encode(pl.Series([None, "7"], dtype=pl.String)).tolist() == [-1, v.code("7")]
    assert v.encode(pl.Series([7, 8])).tolist() == [v.code("7"), -1]


def test_nothing_in_nothing_out() -> None:
    empty = Vocabulary.of([])
    assert len(empty) == 0 and empty.encode(["a"]).tolist() == [-1] and empty.decode([-1]) == [None]
    assert empty.encode([]).dtype == np.int64 and Vocabulary.of(["a"]).decode(np.array([], dtype=np.int64)) == []


def test_encoded_codes_may_be_written_to() -> None:
    codes = Vocabulary.of(["a"]).encode(pl.Series(["a", "b"]))
    codes[0] = 5
    assert codes.tolist() == [5, -1]


def test_decode_series_keeps_nulls() -> None:
    v = Vocabulary.of(["a", "b"])
    assert v.decode_series(np.array([v.code("b"), -1])).to_list() == ["b", None]


def test_a_code_beyond_the_end_is_an_error() -> None:
    with pytest.raises(Exception, match="out of bounds"):
        Vocabulary.of(["a"]).decode([3])
