"""RecBole's side: its own data set, loader, trainer loop and evaluator, driven by orders. Runs in the environment `recbole`.

The split comes as RecBole's atomic files whose tokens are Vitrail's codes: three files (benchmark_filename) for the general
models, one in time order with leave-one-out for the sequential ones, which RecBole cuts itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _desk
import _lists
import numpy as np

SEQUENTIAL = {"SASRec", "BERT4Rec"}
MODELS = {"BPR", "LightGCN", "NGCF"} | SEQUENTIAL


class Counted:
    """A data loader that tells the desk of each batch the trainer is through with."""

    def __init__(self, loader: Any, desk: _desk.Desk) -> None:
        self._loader, self._desk = loader, desk

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            yield batch
            self._desk.batch_done()

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def configuration(job: dict[str, Any]) -> dict[str, Any]:
    """RecBole's settings for a job: where the split is, how it is cut, then what the row asks for."""
    sequential = job["model"] in SEQUENTIAL
    settings = {
        "data_path": str(Path(job["split"]) / "recbole"),
        "checkpoint_dir": str(Path(job["split"]) / "recbole-saved"),
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
        "seed": job["seed"],
        "reproducibility": False,
        "valid_metric": "NDCG@10",
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
    }
    if sequential:
        settings |= {
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
            "train_neg_sample_args": None,
        }
    else:
        settings |= {"load_col": {"inter": ["user_id", "item_id"]}, "benchmark_filename": ["train", "valid", "test"]}
        settings |= {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": "full", "group_by": "user"}}
    return settings | job["settings"]


class Side:
    """The state between orders."""

    def __init__(self, job: dict[str, Any]) -> None:
        import torch
        from recbole.config import Config

        torch.set_num_threads(job["threads"])
        self.torch, self.job = torch, job
        self.config = Config(model=job["model"], dataset="split", config_dict=configuration(job))
        self.split = _lists.read_split(job)
        actions = {"load": self.load, "build": self.build, "evaluate": self.evaluate, "lists": self.lists}
        self.desk = _desk.Desk(actions, self.train, self.validate, self.keep, self.back)
        self.kept: dict[str, Any] = {}

    def load(self, order: dict[str, Any]) -> None:
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import init_seed

        self.data = self.loaders = None  # a second load must not hold the first
        init_seed(self.job["seed"], False)
        self.data = create_dataset(self.config)
        self.loaders = data_preparation(self.config, self.data)

    def build(self, order: dict[str, Any]) -> dict[str, Any]:
        from recbole.utils import get_model, get_trainer

        train = self.loaders[0]
        self.model = get_model(self.job["model"])(self.config, train._dataset)
        self.trainer = get_trainer(self.config["MODEL_TYPE"], self.job["model"])(self.config, self.model)
        return {"batches": len(train), "targets": self.targets(train), "parameters": sum(p.numel() for p in self.model.parameters())}

    def targets(self, train: Any) -> int:
        """Positions that an epoch asks for. BERT4Rec's are expected values: a share of each row's events, at least one, or the last alone."""
        rows = len(train._dataset)
        if self.job["model"] != "BERT4Rec":
            return rows
        lengths = train._dataset.inter_feat["item_length"].numpy()
        share, last = self.config["mask_ratio"], self.config["ft_ratio"]
        return int(np.sum((1 - last) * np.maximum(lengths * share, 1.0) + last))

    def train(self) -> None:
        for epoch in itertools.count(self.desk.epochs_done):
            self.trainer._train_epoch(Counted(self.loaders[0], self.desk), epoch)
            self.desk.epoch_done()

    def validate(self) -> float:
        return float(self.trainer._valid_epoch(self.loaders[1])[0])

    def keep(self) -> None:
        self.kept = {name: value.clone() for name, value in self.model.state_dict().items()}

    def back(self) -> None:
        self.model.load_state_dict(self.kept)
        for name in ("restore_user_e", "restore_item_e"):  # what graph models remember of their last evaluation
            if hasattr(self.model, name):
                setattr(self.model, name, None)

    def evaluate(self, order: dict[str, Any]) -> dict[str, Any]:
        found = self.trainer.evaluate(self.loaders[2], load_best_model=False, show_progress=False)
        return {"metrics": {name: float(value) for name, value in found.items()}}

    def lists(self, order: dict[str, Any]) -> None:
        """Scores as RecBole's evaluator computes them, the split's mask, torch.topk."""
        torch = self.torch
        self.model.eval()
        n_items = int(self.split["sizes"][1])
        codes = _codes(self.data.field2id_token[self.config["ITEM_ID_FIELD"]])
        columns = np.full(n_items, len(codes))
        columns[codes[1:]] = np.arange(1, len(codes))
        users = _codes(self.data.field2id_token[self.config["USER_ID_FIELD"]])
        query_of = np.full(int(self.split["sizes"][0]), -1)
        query_of[self.split["query_users"]] = np.arange(len(self.split["query_users"]))
        out = np.full((len(self.split["query_users"]), 10), -1)
        with torch.no_grad():
            for batch in self.loaders[2]:
                rows = query_of[users[batch[0][self.config["USER_ID_FIELD"]].numpy()]]
                scores = self.model.full_sort_predict(batch[0]).view(len(rows), -1)
                scores[:, 0] = -np.inf
                asked = rows >= 0
                for start in range(0, len(rows), 512):
                    self._mask(scores[start : start + 512], rows[start : start + 512], columns)
                top = codes[torch.topk(scores, 10).indices.numpy()]
                out[rows[asked]] = top[asked]
        _lists.write_lists(order["path"], out)

    def _mask(self, scores: Any, rows: np.ndarray, columns: np.ndarray) -> None:
        indptr = self.split["mask_indptr"]
        lengths = np.where(rows >= 0, indptr[rows + 1] - indptr[rows], 0)
        places = np.repeat(indptr[rows] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(lengths.sum())
        found = columns[self.split["mask_items"][places]]
        owners = np.repeat(np.arange(len(rows)), lengths)
        known = found < scores.shape[1]
        scores[self.torch.from_numpy(owners[known]), self.torch.from_numpy(found[known])] = -np.inf


def _codes(tokens: np.ndarray) -> np.ndarray:
    """RecBole's tokens in its own order -> Vitrail's codes; -1 for the padding."""
    return np.array([-1 if token == "[PAD]" else int(token) for token in tokens])


if __name__ == "__main__":
    _desk.main(lambda job: Side(job).desk, MODELS)
