"""RecTools' side: SASRec and BERT4Rec through their Lightning trainer, which waits in a callback between epochs. Runs in the environment `rectools`."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import _desk
import _lists
import numpy as np
import pandas as pd

MODELS = {"SASRec", "BERT4Rec"}


def table(indptr: np.ndarray, items: np.ndarray) -> pd.DataFrame:
    """Events in CSR form, oldest first -> RecTools' columns; a day lies between two events of a user."""
    lengths = np.diff(indptr)
    place = np.arange(len(items)) - np.repeat(indptr[:-1], lengths)
    users = np.repeat(np.arange(len(lengths)), lengths)
    when = pd.to_datetime("2000-01-01") + pd.to_timedelta(place, unit="D")
    return pd.DataFrame({"user_id": users, "item_id": items, "weight": 1.0, "datetime": when})


class Side:
    """The state between orders."""

    def __init__(self, job: dict[str, Any]) -> None:
        import torch

        warnings.filterwarnings("ignore")
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        torch.set_num_threads(job["threads"])
        torch.manual_seed(job["seed"])
        np.random.seed(job["seed"])  # noqa: NPY002 - RecTools draws its masks from it
        self.job = job
        self.desk = _desk.Desk({"load": self.load, "build": self.build, "lists": self.lists}, self.train, self.validate, self.keep, self.back)
        self.best: dict[str, Any] = {}

    def load(self, order: dict[str, Any]) -> None:
        from rectools.dataset import Dataset

        self.split = split = _lists.read_split(self.job)
        self.fitted = Dataset.construct(table(split["train_indptr"], split["train_items"]))
        self.known = Dataset.construct(table(split["known_indptr"], split["known_items"]))

    def build(self, order: dict[str, Any]) -> dict[str, Any]:
        from pytorch_lightning import Callback, Trainer
        from rectools.models import BERT4RecModel, SASRecModel

        desk = self.desk

        class Wait(Callback):
            def __deepcopy__(self, memo: dict[int, Any]) -> Wait:
                return self

            def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
                desk.epoch_begins()

            def on_train_batch_end(self, *arguments: Any) -> None:
                desk.batch_done()

            def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
                desk.epoch_done()
                module.train()

        def trainer() -> Any:
            return Trainer(
                max_epochs=100_000, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, logger=False, enable_checkpointing=False,
                callbacks=[Wait()],
            )  # fmt: skip

        kind = {"SASRec": SASRecModel, "BERT4Rec": BERT4RecModel}[self.job["model"]]
        self.model = kind(get_trainer_func=trainer, recommend_torch_device="cpu", **self.job["settings"])
        lengths = np.diff(self.split["train_indptr"])
        kept = lengths[lengths >= 2]
        length, batch = self.job["settings"]["session_max_len"], self.job["settings"]["batch_size"]
        if self.job["model"] == "SASRec":
            targets = np.minimum(kept - 1, length).sum()
        else:
            targets = (np.minimum(kept, length) * self.job["settings"]["mask_prob"]).sum()
        return {"batches": int(-(-len(kept) // batch)), "targets": int(targets)}

    def train(self) -> None:
        self.model.fit(self.fitted)

    def lists(self, order: dict[str, Any]) -> None:
        _lists.write_lists(order["path"], self.recommend(self.split["query_users"], self.known))

    def recommend(self, users: np.ndarray, data: Any) -> np.ndarray:
        """(Q,) user codes -> (Q, 10) item codes, -1 where a list is short."""
        self.model.is_fitted = True  # the trainer waits in its callback, so RecTools has not said so itself
        found = self.model.recommend(users, data, k=10, filter_viewed=True, on_unsupported_targets="ignore")
        row_of = np.full(int(self.split["sizes"][0]), -1)
        row_of[users] = np.arange(len(users))
        codes = np.full((len(users), 10), -1)
        codes[row_of[found["user_id"].to_numpy()], found["rank"].to_numpy() - 1] = found["item_id"].to_numpy()
        return codes

    def validate(self) -> float:
        split = self.split
        codes = self.recommend(split["valid_users"], self.fitted)
        self.model.lightning_model.train()
        return _lists.ndcg(codes, split["valid_target_indptr"], split["valid_target_items"], int(split["sizes"][1]))

    def keep(self) -> None:
        self.best = {name: value.clone() for name, value in self.model.lightning_model.state_dict().items()}

    def back(self) -> None:
        self.model.lightning_model.load_state_dict(self.best)


if __name__ == "__main__":
    _desk.main(lambda job: Side(job).desk, MODELS)
