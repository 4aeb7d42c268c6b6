"""DLRM: the checks of its card; its dots by hand stand in tests/blocks/test_interact.py."""

import torch

from vitrail.data.fields import Field
from vitrail.testing_rank import tiny, tiny_batch, tiny_rows

NUMBERS = [
    Field(name="price", whose="event", kind="number", codes=6, edges=[1.0, 2.0, 3.0]),
    Field(name="slot", whose="event", kind="category", codes=6, values=["a", "b", "c", "d"]),
    Field(name="clicks", whose="event", kind="number", codes=3, edges=[]),
]


def test_numbers_are_places_of_buckets_and_what_is_missing_is_marked():
    """Codes 2 to 5 of four buckets are 0, 1/3, 2/3, 1; one bucket says nothing but that the number is there."""
    model = tiny("dlrm", fields=NUMBERS)
    rows = tiny_rows(4, fields=3)
    rows.fields[:] = [[2, 2, 0], [3, 0, 2], [5, 3, 2], [0, 2, 0]]
    wanted = [[0, 0, 1, 0], [1 / 3, 0, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0]]
    torch.testing.assert_close(model.dense(tiny_batch(rows)), torch.tensor(wanted))


def test_the_top_reads_every_pair_of_categories_and_the_numbers():
    model, batch = tiny("dlrm", fields=NUMBERS), tiny_batch(tiny_rows(6, codes=3, fields=3))
    # item, category, tags, city, slot, and of the history item, category, tags: 8 vectors, with the numbers 9
    assert model.get_buffer("sparse").tolist() == [0, 1, 2, 3, 5, 7, 8, 9] and model.top.layers[0].in_features == 36 + 4
    vectors = torch.cat([model.bottom(model.dense(batch))[:, None], model.vectors(batch)[:, model.get_buffer("sparse")]], 1)
    dots = torch.stack([(vectors[:, i] * vectors[:, j]).sum(1) for i in range(9) for j in range(i + 1, 9)], 1)
    torch.testing.assert_close(model.logit(batch), model.top(torch.cat([dots, vectors[:, 0]], 1)).squeeze(1))
    model.train().loss(batch).backward()
    assert all(p.grad is not None for p in [*model.bottom.parameters(), *model.top.parameters()])


def test_without_numbers_dots_are_all_it_reads():
    model = tiny("dlrm", history=False)
    assert model.bottom is None and model.top.layers[0].in_features == 10
    assert model.logit(tiny_batch()).shape == (12,)


def test_content_is_one_of_the_vectors():
    plain = tiny("dlrm", fields=NUMBERS)
    model = tiny("dlrm", fields=NUMBERS, vectors={"text": torch.randn(8, 3)}, masks={"text": torch.arange(8) < 6})
    assert len(model.get_buffer("sparse")) == len(plain.get_buffer("sparse")) + 2  # of the item and of the history
    assert model.logit(tiny_batch(tiny_rows(6, codes=3, fields=3))).shape == (6,)
