"""A bucket a client: bursts, the steady rate, and a bounded memory."""

from __future__ import annotations

import pytest

from vitrail.serve import limits
from vitrail.serve.limits import Limits


def test_a_burst_then_the_steady_rate() -> None:
    bucket = Limits(10.0, burst=3)
    assert [bucket.wait("a", 0.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.wait("a", 0.0) == pytest.approx(0.1)
    assert bucket.wait("b", 0.0) == 0
    assert bucket.wait("a", 0.1) == 0
    assert bucket.wait("a", 0.15) == pytest.approx(0.05)
    assert [bucket.wait("a", 100.0) for _ in range(4)][2:] == [0, pytest.approx(0.1)]


def test_slow_rates_let_one_through() -> None:
    bucket = Limits(0.1)
    assert bucket.wait("a", 0.0) == 0
    assert bucket.wait("a", 0.0) == pytest.approx(10)
    assert bucket.wait("a", 10.0) == 0


def test_who_has_not_asked_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_CLIENTS", 3)
    bucket = Limits(1.0, burst=1)
    for client in "abcd":
        bucket.wait(client, 0.0)
    assert len(bucket._buckets) == 3
    assert bucket.wait("a", 0.0) == 0
    assert bucket.wait("d", 0.0) > 0
