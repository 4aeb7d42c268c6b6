"""Documents a second of the text encoder against sentence-transformers, in one process on the same texts, and the cost of encoding again after a change.

    python benchmarks/bench_content.py                  1,500 mixed-length texts: MovieLens-100k plots and Amazon phone titles
    python benchmarks/bench_content.py --texts 400 --rounds 1

Both have the same weights and one thread. Rounds alternate, so that other work on the machine meets both alike; the ratio is that of the medians.
"""

from __future__ import annotations

import _one_thread  # noqa: F401  before torch

import argparse  # isort: skip
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _record
import numpy as np
import polars as pl
import torch

from vitrail.content.encode import encode
from vitrail.content.text import half, load_text, minilm_folder
from vitrail.data.dataset import write_dataset
from vitrail.data.schema import DatasetInfo

ROOT = Path(os.environ.get("VITRAIL_DATA") or _record.ROOT.parent / "shared" / "data")


def texts(count: int) -> list[str]:
    """Half plots with titles, half phone titles with brand and categories, in a seeded order."""
    films = pl.read_csv(ROOT / "ml-100k" / "items_text.tsv", separator="\t", quote_char=None, infer_schema=False)
    plots = films.select(pl.concat_str(["title", "plot"], separator=" ", ignore_nulls=True).alias("text"))["text"].to_list()
    phones = list(json.loads((ROOT / "amazon-phones-text" / "items.json").read_text()).values())
    rng = np.random.default_rng(0)
    chosen = [*rng.choice(plots, min(count // 2, len(plots)), replace=False), *rng.choice(phones, count - count // 2, replace=False)]
    return [str(chosen[n]) for n in rng.permutation(len(chosen))]


def changed(dataset_folder: Path, sample: list[str], share: float) -> dict[str, Any]:
    """Encode a data set, change a share of its texts, encode again: seconds of both and what was encoded."""
    cache = dataset_folder / "kept"

    def run(current: list[str], name: str) -> dict[str, Any]:
        ids = [f"i{n}" for n in range(len(current))]
        events = pl.DataFrame({"user": ["u"] * len(ids), "item": ids, "position": range(len(ids))})
        info = DatasetInfo(name="bench", order="position", columns={"items": {"title": "text"}})
        write_dataset(dataset_folder / name, info, events, pl.DataFrame({"item": ids, "title": current}))
        return encode(dataset_folder / name, text="minilm", cache=cache)[0]

    before = run(sample, "before")
    count = max(1, round(share * len(sample)))
    after = run([f"{text} (new edition)" if n < count else text for n, text in enumerate(sample)], "after")
    rate = {"before": before["encoded"] / before["items_per_second"] if before["encoded"] else 0.0}
    rate["after"] = after["encoded"] / after["items_per_second"] if after["encoded"] else 0.0
    return {"encoded": {"before": before["encoded"], "after": after["encoded"]}, "encoding_seconds": rate,
            "seconds": {"before": before["seconds"], "after": after["seconds"]}}  # fmt: skip


def main() -> int:
    """0: all goals met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    before = _record.load()
    torch.set_num_threads(1)
    sample = texts(options.texts)
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(minilm_folder()), device="cpu")
    ours: dict[str, Callable[[list[str]], np.ndarray]] = {
        "auto": load_text("minilm", precision="auto").encode,
        "fp32": load_text("minilm", precision="fp32").encode,
        "bf16": load_text("minilm", precision="bf16").encode,
    }
    runs: dict[str, Callable[[list[str]], np.ndarray]] = {
        "sentence-transformers": lambda part: peer.encode(part, batch_size=32, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False)
    } | ours
    rates: dict[str, list[float]] = {name: [] for name in runs}
    vectors: dict[str, np.ndarray] = {}
    for run in runs.values():
        run(sample[:64])
    for _ in range(options.rounds):
        for name, run in runs.items():
            # processor time of this thread, beside which a loaded machine's wall clock says nothing
            started = time.process_time()
            vectors[name] = run(sample)
            rates[name].append(len(sample) / (time.process_time() - started))
    reference = vectors["sentence-transformers"]
    cosines = {name: float((vectors[name] * reference).sum(1).min()) for name in ours}
    folder = Path(tempfile.mkdtemp())
    try:
        again = changed(folder, sample, 0.01)
    finally:
        shutil.rmtree(folder)
    speed = {name: _record.spread(values, 1) for name, values in rates.items()}
    ratios = {name: speed[name]["median"] / speed["sentence-transformers"]["median"] for name in ours}
    for name, values in speed.items():
        print(f"{name:24} {values['median']:8.1f} texts/CPU-s" + (f"  {ratios[name]:.2f}x  least cosine {cosines[name]:.6f}" if name in ratios else ""))
    share = again["encoding_seconds"]["after"] / again["encoding_seconds"]["before"]
    print(f"changing 1 %: {again['encoded']['after']} of {again['encoded']['before']} encoded, {100 * share:.1f} % of the encoding time")
    words = [len(text.split()) for text in sample]
    results = {
        "texts_per_cpu_second": speed, "ratio": ratios, "least_cosine": cosines, "auto_is_bf16": half("auto", torch.device("cpu")),
        "again_after_1_percent": again, "words": _record.spread(words, 1),
    }  # fmt: skip
    goals = [
        _record.goal("texts a second, ratio to sentence-transformers (auto)", round(ratios["auto"], 3), least=1.3),
        _record.goal("least cosine to its vectors (auto)", round(cosines["auto"], 6), least=0.9999),
        _record.goal("encoding again after changing 1 %, share of the time", round(share, 4), below=0.03),
    ]
    return _record.save("content", results, goals, before=before, settings={"texts": len(sample), "rounds": options.rounds})


if __name__ == "__main__":
    sys.exit(main())
