"""Encoders that a system trains: padding is not read, hidden words are told, a transformers model fits the same shape."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from vitrail.content.tunable import SPECIAL, Scratch, Tunable, Tuned, WordHead, collated, hide_words

sys.path.insert(0, str(Path(__file__).parent))


def scratch() -> Scratch:
    torch.manual_seed(0)
    return Scratch(8, 1, 12, words=64).eval()


def test_rows_begin_and_end() -> None:
    ids, mask = collated(torch.tensor([[7, -1, 9, -1], [-1, -1, -1, -1]]), 1, 3, 0)
    assert ids.tolist() == [[1, 7, 9, 3], [1, 3, 0, 0]] and mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert collated(torch.empty(0, 4, dtype=torch.int64), 1, 3, 0)[0].shape == (0, 2)


def test_words_are_hashed_in_lower_case() -> None:
    one = scratch()
    red, both, none = one.tokenize(["Red", "red BLUE dress", ""], 2)
    assert red[0] == both[0] and len(both) == 2 and none == [] and min(both) >= SPECIAL
    assert isinstance(one, Tunable)


def test_padding_is_not_read() -> None:
    one = scratch()
    short, long = torch.tensor([[5, 6, -1, -1, -1]]), torch.tensor([[7, 8, 9, 10, 11]])
    alone = one.hidden(*collated(short, 1, 3, 0))
    together = one.hidden(*collated(torch.cat([short, long]), 1, 3, 0))
    torch.testing.assert_close(together[:1, :4], alone)


def test_hidden_words() -> None:
    torch.manual_seed(0)
    ids = torch.arange(10, 20).repeat(2000, 1)
    able = torch.ones_like(ids, dtype=torch.bool)
    able[:, 0] = False
    shown, hidden = hide_words(ids, able, 2, 50, 0.15)
    assert not hidden[:, 0].any() and shown[~hidden].equal(ids[~hidden])
    assert float(hidden[:, 1:].float().mean()) == pytest.approx(0.15, abs=0.01)
    assert float((shown[hidden] == 2).float().mean()) == pytest.approx(0.82, abs=0.03), "80 %, and what is drawn by chance"
    assert float((shown[hidden] == ids[hidden]).float().mean()) == pytest.approx(0.10, abs=0.03)
    assert WordHead(8, 50)(torch.randn(3, 8), torch.randn(50, 8)).shape == (3, 50)


def test_a_transformers_model_of_a_folder(tmp_path: Path) -> None:
    from test_text import tiny

    model, tokenizer = tiny()
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer.save_pretrained(tmp_path)
    one = Tuned(str(tmp_path))
    read = one.tokenize(["red dress", "blue"], 5)
    assert isinstance(one, Tunable) and len(read) == 2 and one.first not in read[0] and one.tokenize([], 3) == []
    ids, mask = collated(torch.tensor([[*read[0][:1], -1], [*read[1][:1], -1]]), one.first, one.last, one.pad)
    assert one.hidden(ids, mask).shape == (2, 3, one.dim) and one.words().shape[1] == one.dim
