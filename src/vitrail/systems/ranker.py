"""The skeleton Ranker: the chance that an item shown to a person is a success.

Letters: B batch, K candidates, R rows, E events, T time steps, N items, F fields, D width of a field, H width of an item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.calibrate import Calibrator, Method
from vitrail.blocks.compress import Compose, Kind, Storage
from vitrail.blocks.features import ContentFields, FeatureEmbedding, FieldTable, rare_penalty
from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt, Share
from vitrail.data.batchers import Batcher
from vitrail.data.batchers_rows import SEARCHED, ImpressionBatcher, gather, in_order, shared
from vitrail.data.batches import Impressions, Sets
from vitrail.data.features import Features
from vitrail.data.fields import FeatureSpec, FieldSettings, code_signals
from vitrail.data.impressions import Rows
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.data.windows import NEVER
from vitrail.errors import SettingError
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, System, TrainSettings

ROWS = 16_384
"""Rows scored at once."""


class RowSettings(FieldSettings, ContentSettings):
    """Settings of everything that ranks rows: its fields, what it reads of content and histories, how it is calibrated."""

    vectors: tuple[str, ...] = ()
    """Content vectors of items that become fields, frozen; a learned map brings each to the width D (`vitrail content list DATA` shows them)."""
    length: PositiveInt = 50
    """Newest events T of a history that are read."""
    calibration: Method = "platt"
    """How logits become probabilities, fitted on the validation part."""

    @property
    def searched(self) -> int:
        """Events of a history that are searched beside the newest `length`."""
        return 0


class RankerSettings(RowSettings, TrainSettings):
    """Settings every trained ranker has: of the loop, of its rows, and these."""

    dim: PositiveInt = 16
    """Width D of the vector of a field."""
    batch: PositiveInt = 1024
    """Impressions a step."""
    epochs: PositiveInt = 20
    """Epochs at most."""
    metric: Literal["gauc", "auc"] = "gauc"  # type: ignore[assignment]
    """What is maximised on the validation part."""
    patience: int = 2
    """Validations without improvement before the run stops; 0: never. Click-through models overfit after few epochs."""
    scale: PositiveFloat = 1e-2
    """Standard deviation the vectors of fields start with."""
    rare: NonNegativeFloat = 0.0
    """Mini-batch aware regularisation: weight of ||row||^2 / occurrences for the rows of item fields in a batch."""
    tables: Kind = "full"
    """How vectors of fields are stored: full, a row a code; hash, several codes a row; qr, quotient and remainder of the code; low_rank, fewer numbers a row
    and a map; multi_size, the fewer numbers the larger the field; unified, one table for all fields. Fields of at most 64 codes are stored whole."""
    budget: Share = 1.0
    """Share of the numbers of a row a code that `tables` may take."""
    chunks: PositiveInt = 1
    """Look-ups a value, side by side (unified); must divide D."""
    compose: Compose = "multiply"
    """What is made of the vectors of quotient and remainder (qr)."""


class Ranker(System):
    """Scores impressions by their fields and the history before them."""

    needs: ClassVar[Needs] = Needs(history=("item",), order="sequence")
    can: ClassVar[Can] = Can(new_users=True, similar=False)

    content_fields: ClassVar[bool] = True
    """The content vectors that the settings name become fields; else the system reads them itself."""
    unrolled: ClassVar[bool] = False
    """It goes through a history step by step, so that its graph is for histories filled up to `length` events."""
    shares: ClassVar[bool] = False
    """It reads batches whose rows have one history in common, given once (see `Impressions`), and does once what hangs on the history alone."""

    class Config(RankerSettings):
        """Settings of rankers."""

    def __init__(self, config: Any, sizes: Sizes, given: Given) -> None:
        nn.Module.__init__(self)
        self.config, self.sizes = config, sizes
        self.spec = sizes.features or FeatureSpec()
        if "items" not in given.tables:
            raise SettingError(
                f'System "{self.card.name}" ranks what was shown, and was given no impressions: fit and evaluate it with --split pairs, rated or shown.'
            )
        self.source = Features.of(self.spec, {name: tensor.numpy() for name, tensor in given.tables.items() if name != "occurrences"})
        self.calibrator = Calibrator(config.calibration)
        self.embed(config, given)
        self.build(config, sizes, given)

    def embed(self, config: Any, given: Given) -> None:
        """The tables of fields; a ranker that learns no vectors makes none."""
        self._content = given.content(config.vectors if self.content_fields else ())
        if config.rare and config.tables != "full":
            raise SettingError(f"rare={config.rare:g} counts the rows of codes, and tables={config.tables} shares them: use tables=full, or rare=0.")
        self.features = self.embedding(self.width(config), config.scale)
        self.signals = nn.Embedding(len(self.spec.signals) + 2, self.features.item_width) if self.spec.signal else None
        if self.signals is not None:
            nn.init.zeros_(self.signals.weight)
        if config.rare:
            self._count(given.tables["occurrences"])

    def width(self, config: Any) -> int:
        """D, the width of the vector of a field."""
        return int(config.dim)

    def embedding(self, dim: int, scale: float) -> FeatureEmbedding:
        """Tables of width `dim` for all fields, started with standard deviation `scale`."""
        catalogue, single = self.source.catalogue, [f for f in self.spec.owned("item") if f.kind != "categories"]
        return FeatureEmbedding(
            dim,
            items=torch.from_numpy(catalogue.items),
            item_sizes=[f.codes for f in single],
            lists={f.name: torch.from_numpy(catalogue.lists[f.name]) for f in self.spec.owned("item") if f.kind == "categories"},  # files keep no order
            list_sizes=[f.codes for f in self.spec.owned("item") if f.kind == "categories"],
            users=torch.from_numpy(catalogue.users),
            user_sizes=[f.codes for f in self.spec.owned("user")],
            event_sizes=[f.codes for f in self.spec.owned("event")],
            scale=scale,
            content=ContentFields(*self._content, dim, scale) if self._content[0] else None,
            storage=Storage(self.config.tables, self.config.budget, self.config.chunks if dim > 1 else 1, self.config.compose),
        )

    def _count(self, occurs: Tensor) -> None:
        """Occurrences of each row of the item fields' tables in the training rows."""
        table, codes = self.features.of_items, self.features.get_buffer("item_codes")
        assert isinstance(table, FieldTable)
        counts = torch.zeros(len(table.weight)).index_add(0, table.rows(codes).flatten(), occurs.float().repeat_interleave(codes.shape[1]))
        self.register_buffer("row_counts", counts, persistent=False)
        for place, of_list in enumerate(self.features.of_lists):
            listed = self.features.get_buffer(f"list_{place}").long()
            counts = torch.zeros(len(of_list.weight)).index_add(0, listed.flatten(), occurs.float().repeat_interleave(listed.shape[1]))  # type: ignore[arg-type]
            self.register_buffer(f"list_counts_{place}", counts, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it is; what has no weights is where its calibration is."""
        return next(chain(self.parameters(), self.buffers())).device

    # what a system writes

    def logit(self, batch: Impressions) -> Tensor:
        """-> (B,) log odds of success"""
        raise NotImplementedError

    # what it may use

    def items_and_events(self, batch: Impressions) -> tuple[Tensor, Tensor]:
        """Vectors of the targets (B, H), and of the events of all histories (E, H) in the order of `batch.mask`; each distinct item is looked up once."""
        if torch.onnx.is_in_onnx_export():  # what is distinct differs from batch to batch, and a graph is for all of them
            target, found = self.features.item(batch.items), self.features.item(batch.history)[batch.mask]
        elif len(batch.mask) != len(batch.items):  # one history: to find out what is distinct costs more than it saves
            events = batch.history[batch.mask]
            target, found = self.features.item(torch.cat([batch.items, events])).split([len(batch.items), len(events)])
        else:
            present, (targets, events) = self.features.distinct(batch.items, batch.history[batch.mask])
            vectors = self.features.item(present)
            target, found = F.embedding(targets, vectors), F.embedding(events, vectors)
        if self.signals is not None and batch.signals is not None:
            found = found + self.signals(batch.signals[batch.mask])
        return target, found

    # training

    def batcher(self, log: Rows, seed: int, rank: int, world: int) -> Batcher:  # type: ignore[override]
        return ImpressionBatcher(log, batch=self.config.batch, length=self.config.length, seed=seed, rank=rank, world=world, long=self.config.searched)

    def learn(self, log: Rows, valid: Rows | None = None, measure: Callable[..., float] | None = None) -> int:  # type: ignore[override]
        """Fit to rows at once, for rankers with `trained = False`, as `measure` of (labels, scores, users) chooses on `valid`; -> how many steps it took."""
        raise TypeError(f"{type(self).__name__} is trained in batches")

    def loss(self, batch: Impressions) -> Tensor:
        return self.loss_of(self.logit(batch), batch)

    def loss_of(self, logit: Tensor, batch: Impressions) -> Tensor:
        """The loss of a batch with these logits (B,)."""
        loss = F.binary_cross_entropy_with_logits(logit.float(), batch.labels, weight=batch.weights)
        return loss + self.config.rare * self.penalty(batch) if self.config.rare else loss

    def penalty(self, batch: Impressions) -> Tensor:
        """The sum of ||row||^2 / occurrences over the rows of item fields that the batch has."""
        long = [] if batch.long is None else [batch.long.items.long()]
        present, _ = self.features.distinct(batch.items, batch.history[batch.mask], *long)
        total = rare_penalty(self.features.of_items, self.features.get_buffer("item_codes")[present], self.get_buffer("row_counts"))
        for place, table in enumerate(self.features.of_lists):
            codes = self.features.get_buffer(f"list_{place}")[present]
            total = total + rare_penalty(table, codes[codes > 0], self.get_buffer(f"list_counts_{place}"))  # type: ignore[arg-type]
        return total

    # answering

    @torch.no_grad()
    def predict(self, rows: Rows) -> Tensor:
        """(R,) logits of rows that have their fields, on the CPU; the model must be in evaluation mode."""
        logits = torch.empty(len(rows))
        device = self.device
        for chosen, batch in in_order(rows, self.config.length, long=self.config.searched):
            logits[torch.from_numpy(chosen)] = self.logit(batch.to(device)).float().cpu()
        return logits

    def observe(self, known: Log, table: pl.DataFrame | None = None) -> None:
        """Count what happened from `known` on, whose events came from rows of `table`: the state of a service that has seen more than the fit."""
        self.source = self.source.at(known, table)

    def hear(self, events: pl.DataFrame) -> None:
        """Count `events` too, as they come: columns user and item (codes, -1 unknown), timestamp (microseconds), and what else is known of them."""
        self.source = self.source.heard(events)

    def rows_at(self, histories: Sets, candidates: Tensor, now: Tensor | int | None = None, context: Mapping[str, pl.Series] | None = None) -> Rows:
        """The impressions of `candidates` (B, K) item codes to B people at `now` (B,) microseconds, as rows with their fields, B * K of them.

        `now` none: just after the newest event that is known. `context` column -> (B * K,) values, e.g. retrieval scores; what is not given is missing.
        """
        users, K = histories.users.numpy(), candidates.shape[1]
        log = Log(
            histories.indptr.numpy(), histories.items.numpy().astype(np.int32), self.sizes.items,
            None if histories.times is None else histories.times.numpy(), None if histories.weights is None else histories.weights.numpy(),
        )  # fmt: skip
        owners = np.repeat(np.arange(len(users)), K)
        items = candidates.reshape(-1).numpy()
        moments = None if (when := self._moments(now, len(users), log.times)) is None else np.repeat(when, K)
        fields = self.source.codes(log, owners, log.indptr[owners], log.indptr[owners + 1], items, moments, context, np.repeat(users, K))
        labels = np.zeros(len(items), dtype=np.float32)
        return Rows(owners, items, labels, log.indptr[owners + 1], log, moments, fields=fields, signals=code_signals(log.weights, self.spec))

    def features_at(self, histories: Sets, candidates: Tensor, now: Tensor | int | None = None, context: Mapping[str, pl.Series] | None = None) -> Tensor:
        """(B, K, F) coded fields of the same impressions."""
        fields = self.rows_at(histories, candidates, now, context).fields
        assert fields is not None
        return torch.from_numpy(fields).view(*candidates.shape, -1)

    def _moments(self, now: Tensor | int | None, n: int, times: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        if now is not None:
            return np.broadcast_to(np.asarray(now, dtype=np.int64), (n,))
        known = ((self.source.events, 0), (self.source.shown, self.spec.matures))
        newest = [past.moment - later for past, later in known if past is not None and past.moment != NEVER]
        newest += [int(times.max())] if newest and times is not None and len(times) else []
        return np.full(n, max(newest) + 1, dtype=np.int64) if newest else None

    @torch.inference_mode()
    def score(
        self, histories: Sets, candidates: Tensor, now: Tensor | int | None = None, context: Mapping[str, pl.Series] | None = None, *, raw: bool = False
    ) -> Tensor:
        """(B, K) calibrated chances of success (`raw`: logits) of `candidates` (B, K) item codes; arguments as of `rows_at`.

        Raises SettingError where the shapes do not fit.
        """
        if candidates.ndim != 2 or len(candidates) != len(histories):
            raise SettingError(f"Candidates of shape {tuple(candidates.shape)} do not fit {len(histories)} histories: give one row of item codes a history.")
        rows = self.rows_at(histories, candidates, now, context)
        of_rows = histories.users.repeat_interleave(candidates.shape[1])
        device, found = self.device, []
        step = max(min(ROWS, SEARCHED // self.config.searched), 1) if self.config.searched else ROWS
        for start in range(0, len(rows), step):
            if self.shares and len(histories) == 1:
                batch = shared(rows.slice(start, start + step), self.config.length, self.config.searched)
            else:
                batch = gather(rows, np.arange(start, min(start + step, len(rows))), self.config.length, self.config.searched)
            found.append(self.logit(replace(batch, users=of_rows[start : start + step]).to(device)).float())
        logits = torch.cat(found) if found else torch.empty(0, device=device)
        return (logits if raw else self.calibrator(logits)).view(candidates.shape)

    def scores(self, histories: Sets) -> Tensor:
        everything = torch.arange(self.sizes.items)
        return torch.cat([self.score(histories.slice(b, b + 1), everything[None], raw=True) for b in range(len(histories))])

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        fields = 1 + len(sizes.features.fields) if sizes.features else 4
        tables = 4 * config.dim * (sum(f.codes for f in sizes.features.fields) if sizes.features else sizes.items)
        content = 4 * sizes.items * sum(sizes.vectors.values())
        rows = 40 * config.batch * (config.length * config.dim * fields + config.searched)
        return content + 5 * tables + rows + 24 * events
