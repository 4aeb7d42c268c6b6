"""implicit's side: ALS, BPR and cosine neighbours, each fitted at once. Runs in the environment `implicit`."""

from __future__ import annotations

from typing import Any

import _desk
import _lists
import numpy as np
import scipy.sparse as sp

MODELS = {"ALS", "BPR", "Cosine"}


def matrix(indptr: np.ndarray, items: np.ndarray, shape: tuple[int, int]) -> Any:
    """Events in CSR form -> a csr_matrix of ones."""
    found = sp.csr_matrix((np.ones(len(items), dtype=np.float32), items.astype(np.int32), indptr.astype(np.int32)), shape=shape)
    found.sum_duplicates()
    return found


class Side:
    """The state between orders."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.desk = _desk.Desk({"load": self.load, "build": self.build, "fit": self.fit, "lists": self.lists})

    def load(self, order: dict[str, Any]) -> None:
        self.split = _lists.read_split(self.job)
        shape = tuple(int(size) for size in self.split["sizes"])
        self.train = matrix(self.split["train_indptr"], self.split["train_items"], shape)
        self.masked = matrix(self.split["mask_indptr"], self.split["mask_items"], (len(self.split["query_users"]), shape[1]))

    def build(self, order: dict[str, Any]) -> dict[str, Any]:
        return {"batches": 1, "targets": int(self.train.nnz)}

    def fit(self, order: dict[str, Any]) -> None:
        from implicit.als import AlternatingLeastSquares
        from implicit.bpr import BayesianPersonalizedRanking
        from implicit.nearest_neighbours import CosineRecommender

        settings = dict(self.job["settings"], num_threads=self.job["threads"])
        kind = {"ALS": AlternatingLeastSquares, "BPR": BayesianPersonalizedRanking, "Cosine": CosineRecommender}[self.job["model"]]
        if self.job["model"] != "Cosine":
            settings["random_state"] = self.job["seed"]
        self.model = kind(**settings)
        self.model.fit(self.train, show_progress=False)

    def lists(self, order: dict[str, Any]) -> None:
        """`recommend` for all queries at once. Neighbours read the user's row as history and as filter alike, so their lists are asked
        for longer and what validation holds is taken out afterwards."""
        users, split = self.split["query_users"], self.split
        if self.job["model"] == "Cosine":
            extra = int((np.diff(self.masked.indptr) - np.diff(self.train.indptr)[users]).max())
            codes, _ = self.model.recommend(users, self.train[users], N=10 + max(extra, 0), filter_already_liked_items=True)
            codes = _lists.first_allowed(codes, split["mask_indptr"], split["mask_items"], int(split["sizes"][1]), 10)
        else:
            codes, _ = self.model.recommend(users, self.masked, N=10, filter_already_liked_items=True)
        _lists.write_lists(order["path"], codes)


if __name__ == "__main__":
    _desk.main(lambda job: Side(job).desk, MODELS)
