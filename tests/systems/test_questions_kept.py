"""Nothing that is asked or given is changed by asking: scipy sums repeats in place, and must do so on a copy."""

import torch

from vitrail.blocks.graph import bipartite_adjacency
from vitrail.data.batches import Sets
from vitrail.systems.skeletons import history_matrix

INDPTR, ITEMS = [0, 3, 5], [4, 1, 4, 2, 2]


def test_a_history_with_repeats_is_the_same_after_a_table_was_asked():
    histories = Sets(torch.tensor([0, 1]), torch.tensor(INDPTR), torch.tensor(ITEMS))
    first, second = (history_matrix(histories, 6, binary=False).toarray() for _ in range(2))
    assert (first == second).all() and first[0, 4] == 2
    assert history_matrix(histories, 6, binary=True).toarray()[0, 4] == 1
    assert histories.items.tolist() == ITEMS and histories.indptr.tolist() == INDPTR


def test_given_interactions_with_repeats_are_the_same_after_the_graph_was_built():
    indptr, items = torch.tensor(INDPTR), torch.tensor(ITEMS)
    bipartite_adjacency(indptr, items, 6)
    assert items.tolist() == ITEMS and indptr.tolist() == INDPTR
