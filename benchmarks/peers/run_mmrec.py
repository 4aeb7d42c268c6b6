"""MMRec's side: its models, loader and trainer, from a checkout that is left as it is. What keeps it from starting is mended at run time.

Runs in any environment with torch, numpy, scipy, pandas, PyYAML and Pillow. In the job, `data` is a folder as MMRec reads it, `split` the checkout.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import types
from pathlib import Path
from typing import Any

import _desk

MODELS = {"BM3", "FREEDOM", "LightGCN"}
STUBS = {
    "torchvision": ["transforms"],
    "torchvision.transforms": ["Compose"],
    "torchvision.transforms.functional": ["pad", "resize"],
    "lmdb": [],
    "matplotlib": [],
    "matplotlib.pyplot": [],
}
"""Modules that MMRec imports and that none of these models uses -> the names it takes from them."""


def repair() -> list[str]:
    """Put in place what MMRec expects of the libraries and does not find. What was done, in words."""
    done = []
    for name, wanted in STUBS.items():
        if name not in sys.modules and (name.partition(".")[0] in sys.modules or importlib.util.find_spec(name.partition(".")[0]) is None):
            if getattr(sys.modules.get(name.partition(".")[0]), "__file__", None):
                continue  # a real one
            module = types.ModuleType(name)
            for word in wanted:
                setattr(module, word, None)
            if "." in name:
                setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module)
            sys.modules[name] = module
            done.append(f"a stub in place of {name}")
    import numpy as np
    from scipy import sparse

    if not hasattr(np, "float"):
        vars(np)["float"] = float
        done.append("numpy.float is float again")
    if not hasattr(sparse.dok_matrix, "_update"):
        sparse.dok_matrix._update = lambda self, values: self._dict.update(values)
        done.append("scipy's dok_matrix._update puts its values in place again")
    return done


class Side:
    """The state between orders."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, checkout = job, Path(job["split"])
        source = checkout / "src" if (checkout / "src").is_dir() else checkout
        if not (source / "utils" / "quick_start.py").exists():
            raise SystemExit(f"error: {checkout} is no checkout of MMRec: it has no src/utils/quick_start.py.")
        self.repairs = repair()
        sys.path.insert(0, str(source))
        os.chdir(source)  # its configurations are looked for in the current folder
        logging.disable(logging.CRITICAL)
        import torch

        torch.set_num_threads(job["threads"])
        self.desk = _desk.Desk({"load": self.load, "build": self.build}, self.train)

    def load(self, order: dict[str, Any]) -> None:
        from utils.configurator import Config
        from utils.dataloader import TrainDataLoader
        from utils.dataset import RecDataset
        from utils.utils import init_seed

        home = Path(self.job["data"])
        told = {
            "data_path": f"{home.parent}/", "inter_file_name": f"{home.name}.inter", "USER_ID_FIELD": "userID", "ITEM_ID_FIELD": "itemID",
            "vision_feature_file": "image_feat.npy", "text_feature_file": "text_feat.npy", "use_gpu": False, "seed": self.job["seed"],
        }  # fmt: skip
        self.config = Config(self.job["model"], home.name, told | self.job["settings"])
        init_seed(self.job["seed"])
        train = RecDataset(self.config).split()[0]
        str(train)  # it counts its rows where it is printed
        self.data = TrainDataLoader(self.config, train, batch_size=self.config["train_batch_size"], shuffle=True)

    def build(self, order: dict[str, Any]) -> dict[str, Any]:
        from utils.utils import get_model, get_trainer, init_seed

        init_seed(self.job["seed"])
        self.data.pretrain_setup()
        self.model = get_model(self.job["model"])(self.config, self.data)
        self.trainer = get_trainer()(self.config, self.model)
        parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return {"batches": len(self.data), "targets": len(self.data.dataset), "parameters": parameters, "repairs": self.repairs}

    def train(self) -> None:
        """What its `fit` does in an epoch, without the evaluation after it."""
        for epoch in range(self.trainer.start_epoch, self.trainer.epochs):
            self.model.pre_epoch_processing()
            self.trainer._train_epoch(self.data, epoch)
            self.trainer.lr_scheduler.step()
            self.model.post_epoch_processing()
            self.desk.epoch_done()


if __name__ == "__main__":
    _desk.main(lambda job: Side(job).desk, MODELS)
