import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from vitrail.evaluation import journal


def write_many(folder, name):
    for n in range(50):
        journal.append(folder, {"system": name, "fingerprint": "f", "text": "é" * 5000, "n": n})


def test_counts_by_fingerprint(tmp_path):
    assert journal.count(tmp_path) == 0
    assert journal.append(tmp_path, {"system": "a", "fingerprint": "x"}) is None
    journal.append(tmp_path, {"system": "b", "fingerprint": "y"})
    assert journal.count(tmp_path) == 2 and journal.count(tmp_path, "y") == 1 and journal.count(tmp_path, "z") == 0
    assert [record["system"] for record in journal.read(tmp_path)] == ["a", "b"]
    assert next(journal.read(tmp_path))["time"].endswith("+00:00")


def test_processes_write_whole_lines(tmp_path):
    with ThreadPoolExecutor() as pool:
        jobs = [get_context("fork").Process(target=write_many, args=(tmp_path, str(n))) for n in range(3)]
        for job in jobs:
            job.start()
        list(pool.map(lambda n: write_many(tmp_path, f"thread {n}"), range(2)))
        for job in jobs:
            job.join()
    assert journal.count(tmp_path, "f") == 250
    lines = (tmp_path / journal.NAME).read_text(encoding="utf-8").splitlines()
    assert sum(line != "" for line in lines) == 250


def test_a_torn_line_costs_only_itself(tmp_path):
    journal.append(tmp_path, {"system": "a"})
    with (tmp_path / journal.NAME).open("a") as file:
        file.write('{"system": "to')
    journal.append(tmp_path, {"system": "b"})
    assert [record["system"] for record in journal.read(tmp_path)] == ["a", "b"]


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    sentence = journal.append(tmp_path / "absent", {"system": "a"})
    assert sentence and sentence.count(".") <= 3 and "not in the log" in sentence
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    tmp_path.chmod(0o500)
    assert "writable" in (journal.append(tmp_path, {"system": "a"}) or "")
