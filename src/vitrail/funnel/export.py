"""A fitted ranker as a file for other runtimes: ONNX, or the text of boosted trees. Safetensors and JSON stay the house's own form.

The graph takes codes, as the artifact numbers them, and gives the log odds and the calibrated chance of each row. B rows, T events, F fields.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.data.batches import Impressions, Windows
from vitrail.errors import ResourceError, SettingError
from vitrail.files import atomic_file, refuse_taken, write_text
from vitrail.funnel.recommender import Recommender, load
from vitrail.systems.ranker import Ranker

Format = Literal["onnx", "trees"]
OPSET = 17
"""Version of ONNX's operators that graphs are written in."""
CLOSE = 1e-5
"""What the runtime may differ by from the house, in log odds relative to 1 or to their size, and in chances."""
INPUTS = ("items", "users", "fields", "history", "mask", "signals", "times", "now")
LONG = {"events": "items", "starts": "starts", "stops": "stops", "windows": "of", "event_times": "times", "event_signals": "signals"}
"""Inputs of rankers that search, and what of `Windows` each is."""
AXES = {
    "history": "steps", "mask": "steps", "signals": "steps", "times": "steps", "events": "events", "event_times": "events", "event_signals": "events",
    "starts": "windows", "stops": "windows",
}  # fmt: skip
"""What the free axis of an input counts, where it is not rows: the second one of the newest events, the only one of long histories."""
MEANING = {
    "items": "(B,) codes of the items: places of the rows of items.parquet",
    "users": "(B,) codes of the users: places of the rows of users.parquet; -1 a stranger",
    "fields": "(B, F) coded fields of the impression: see fields",
    "history": "(B, T) codes of the items before, oldest first, 0 where the mask is false",
    "mask": "(B, T) true where an event is; T is `length` where a system goes through it step by step",
    "signals": "(B, T) what happened at each event: 1 + how many of signals are <= it, 0 where that is not known",
    "times": "(B, T) microseconds since 1970 of each event",
    "now": "(B,) microseconds since 1970 of the question",
    "events": "(E,) codes of the items of long histories, oldest first, one person's after another's; one person's candidates share theirs",
    "starts": "(W,) where each long history begins among events",
    "stops": "(W,) where it ends",
    "windows": "(B,) which of the long histories a row has",
    "event_times": "(E,) microseconds since 1970 of each of events",
    "event_signals": "(E,) what happened at each of events, as in signals",
}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    file: Path
    format: Format
    opset: int | None
    inputs: list[str]
    bytes: int
    difference: float | None
    """largest difference to the house, of log odds (relative to 1 or their size) and of chances, on drawn rows; none where nothing could run it here"""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "file": str(self.file)}


def export_run(run: str | Path | Recommender, out: str | Path, format: Format = "onnx", *, overwrite: bool = False) -> Exported:
    """Write a fitted ranker to the file `out`. `onnx`: a graph, run once and compared where onnxruntime is installed. `trees`: the text of a LightGBM model.

    Raises SettingError where the system cannot be written so, ResourceError where onnx is not installed or the runtime's answers are not ours, DataError where
    the file is there already.
    """
    target = Path(out)
    refuse_taken(target, overwrite=overwrite)
    recommender = run if isinstance(run, Recommender) else load(run)
    model = recommender.model
    if not isinstance(model, Ranker):
        raise SettingError(f'System "{recommender.name}" is no ranker: rankers are exported; what retrieves answers through an index (`vitrail index build`).')
    if format == "trees":
        return _trees(model, target)
    if format != "onnx":
        raise SettingError(f'There is no format "{format}": use onnx or trees.')
    try:
        import onnx
    except ImportError:
        raise ResourceError('Export to ONNX needs onnx, which is not installed: pip install "vitrail[onnx]".') from None
    model.eval()
    graph, inputs = Graph(model), _inputs(model)
    with atomic_file(target) as temporary:
        _write(graph, inputs, temporary)
        made = onnx.load(temporary)
        used = {name for node in made.graph.node for name in node.input}
        kept = [value for value in made.graph.input if value.name in used]
        del made.graph.input[:]
        made.graph.input.extend(kept)
        names = [value.name for value in kept]
        onnx.helper.set_model_props(made, _told(recommender, model, names))
        onnx.checker.check_model(made)
        onnx.save(made, temporary)
        difference = compared(temporary, graph, drawn(model, 64, 9), names)
        if difference is not None and not difference <= CLOSE:
            apart = f"{difference:.1e} beside the system (allowed {CLOSE:g})"
            raise ResourceError(f"The graph of {recommender.name} answers {apart}, and is not written: report this.")
    return Exported(target, "onnx", OPSET, names, target.stat().st_size, difference)


def _trees(model: Ranker, target: Path) -> Exported:
    from vitrail.blocks.trees import as_text

    text = dict(model.named_buffers()).get("text")
    if text is None:
        raise SettingError(f'System "{model.card.name}" has no trees: export it with --format onnx.')
    write_text(target, as_text(text))
    return Exported(target, "trees", None, list(getattr(model, "names", ())), target.stat().st_size, None)


def _inputs(model: Ranker) -> list[str]:
    """Inputs that the system may read."""
    clock = model.source.events is not None
    lacking = {"signals": not model.spec.signal, "times": not clock, "now": not clock, "event_signals": not model.spec.signal, "event_times": not clock}
    return [name for name in (*INPUTS, *(LONG if model.config.searched else ())) if not lacking.get(name)]


def _given(batch: Impressions) -> dict[str, Tensor]:
    """What a batch has, by the names of the inputs."""
    return {name: getattr(batch, name) for name in INPUTS} | ({} if batch.long is None else {name: getattr(batch.long, of) for name, of in LONG.items()})


def _write(graph: Graph, inputs: list[str], file: Path) -> None:
    """Trace the graph on a small batch with padding."""
    free = not graph.model.unrolled
    example = drawn(graph.model, 3, 4)
    axes = {name: {0: AXES[name]} if name in LONG and name in AXES else {0: "rows"} | ({1: AXES[name]} if free and name in AXES else {}) for name in inputs}
    axes |= {"logit": {0: "rows"}, "probability": {0: "rows"}}
    graph.inputs = inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer: that lengths become constants, which they are (of fields), or that an exporter is old
        torch.onnx.export(
            graph, tuple(_given(example)[name] for name in inputs), str(file), input_names=inputs, output_names=["logit", "probability"],
            dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip


def _told(recommender: Recommender, model: Ranker, names: list[str]) -> dict[str, str]:
    """What stands in the file beside the graph."""
    fields = [f.model_dump(mode="json") for f in model.spec.owned("event")]
    return {
        "system": recommender.name, "fingerprint": str(recommender.info.get("fingerprint")), "opset": str(OPSET), "length": str(model.config.length),
        "inputs": json.dumps({name: MEANING[name] for name in names}), "fields": json.dumps(fields), "signals": json.dumps(model.spec.signals),
    }  # fmt: skip


class Graph(nn.Module):
    """Tensors in, (log odds, chances) out, as an exporter wants it."""

    def __init__(self, model: Ranker) -> None:
        super().__init__()
        self.model = model
        self.inputs: list[str] = []
        self.eval()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs in the order of `inputs` -> (B,) and (B,)"""
        given: dict[str, Any] = dict(zip(self.inputs, tensors, strict=True))
        if "events" in given:
            given["long"] = Windows(**{of: given.pop(name) for name, of in LONG.items() if name in given})
        logits = self.model.logit(Impressions(labels=given["items"].float() * 0, **given)).float()
        return logits, self.chances(logits)

    def chances(self, logits: Tensor) -> Tensor:
        """What the calibrator makes of logits (B,), in operators that graphs have."""
        calibrator = self.model.calibrator
        knots = calibrator.get_buffer("knots")
        if calibrator.method != "isotonic" or bool(knots.isnan().any()):
            return calibrator(logits)  # type: ignore[no-any-return]
        places, values = knots
        x = logits.double().clamp(float(places[0]), float(places[-1]))
        right = (x[:, None] > places).sum(1).clamp(1, len(places) - 1)
        width = (places[right] - places[right - 1]).clamp(min=1e-300)
        return (values[right - 1] + (values[right] - values[right - 1]) * ((x - places[right - 1]) / width).clamp(0, 1)).float()


def drawn(model: Ranker, rows: int, steps: int) -> Impressions:
    """Rows of every kind: strangers, missing and unseen codes, histories of 0 to `steps` events (the first row has them all)."""
    rng = np.random.default_rng(0)
    steps = model.config.length if model.unrolled else steps
    items, users = model.sizes.items, model.sizes.users
    lengths = rng.integers(0, steps + 1, rows)
    lengths[:2] = [steps, 0][: len(lengths)]
    mask = torch.from_numpy(np.arange(steps) < lengths[:, None])
    event = model.spec.owned("event")
    codes = np.stack([rng.integers(0, f.codes, rows) for f in event], axis=1) if event else np.zeros((rows, 0), dtype=np.int64)
    ago = np.sort(rng.integers(1, 10**12, (rows, steps)), axis=1)[:, ::-1]
    now = rng.integers(10**15, 2 * 10**15, rows)
    batch = Impressions(
        torch.from_numpy(rng.integers(-1, max(users, 1), rows)), torch.from_numpy(rng.integers(0, items, rows)), torch.zeros(rows),
        torch.from_numpy(rng.integers(0, items, (rows, steps))) * mask, mask, torch.from_numpy(codes),
    )  # fmt: skip
    signals = torch.from_numpy(rng.integers(0, len(model.spec.signals) + 2, (rows, steps))) * mask if model.spec.signal else None
    clock = model.source.events is not None
    times = torch.from_numpy(np.ascontiguousarray(now[:, None] - ago)) * mask if clock else None
    batch = replace(batch, signals=signals, times=times, now=torch.from_numpy(now) if clock else None)
    return replace(batch, long=_windows(model, rows, steps, rng)) if model.config.searched else batch


def _windows(model: Ranker, rows: int, steps: int, rng: np.random.Generator) -> Windows:
    """Long histories of 0 to 2 `steps` events (the first one has them all), fewer than rows."""
    lengths = rng.integers(0, 2 * steps + 1, (rows + 1) // 2)
    lengths[0] = 2 * steps
    stops = torch.from_numpy(np.cumsum(lengths))
    n, of = int(lengths.sum()), torch.from_numpy(rng.integers(0, len(lengths), rows))
    signals = torch.from_numpy(rng.integers(0, len(model.spec.signals) + 2, n)) if model.spec.signal else None
    times = torch.from_numpy(np.sort(rng.integers(1, 10**15, n))) if model.source.events is not None else None
    return Windows(torch.from_numpy(rng.integers(0, model.sizes.items, n)), stops - torch.from_numpy(lengths), stops, of, times, signals)


@torch.no_grad()
def compared(file: Path, graph: Graph, batch: Impressions, inputs: list[str]) -> float | None:
    """The largest difference of onnxruntime to the system on `batch`; none where onnxruntime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    given = _given(batch)
    found = session.run(["logit", "probability"], {name: given[name].numpy() for name in inputs})
    logits = graph.model.logit(batch).float()
    apart = [np.abs(found[0] - logits.numpy()) / np.maximum(np.abs(logits.numpy()), 1.0), np.abs(found[1] - graph.model.calibrator(logits).numpy())]
    return float(max(gap.max(initial=0.0) for gap in apart))
