"""Ids, rows, and the gate between searches and changes."""

import threading
import time

import numpy as np
import pytest
import torch

from vitrail.errors import SettingError
from vitrail.index.rows import Gate, Rows, limited, room_for


def test_a_row_without_a_name_is_minus_one():
    rows = Rows(["a", "b"])
    assert rows.names[np.array([[1, -1]])].tolist() == [["b", None]]
    rows.append([f"n{number}" for number in range(50)])
    assert rows.names[-1] is None and len(rows) == 52


def test_a_replaced_id_keeps_its_place_and_compaction_closes_gaps():
    rows = Rows(["a", "b", "c"])
    old = rows.known(["b"])
    births = rows.births[old]
    rows.bury(old)
    rows.append(["b"], births)
    rows.bury(rows.known(["a"]))
    rows.append(["d"])
    assert rows.names[rows.order].tolist() == ["b", "c", "d"] and rows.dead == 2
    fresh, was = rows.compacted()
    assert fresh.names.tolist() == ["b", "c", "d", None] and was.tolist() == [3, 2, 4] and fresh.dead == 0
    fresh.append(["e"])
    assert fresh.names[fresh.order].tolist() == ["b", "c", "d", "e"]


def test_keys_order_ties_as_ranks_do():
    rows = Rows([f"item {number}" for number in range(500)])
    assert torch.equal(rows.keys.argsort(), rows.ranks.argsort())


def test_wrong_ids_are_sentences():
    with pytest.raises(SettingError, match='"a" occurs twice'):
        Rows(["a", "b", "a"])
    rows = Rows(["a"])
    for call, words in (
        (lambda: rows.known(["a", "z"]), 'no item "z"'),
        (lambda: rows.known(["a", "a"]), "twice"),
        (lambda: rows.fresh(["a"]), "use replace"),
        (lambda: rows.fresh(["x", "x"]), "twice"),
    ):
        with pytest.raises(SettingError, match=words):
            call()


def test_room_grows_by_half_and_is_empty():
    grown = room_for(np.arange(10), 10, 1)
    assert len(grown) == 15 and grown[:10].tolist() == list(range(10)) and not grown[10:].any()
    assert room_for(grown, 10, 5) is grown


def test_a_change_waits_for_searches_and_searches_for_it():
    gate, order = Gate(), []
    inside = threading.Event()

    def search():
        with gate:
            inside.set()
            time.sleep(0.05)
            order.append("search")

    thread = threading.Thread(target=search)
    thread.start()
    inside.wait()
    with gate.change():
        order.append("change")
    thread.join()
    assert order == ["search", "change"]


def test_a_full_cache_is_emptied():
    cache = {}
    for number in range(5):
        assert limited(cache, number, lambda number=number: str(number), most=3) == str(number)
    assert list(cache) == [3, 4] and limited(cache, 4, lambda: "anew") == "4"
