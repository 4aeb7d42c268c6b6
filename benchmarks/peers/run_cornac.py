"""cornac's side: EASE. Runs in the environment `cornac`."""

from __future__ import annotations

from typing import Any

import _desk
import _lists
import numpy as np

MODELS = {"EASE"}


class Side:
    """The state between orders."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.desk = _desk.Desk({"load": self.load, "build": self.build, "fit": self.fit, "lists": self.lists})

    def load(self, order: dict[str, Any]) -> None:
        from cornac.data import Dataset

        self.split = _lists.read_split(self.job)
        users = np.repeat(np.arange(int(self.split["sizes"][0])), np.diff(self.split["train_indptr"]))
        triples = list(zip(users.tolist(), self.split["train_items"].tolist(), [1.0] * len(users), strict=True))
        self.data = Dataset.from_uir(triples, seed=self.job["seed"])

    def build(self, order: dict[str, Any]) -> dict[str, Any]:
        return {"batches": 1, "targets": int(self.data.num_ratings)}

    def fit(self, order: dict[str, Any]) -> None:
        from cornac.models import EASE

        self.model = EASE(seed=self.job["seed"], verbose=False, **self.job["settings"])
        self.model.fit(self.data)

    def lists(self, order: dict[str, Any]) -> None:
        """`score` a user at a time, as cornac's evaluation does it; masks and the cut are vectorised over blocks of users."""
        users, indptr, items = self.split["query_users"], self.split["mask_indptr"], self.split["mask_items"]
        n_items = int(self.split["sizes"][1])
        columns = np.full(n_items, -1)
        for code, column in self.data.iid_map.items():
            columns[code] = column
        known = np.flatnonzero(columns >= 0)
        out = []
        for start in range(0, len(users), 512):
            stop = min(start + 512, len(users))
            scores = np.full((stop - start, n_items), -np.inf, dtype=np.float32)
            for row, user in enumerate(users[start:stop].tolist()):
                if user in self.data.uid_map:
                    scores[row, known] = np.asarray(self.model.score(self.data.uid_map[user])).ravel()[columns[known]]
            rows, part = _lists.span(indptr, start, stop)
            scores[rows, items[part]] = -np.inf
            out.append(_lists.best(scores, 10))
        _lists.write_lists(order["path"], np.concatenate(out))


if __name__ == "__main__":
    _desk.main(lambda job: Side(job).desk, MODELS)
