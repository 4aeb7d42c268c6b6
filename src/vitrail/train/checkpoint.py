"""Atomic checkpoints: weights and optimiser moments as safetensors, the rest as JSON. No pickle anywhere.

A checkpoint is a folder `checkpoint-<n>`; `checkpoint.json` names the newest whole one and is replaced atomically, so a
process killed at any moment leaves a checkpoint that can be resumed.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitrail.errors import ArtifactError
from vitrail.files import atomic_file, atomic_folder, read_json, write_json
from vitrail.train.optimise import AdamW

POINTER = "checkpoint.json"
BEST = "best.safetensors"
FEW = 32 << 20
"""Bytes of weights that are kept in memory beside those that are trained."""


@dataclass
class Progress:
    """Where a run stands; every random draw is a function of (seed, epoch, step), so no generator state is needed."""

    epoch: int = 0
    """the epoch under way, from 0"""
    step: int = 0
    """the next step of it"""
    loss_sum: float = 0.0
    """of the steps done in it"""
    best_value: float | None = None
    """best validation value so far"""
    best_epoch: int = -1
    bad: int = 0
    """validations since the best"""
    finished: bool = False
    cut: bool = False
    """stopped by a deadline before it was finished: its value is a lower bound"""
    seconds: float = 0.0
    """training time spent, over all sittings"""
    curve: list[dict[str, Any]] = field(default_factory=list)
    """one record an epoch"""


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write named tensors; only what shares its storage is copied, devices are forgotten."""
    alone: dict[str, Tensor] = {}
    met: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        alone[name] = tensor.clone() if place in met else tensor
        met.add(place)
    save_file(alone, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Named tensors of a file. Raises ArtifactError where it is absent or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: the folder is incomplete; fit again or restore it.") from None
    except (SafetensorError, OSError, ValueError):
        raise ArtifactError(f"{path} is damaged: it is not a readable safetensors file; fit again or restore it.") from None


class Best:
    """The weights that did best so far: in memory where they are few, else in a file, so that a large table is not there twice while it is trained."""

    def __init__(self, home: Path | None = None) -> None:
        """`home`: where the file lies; none: in a folder of its own, which goes when this does."""
        self._home = home
        self._temporary: TemporaryDirectory[str] | None = None
        self._few: dict[str, Tensor] | None = None
        self._many: Path | None = None

    def __bool__(self) -> bool:
        return self._few is not None or self._many is not None

    def keep(self, tensors: dict[str, Tensor]) -> None:
        """These are the best now."""
        if sum(tensor.nbytes for tensor in tensors.values()) <= FEW:
            self._few = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
            return
        if self._home is None:
            self._temporary = TemporaryDirectory(prefix="vitrail-")
            self._home = Path(self._temporary.name)
        self._many = self._home / BEST
        with atomic_file(self._many) as temporary:
            save_tensors(temporary, tensors)

    def tensors(self) -> dict[str, Tensor]:
        """The best weights."""
        assert self, "nothing was kept"
        return self._few if self._few is not None else load_tensors(self._many)  # type: ignore[arg-type]

    def write(self, path: Path) -> None:
        """Put them in the file `path`."""
        if self._many is None:
            save_tensors(path, self.tensors())
        else:
            shutil.copyfile(self._many, path)

    def clear(self) -> None:
        """Remove the file."""
        if self._many is not None:
            self._many.unlink(missing_ok=True)
        self._few = self._many = None


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def save(self, model: nn.Module, optimizer: AdamW, progress: Progress, best: Best) -> None:
        """Write a whole checkpoint, point to it, then remove older ones."""
        number = 1 + max((int(p.name.split("-")[1]) for p in self.run.glob("checkpoint-*")), default=0)
        folder = self.run / f"checkpoint-{number:06d}"
        with atomic_folder(folder, overwrite=True) as temporary:
            save_tensors(temporary / "model.safetensors", model.state_dict())
            save_tensors(temporary / "optimizer.safetensors", optimizer.tensors())
            if best:
                best.write(temporary / BEST)
            write_json(temporary / "progress.json", asdict(progress))
        write_json(self.run / POINTER, {"folder": folder.name})
        for old in self.run.glob("checkpoint-*"):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)

    def load(self, model: nn.Module, optimizer: AdamW, best: Best) -> Progress:
        """Restore the newest checkpoint, `best` as well; a fresh Progress where there is none yet."""
        if not (self.run / POINTER).exists():
            return Progress()
        folder = self.run / str(read_json(self.run / POINTER)["folder"])
        if folder.parent != self.run or not folder.is_dir():
            raise ArtifactError(f"{self.run / POINTER} names a checkpoint that is not there: start the run again with --overwrite.")
        model.load_state_dict(load_tensors(folder / "model.safetensors"))
        optimizer.restore(load_tensors(folder / "optimizer.safetensors"))
        if (folder / BEST).exists():
            best.keep(load_tensors(folder / BEST))
        return Progress(**read_json(folder / "progress.json"))

    def clear(self) -> None:
        """Remove all checkpoints (the run is finished and its artifact written)."""
        for name in (POINTER, BEST):
            (self.run / name).unlink(missing_ok=True)
        for old in self.run.glob("checkpoint-*"):
            shutil.rmtree(old, ignore_errors=True)
