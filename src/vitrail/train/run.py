"""A run folder: run.yaml (settings), curves.jsonl, environment.json, checkpoints while it trains, artifact/ when it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from vitrail.config import Settings
from vitrail.errors import ArtifactError, SettingError
from vitrail.files import write_json, write_text
from vitrail.train.checkpoint import Progress


class Run(Settings):
    """`run.yaml`: everything that shaped a run."""

    system: str
    config: dict[str, Any]
    data: str
    """path of the data set"""
    data_fingerprint: str
    split: dict[str, Any]
    protocol: str
    seed: int
    refit: bool = False
    device: str = "cpu"
    vectors: dict[str, str] = {}
    """name of the content vectors it reads -> their identity"""

    def write(self, folder: Path) -> None:
        """Write `run.yaml` and `environment.json` into `folder`."""
        from vitrail.funnel.artifact import versions

        write_text(folder / "run.yaml", yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
        write_json(folder / "environment.json", versions())

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Raises ArtifactError where `folder` is no run."""
        file = folder / "run.yaml"
        if not file.exists():
            raise ArtifactError(f"{folder} is not a run (no run.yaml in it): make one with `vitrail fit SYSTEM --data D --out {folder}`.")
        try:
            return cls.of(yaml.safe_load(file.read_text(encoding="utf-8")) or {}, where=str(file))
        except yaml.YAMLError:
            raise ArtifactError(f"{file} is damaged: it is not YAML; fit again.") from None

    def same_as(self, other: Run) -> None:
        """Raises SettingError naming the first setting that differs: a resumed run must go on as it began."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        for key in mine:
            if key == "config":
                changed = [k for k in sorted({*mine[key], *theirs[key]}) if mine[key].get(k) != theirs[key].get(k)]
                if changed:
                    k = changed[0]
                    raise SettingError(
                        f"This run began with {k}={theirs[key].get(k)!r} and cannot go on with {mine[key].get(k)!r}: leave --resume out, or the change."
                    )
            elif mine[key] != theirs[key] and key not in ("data", "device"):
                raise SettingError(f"This run began with another {key.replace('_', ' ')}: resume with what run.yaml says, or start over with --overwrite.")


def write_curves(folder: Path, progress: Progress) -> None:
    """`curves.jsonl`: a record an epoch."""
    write_text(folder / "curves.jsonl", "".join(json.dumps(record) + "\n" for record in progress.curve))
