"""How long each stage of an answer takes."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Clock:
    """Milliseconds of each stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What passed since the last lap is of `stage`."""
        now = time.perf_counter()
        self.ms[stage] = self.ms.get(stage, 0.0) + (now - self._last) * 1000
        self._last = now

    @property
    def total(self) -> float:
        """All so far."""
        return sum(self.ms.values())

    def rounded(self) -> Mapping[str, float]:
        """For people and JSON."""
        return {stage: round(value, 3) for stage, value in self.ms.items()}
