"""100,000 different texts of real catalogues and abstracts as vectors of the embedded encoder, for `bench_index.py --vectors`.

    python benchmarks/text_vectors.py texts.npy
    python benchmarks/text_vectors.py look.npy --count 2000

Titles of phones, beauty, clothing, electronics, fashion, office and industrial supplies, attributes and keywords of sports, plots of films, and
sentences of scientific abstracts, from `VITRAIL_DATA`; equal texts count once. Sentences, in a seeded order, fill up to the count. The file is written last.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import _record
import numpy as np
import polars as pl

from vitrail.content.text import load_text
from vitrail.files import atomic_file

ROOT = Path(os.environ.get("VITRAIL_DATA") or _record.ROOT.parent / "shared" / "data")
PART = 4096
"""Texts between two lines of progress."""


def table(path: str, columns: list[str], separator: str = "\t") -> Iterator[str]:
    """The named columns of a table, put together."""
    quote = '"' if separator == "," else None
    read = pl.read_csv(ROOT / path, separator=separator, quote_char=quote, infer_schema=False)
    yield from read.select(pl.concat_str(columns, separator=" ", ignore_nulls=True).alias("text"))["text"].drop_nulls().to_list()


def catalogues() -> Iterator[str]:
    """A text an item."""
    yield from json.loads((ROOT / "amazon-phones-text" / "items.json").read_text()).values()
    yield from table("amazon-beauty-2014/items.tsv", ["title", "attributes"])
    yield from table("amazon-sports-2014/items.tsv", ["attributes", "gram_keywords"])
    for kind in ("clothing", "electronic"):
        yield from table(f"bundle-intent/{kind}/item_titles.csv", ["titles"], ",")
    for kind in ("office", "industrial"):
        yield from (item["title"] for item in json.loads((ROOT / f"amazon-{kind}-2018" / "items.json").read_text()).values())
    yield from table("fashion-images/items.tsv", ["productDisplayName"])
    yield from table("ml-100k/items_text.tsv", ["title", "plot"])


def sentences() -> Iterator[str]:
    """The sentences of abstracts."""
    for line in (ROOT / "scifact-beir" / "corpus.jsonl").read_text().splitlines():
        yield from re.split(r"(?<=[.!?]) +", json.loads(line)["text"])
    for text in re.findall(r"</DOCNO>(.*?)</DOC>", (ROOT / "vaswani-npl" / "doc-text.trec").read_text(), flags=re.DOTALL):
        yield " ".join(text.split())


def main() -> int:
    """0: written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="FILE.npy")
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    first = list(dict.fromkeys(text.strip() for text in catalogues() if text.strip()))
    more = [text for text in dict.fromkeys(text.strip() for text in sentences()) if len(text) > 30 and text not in set(first)]
    chosen = [*first, *(more[n] for n in rng.permutation(len(more)))][: options.count]
    if len(chosen) < options.count:
        print(f"error: {ROOT} has {len(chosen):,} different texts, {options.count:,} were asked for; lower --count", file=sys.stderr)
        return 2
    print(f"{len(chosen):,} texts, {min(len(first), len(chosen)):,} of them of catalogues")
    encoder, vectors, started = load_text("minilm"), [], time.perf_counter()
    for start in range(0, len(chosen), PART):
        vectors.append(encoder.encode(chosen[start : start + PART]).astype(np.float32))
        done = min(start + PART, len(chosen))
        print(f"{done:,} at {done / (time.perf_counter() - started):.0f} texts/s", flush=True)
    made = np.concatenate(vectors)
    with atomic_file(options.out) as path, path.open("wb") as file:
        np.save(file, made, allow_pickle=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
