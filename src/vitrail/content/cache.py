"""Vectors kept by the hash of the content they were made of: what is not new is not encoded again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors.numpy import load_file, save_file

from vitrail.content.base import Float32
from vitrail.files import atomic_file, full_disk_as_sentence

T = TypeVar("T")
CHUNK = 1024
"""Contents encoded between two saves."""
PARTS = 64
"""Pieces after which they are put together."""


def digest(content: str | bytes) -> bytes:
    """16 bytes that stand for a text or a file."""
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content, digest_size=16).digest()


class Cache:
    """A folder of pieces, each hashes (M, 16) and vectors (M, D). A damaged piece is as one that is not there."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder, self.dim = folder, dim
        self.places: dict[bytes, int] = {}
        self.blocks: list[Float32] = []
        for piece in sorted(folder.glob("*.safetensors")):
            try:
                tensors = load_file(piece)
                hashes, values = tensors["hashes"], tensors["values"]
            except Exception:  # whatever is wrong with a cache, the answer is to encode again
                continue
            if values.ndim == 2 and values.shape[1] == dim and hashes.shape == (len(values), 16):
                keys = list(map(bytes, hashes))
                fresh = [n for n, key in enumerate(keys) if key not in self.places]  # where two processes were at work, the first counts
                self._remember([keys[n] for n in fresh], values[fresh])
        self.pieces = len(self.blocks)

    def __contains__(self, key: bytes) -> bool:
        return key in self.places

    def take(self, keys: Sequence[bytes]) -> Float32:
        """(N, D) vectors of contents that are there."""
        self.blocks = [np.concatenate([np.empty((0, self.dim), dtype=np.float32), *self.blocks])]
        return self.blocks[0][[self.places[key] for key in keys]]

    def fill(self, keys: Sequence[bytes], contents: Sequence[T], encode: Callable[[list[T]], Float32], *, step: int, advance: Callable[[int], object]) -> int:
        """Encode the contents that are new, each once, `step` at a time, and keep every CHUNK of them at once: a killed job goes on. Returns their
        number; `advance` is told of every step."""
        new = {key: n for n, key in enumerate(keys) if key not in self.places}
        fresh = list(new.items())
        for start in range(0, len(fresh), CHUNK):
            part = fresh[start : start + CHUNK]
            values = np.empty((len(part), self.dim), dtype=np.float32)
            for first in range(0, len(part), step):
                values[first : first + step] = encode([contents[n] for _, n in part[first : first + step]])
                advance(len(part[first : first + step]))
            self._keep([key for key, _ in part], values)
        if self.pieces > PARTS:
            keys = list(self.places)
            self._write(keys, self.take(keys), "all", replaces=sorted(self.folder.glob("*.safetensors")))
            self.pieces = 1
        return len(fresh)

    def _remember(self, keys: list[bytes], values: Float32) -> None:
        start = len(self.places)
        self.places |= {key: start + n for n, key in enumerate(keys)}
        self.blocks.append(values)

    def _keep(self, keys: list[bytes], values: Float32) -> None:
        self._remember(keys, values)
        self._write(keys, values, keys[0].hex())
        self.pieces += 1

    def _write(self, keys: list[bytes], values: Float32, name: str, replaces: Iterable[Path] = ()) -> None:
        hashes = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16)
        with full_disk_as_sentence(self.folder), atomic_file(self.folder / f"{name}.safetensors") as temporary:
            save_file({"hashes": hashes.copy(), "values": np.ascontiguousarray(values)}, temporary)
        for piece in replaces:
            if piece.name != f"{name}.safetensors":
                piece.unlink(missing_ok=True)
