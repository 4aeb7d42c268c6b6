"""FuxiCTR's DIN, run in its own environment by bench_rank.py: reads how many steps to run, a line each, and answers with rows and seconds.

Its model, embedding, attention and `train_step` are its own; batches are made beforehand and cycled. Every history is padded to the full length, as its loaders
pad it. A line `feed N` is answered with the rows and seconds of N batches from the loader of its DIN (LongCTRDataLoader), over Parquet files written first,
with no worker and with one: the better of the two.
"""

import json
import os
import sys
import tempfile
import time
from collections import OrderedDict
from itertools import islice
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from fuxictr.features import FeatureMap  # noqa: E402
from model_zoo.LongCTR.DIN.DIN import DIN  # noqa: E402
from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader  # noqa: E402

torch.set_num_threads(1)
told = json.loads(sys.argv[1])
B, T, N, C = told["batch"], told["length"], told["items"], told["categories"]
features = FeatureMap("bench", tempfile.mkdtemp())
features.features = OrderedDict(
    (name, {"source": "item", "type": "categorical", "vocab_size": size + 2, "padding_idx": 0}) for name, size in (("item_id", N), ("cate_id", C))
)
features.labels, features.default_emb_dim, features.num_fields = ["clk"], told["dim"], 2
torch.manual_seed(0)
model = DIN(
    features, gpu=-1, dnn_hidden_units=told["hidden"], dnn_activations="ReLU", attention_hidden_units=told["attention"], attention_hidden_activations="Dice",
    learning_rate=1e-3, embedding_dim=told["dim"], optimizer="adam", loss="binary_crossentropy", verbose=0, metrics=["AUC"], model_root=tempfile.mkdtemp(),
    task="binary_classification",
)  # fmt: skip
model.train()
model._max_gradient_norm, model._batch_index = 10.0, 0
rng = np.random.default_rng(0)
category = rng.integers(1, C + 1, N + 1)


def batch():
    """(fields, item fields over B * (T + 1) places, mask) as its collator gives them: history first, padded on the left, target last."""
    lengths = np.full(B, T) if told["full"] else np.minimum(rng.geometric(1 / 7, size=B), T)
    ids = np.minimum((N * rng.random((B, T + 1)) ** 3).astype(np.int64), N - 1) + 1
    mask = np.arange(T) >= T - lengths[:, None]
    ids[:, :T] *= mask
    cate = np.where(ids > 0, category[ids], 0)
    return (
        {"clk": torch.from_numpy((rng.random(B) < 0.5).astype(np.float32))},
        {"item_id": torch.from_numpy(ids.reshape(-1)), "cate_id": torch.from_numpy(cate.reshape(-1))},
        torch.from_numpy(mask.astype(np.float32)),
    )


def loaders():
    """Its loaders over as many rows as ours has, a history a row, without a worker and with one."""
    rows, folder = told["rows"], Path(tempfile.mkdtemp())
    lengths = np.full(rows, T) if told["full"] else np.minimum(rng.geometric(1 / 7, size=rows), T)
    history = np.minimum((N * rng.random(int(lengths.sum())) ** 3).astype(np.int64), N - 1) + 1
    target = np.minimum((N * rng.random(rows) ** 3).astype(np.int64), N - 1) + 1
    codes = np.arange(N + 1)
    tables = {
        "rows": {"clk": (rng.random(rows) < 0.5).astype(np.int64), "user_index": np.arange(rows), "seq_len": lengths, "item_index": target},
        "users": {"full_item_seq": np.split(history, np.cumsum(lengths)[:-1])},
        "items": {"item_index": codes, "item_id": codes, "cate_id": np.where(codes > 0, category[codes], 0)},
    }
    for name, columns in tables.items():
        pd.DataFrame(columns).to_parquet(folder / f"{name}.parquet")
    known = FeatureMap("feed", str(folder))
    known.features, known.labels = OrderedDict((name, {}) for name in ("user_index", "seq_len", "item_index", "item_id", "cate_id")), ["clk"]
    paths = [str(folder / f"{name}.parquet") for name in tables]
    return [LongCTRDataLoader(known, *paths, batch_size=B, shuffle=True, num_workers=workers, max_len=T) for workers in (0, 1)]


def feed(loader, steps):
    """Rows and seconds of so many batches; the first, with which workers start, is not counted."""
    batches = iter(loader)
    next(batches)
    started = time.perf_counter()
    rows = sum(len(mask) for _, _, mask in islice(batches, steps))
    return {"rows": rows, "seconds": time.perf_counter() - started}


batches = [batch() for _ in range(16)]
step = 0
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    if line.startswith("feed"):
        found = [feed(loader, int(line.split()[1])) for loader in loaders()]
        print(json.dumps(max(found, key=lambda one: one["rows"] / one["seconds"])), flush=True)
        continue
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(int(line)):
        model.train_step(batches[step % len(batches)])
        step += 1
    print(json.dumps({"rows": int(line) * B, "seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}), flush=True)
