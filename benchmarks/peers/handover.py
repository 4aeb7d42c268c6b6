"""The split, written out once for every side, and the one judge of everybody's lists."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitrail import recipes
from vitrail.data.batches import Sets
from vitrail.data.dataset import Dataset
from vitrail.data.split import Part, Split
from vitrail.evaluation.evaluator import evaluate_part
from vitrail.evaluation.protocol import Protocol
from vitrail.files import atomic_file, atomic_folder, read_json, write_json
from vitrail.train.fit import cut

ATOMIC = "split"
"""What RecBole's data set is called."""
METRICS = ["recall@10", "ndcg@10"]


def arrays_of(split: Split) -> dict[str, Any]:
    """What the sides read, as arrays of codes: `sizes` (U, N); the events of `train` and of `known` (what may be known when the test
    is asked) in CSR form, oldest first; the test queries' users, masks and targets; the validation's users and targets."""
    assert split.test is not None
    found = {
        "sizes": np.array([split.train.n_users, split.train.n_items]),
        "train_indptr": split.train.indptr, "train_items": split.train.items, "known_indptr": split.known.indptr, "known_items": split.known.items,
        "query_users": split.test.histories.users.numpy(), "mask_indptr": split.test.mask_indptr, "mask_items": split.test.mask_items,
        "target_indptr": split.test.target_indptr, "target_items": split.test.target_items,
    }  # fmt: skip
    if split.valid is not None:
        found |= {"valid_users": split.valid.histories.users.numpy()}
        found |= {"valid_target_indptr": split.valid.target_indptr, "valid_target_items": split.valid.target_items}
    return {name: np.asarray(array, dtype=np.int64) for name, array in found.items()}


def atomic_files(arrays: dict[str, Any], name: str, *, ordered: bool) -> dict[str, str]:
    """RecBole's atomic files of a split, their tokens Vitrail's codes: file name -> text.

    One file in time order where `ordered`: RecBole's leave-one-out then cuts off what ours does, the last event and the last but one. Else a file a part.
    """
    if ordered:
        indptr, items, targets = arrays["known_indptr"], arrays["known_items"], dict(zip(arrays["query_users"], arrays["target_items"], strict=True))
        lines = ["user_id:token\titem_id:token\ttimestamp:float"]
        for user in range(len(indptr) - 1):
            events = items[indptr[user] : indptr[user + 1]].tolist() + ([targets[user]] if user in targets else [])
            lines += [f"{user}\t{item}\t{place}" for place, item in enumerate(events)]
        return {f"{name}.inter": "\n".join(lines) + "\n"}
    users = np.arange(arrays["sizes"][0])
    parts = {
        "train": (users, arrays["train_indptr"], arrays["train_items"]),
        "valid": (arrays["valid_users"], arrays["valid_target_indptr"], arrays["valid_target_items"]),
        "test": (arrays["query_users"], arrays["target_indptr"], arrays["target_items"]),
    }
    texts = {}
    for part, (owners, indptr, items) in parts.items():
        pairs = zip(np.repeat(owners, np.diff(indptr)).tolist(), items.tolist(), strict=True)
        texts[f"{name}.{part}.inter"] = "user_id:token\titem_id:token\n" + "".join(f"{user}\t{item}\n" for user, item in pairs)
    return texts


class Judge:
    """Measures lists of codes on one split."""

    def __init__(self, data: Dataset, split: Split, protocol: Protocol) -> None:
        assert split.test is not None
        self.part: Part = split.test
        self._protocol, self._hashes, self._counts = protocol, data.item_ids.hashes, split.train.item_counts

    def __call__(self, codes: np.ndarray) -> dict[str, float]:
        """Lists (Q, K), -1 where short -> the mean of each metric, and the standard error of ndcg@10 over queries."""
        lists, n_items, k = torch.from_numpy(codes.astype(np.int64)), len(self._hashes), codes.shape[1]
        row_of = torch.full((int(self.part.histories.users.max()) + 1,), -1)
        row_of[self.part.histories.users] = torch.arange(len(codes))

        def score(histories: Sets) -> torch.Tensor:
            own = lists[row_of[histories.users]]
            worth = torch.where(own >= 0, torch.arange(k, 0, -1, dtype=torch.float32), -torch.inf)
            scores = torch.full((len(own), n_items + 1), -torch.inf)  # the last column takes what is no item
            return scores.scatter_(1, torch.where(own >= 0, own, n_items), worth)[:, :n_items]

        found = evaluate_part(
            self.part, score, protocol=self._protocol, item_hashes=self._hashes, train_counts=self._counts, metrics=METRICS, intervals=False, slices=False
        )
        spread = float(np.std(found.values["ndcg@10"], ddof=1) / np.sqrt(len(codes)))
        return {**{name: round(value, 5) for name, value in found.metrics.items()}, "ndcg@10 standard error": round(spread, 5)}


def hand_over(data: recipes.Data, split_text: str, *, data_root: Path, work: Path) -> tuple[Path, Path, Judge]:
    """Ingest and cut once, write what the sides read: (Vitrail's data set, the folder of the split, the judge). Raises VitrailError."""
    mark = work / "data" / f"{data.name}.ingest-seconds.json"
    started = time.perf_counter()
    dataset = recipes.prepare(data, data_root=data_root, work=work, say=lambda text: print(text, flush=True))
    if not mark.exists():
        write_json(mark, {"seconds": round(time.perf_counter() - started, 3)})
    split, settings, protocol = cut(dataset, split_text, False)
    folder = work / "splits" / f"{data.name}.{settings.name}"
    if not folder.exists():
        arrays = arrays_of(split)
        with atomic_folder(folder) as temporary:
            np.savez(temporary / "split.npz", **arrays)
            home = temporary / "recbole" / ATOMIC  # RecBole would take a file of its own for the name ml-100k
            home.mkdir(parents=True)
            for name, text in atomic_files(arrays, ATOMIC, ordered=settings.name == "leave-last-out").items():
                with atomic_file(home / name) as file:
                    file.write_text(text, encoding="utf-8")
    return dataset.path, folder, Judge(dataset, split, protocol)


def ingest_seconds(data: recipes.Data, work: Path) -> float | None:
    """How long the one ingest took; none where it was made before that was written down."""
    mark = work / "data" / f"{data.name}.ingest-seconds.json"
    return float(read_json(mark)["seconds"]) if mark.exists() else None
