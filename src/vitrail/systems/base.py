"""What every system is: a name, needs, abilities, settings, and the few methods its paper adds.

A system knows numbers and tensors only. The skeletons in skeletons.py and next_item.py give it batches, loss call,
tables, cold start and similarity; the loop, the index and the service never look inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Settings
from vitrail.data import item_facts
from vitrail.data.batchers import Batcher
from vitrail.data.batches import Sets
from vitrail.data.fields import FeatureSpec
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.data.vectors import Vectors
from vitrail.errors import SettingError

Stage = Literal["retrieve", "rank", "arrange", "explore"]
Status = Literal["measured", "works", "reconstruction", "draft"]
FACTS = ("indptr", "items", "item_counts")
"""The fields of `Given` that are single tensors."""
NAMED = ("vectors", "masks", "tables")
"""The fields of `Given` that hold tensors by name."""


@dataclass(frozen=True)
class Sizes:
    """U users, N items, and the width D of each content vector a system asked for."""

    users: int
    items: int
    vectors: dict[str, int] = field(default_factory=dict)
    features: FeatureSpec | None = None
    """the fields of a ranker"""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        fields = {} if self.features is None else {"features": self.features.model_dump(mode="json")}
        return {"users": self.users, "items": self.items, "vectors": self.vectors} | fields

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Sizes:
        """What `as_json` gave."""
        features = FeatureSpec.of(values["features"], where="the manifest") if "features" in values else None
        return cls(values["users"], values["items"], values.get("vectors", {}), features)


@dataclass(frozen=True)
class Given:
    """What a system declared: the train-only facts of `needs.given`, the content of `needs.vectors`; it travels with the artifact."""

    indptr: Tensor | None = None
    """(U + 1,) int64: training interactions in CSR form"""
    items: Tensor | None = None
    """(E,) int64"""
    item_counts: Tensor | None = None
    """(N,) int64 training events of each item"""
    vectors: dict[str, Tensor] = field(default_factory=dict)
    """name -> (N, D) float32; a row without content is 0 and means nothing. Read where they lie, in a map of the file where there is one: who changes
    them works on a copy"""
    masks: dict[str, Tensor] = field(default_factory=dict)
    """name -> (N,) bool, true where the item has content"""
    tables: dict[str, Tensor] = field(default_factory=dict)
    """what a ranker's features are made of (data.features), and `occurrences` (N,) in the training rows; what the catalogue says (data.item_facts)"""

    @classmethod
    def of(
        cls, log: Log, needs: Needs, content: Mapping[str, Vectors] | None = None, items: pl.DataFrame | None = None, kinds: Mapping[str, str] | None = None
    ) -> Given:
        """Exactly what `needs` declares, from the training log, the content vectors by name, and the catalogue with the kinds of its attributes."""
        facts: dict[str, Any] = {}
        if "interactions" in needs.given:
            facts["indptr"] = torch.from_numpy(np.array(log.indptr, dtype=np.int64))
            facts["items"] = torch.from_numpy(np.array(log.items, dtype=np.int64))
        if "item_counts" in needs.given:
            facts["item_counts"] = torch.from_numpy(log.item_counts)
        read = {name: (content or {})[name] for name in needs.vectors}
        facts["vectors"] = {name: torch.from_numpy(np.asarray(found.values, dtype=np.float32)) for name, found in read.items()}
        facts["masks"] = {name: torch.from_numpy(found.mask.copy()) for name, found in read.items()}
        told: dict[str, Any] = {}
        if "attributes" in needs.given and items is not None:
            told |= item_facts.attribute_codes(items, kinds or {}, log)
        if "texts" in needs.given and items is not None:
            told |= item_facts.item_texts(items, kinds or {})
        return cls(**facts, tables={name: torch.from_numpy(np.array(values)) for name, values in told.items()})

    def counts(self, n_items: int) -> Tensor | None:
        """(N,) training events of each item, from whatever is there; none where nothing tells."""
        if self.item_counts is not None or self.items is None:
            return self.item_counts
        return torch.bincount(self.items, minlength=n_items)

    def content(self, names: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`vectors` and `masks` in the order of `names`: files keep none."""
        return {name: self.vectors[name] for name in names}, {name: self.masks[name] for name in names}

    def longer_tables(self, items: pl.DataFrame) -> dict[str, Tensor]:
        """`tables` where the rows of `items` are further items."""
        told = item_facts.longer({name: values.numpy() for name, values in self.tables.items()}, items)
        return {name: torch.from_numpy(values) for name, values in told.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Name -> tensor of what is there; what has a name of its own as `vectors.NAME`, `masks.NAME`, `tables.NAME`."""
        facts = {name: value for name in FACTS if (value := getattr(self, name)) is not None}
        return facts | {f"{kind}.{name}": value for kind in NAMED for name, value in getattr(self, kind).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Given:
        """What `tensors` packed."""
        facts: dict[str, Any] = {name: value for name, value in tensors.items() if name in FACTS}
        for kind in NAMED:
            facts[kind] = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}.")}
        return cls(**facts)


class Can(Settings):
    """What a fitted system is able to do. Ask the ability, not the class."""

    new_users: bool = False
    """Answers for a history it never saw, without retraining."""
    cold_items: bool = False
    """Answers with items that have no training event."""
    personal: bool = True
    """Answers depend on who asks."""
    similar: bool = True
    """Has a similarity between items."""
    filters: bool = True
    """Answers under a filter over item attributes."""
    dense: bool = False
    """Scores are inner products of `query_vectors` and `item_vectors`, so that an index may search them; told by whether these are written."""


class Card(Settings):
    """What `vitrail systems` shows."""

    name: str
    stage: Stage
    family: str
    paper: str | None
    year: int | None
    status: Status
    summary: str
    skeleton: str
    needs: Needs
    can: Can


class ContentSettings(Settings):
    """Settings of systems that read content vectors of items."""

    vectors: tuple[str, ...] = ("text", "image")
    """Names of the vectors of the data set that are read (`vitrail content list DATA` shows them)."""

    def counts_of(self, name: str) -> tuple[float, ...]:
        """What each of `vectors` counts by the setting `name`; with one, it alone. Raises SettingError where they do not fit."""
        counts: tuple[float, ...] = getattr(self, name)
        if len(self.vectors) == 1:
            return (1.0,)
        if not self.vectors or len(counts) != len(self.vectors) or not sum(counts):
            raise SettingError(f"{name} must hold a number for each of vectors ({', '.join(self.vectors) or 'none'}), and not only 0.")
        return counts


class TrainSettings(Settings):
    """Settings of the one training loop; every trained system has them beside its own."""

    epochs: PositiveInt = 200
    """Epochs at most."""
    batch: PositiveInt = 2048
    """Rows a step: pairs, or users for sequence systems."""
    lr: PositiveFloat = 1e-3
    """Learning rate of Adam."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's moments."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay (AdamW)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls to 0 over all epochs."""
    warmup: NonNegativeInt = 0
    """Steps in which the learning rate rises from 0."""
    clip: NonNegativeFloat = 0.0
    """Largest norm of the gradient; 0: no clipping."""
    metric: str = "ndcg@10"
    """What is maximised on the validation part."""
    patience: NonNegativeInt = 10
    """Validations without improvement before the run stops; 0: never."""
    validate_every: PositiveInt = 1
    """Epochs between validations."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the forward pass; auto: bf16 on a GPU that has it, else fp32."""
    checkpoint_seconds: NonNegativeFloat = 30.0
    """Least time between two checkpoints."""


class System(nn.Module):
    """Base of all systems. `build` makes the parts; a skeleton makes it answer."""

    card: ClassVar[Card]
    needs: ClassVar[Needs] = Needs()
    can: ClassVar[Can] = Can()
    trained: ClassVar[bool] = True
    """In batches by the one loop; else all at once by `learn`."""
    deterministic: ClassVar[bool] = False
    """The seed moves nothing: one fit stands for all seeds."""
    space: ClassVar[dict[str, Any]] = {}
    """Setting -> what tuning tries, where the generic ranges of lab.space do not fit; null takes one out."""
    prefix: int | None = None
    """Numbers of each vector that answers are read from; none: all (see `truncate`)."""
    toy: ClassVar[dict[str, Any]] = {}
    """Settings, beside the battery's own, with which it learns 24 users and items in a moment."""

    class Config(Settings):
        """Settings of the system."""

    def __init__(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        self.__dict__["can"] = self.abilities(config)
        self.build(config, sizes, given)

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        """Make the parts from settings, sizes and the train-only facts it declared."""

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        """Bytes a fit will need at its peak, estimated before it starts."""
        return 0

    @classmethod
    def wants(cls, config: Any) -> Needs:
        """`needs`, with the vectors that the settings name."""
        return cls.needs.but({"vectors": config.vectors}) if isinstance(config, ContentSettings) else cls.needs

    @classmethod
    def abilities(cls, config: Any) -> Can:
        """`can`, for these settings: what a fitted system with them is able to do."""
        return cls.can

    # fitting: either `trained` in batches by the one loop, or all at once by `learn`

    def learn(self, log: Log) -> None:
        """Fit to the training log at once; for systems with `trained = False`. What it makes must live in buffers."""
        raise TypeError(f"{type(self).__name__} is trained in batches")

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back the saved weights."""
        self.load_state_dict(tensors)

    def batcher(self, log: Log, seed: int, rank: int, world: int) -> Batcher:
        """The batches of this system over the training log."""
        raise TypeError(f"{type(self).__name__} is not trained in batches")

    def loss(self, batch: Any) -> Tensor:
        """A scalar to minimise."""
        raise TypeError(f"{type(self).__name__} is not trained in batches")

    def on_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        """Before an epoch (redraw edges, copy weights). What it makes must live in buffers, so that it is checkpointed."""

    def after_step(self, parameters: Iterable[nn.Parameter]) -> None:
        """After each optimiser step (masks, constraints)."""

    # vectors whose prefixes were trained to stand alone

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths at which the vectors were trained to answer, the full one last; none: at the full one alone."""
        return tuple(getattr(self.config, "nested", ()))

    def width_weights(self) -> list[float]:
        """What the loss at each of `widths` counts."""
        return [1.0] * len(self.widths)

    def truncate(self, dim: int) -> None:
        """From the next `prepare` on, answer by the first `dim` numbers of every vector; widths between the trained ones work too.

        Raises SettingError where no prefix was trained to stand alone, or the vectors are narrower.
        """
        if not self.widths:
            raise SettingError(f'The vectors of this "{self.card.name}" were not trained to be cut: fit it with --set nested=[8,16,...], up to its full width.')
        if not 1 <= dim <= self.widths[-1]:
            raise SettingError(f"dim is {dim}: the vectors can be cut to 1 to {self.widths[-1]} numbers.")
        self.prefix = dim

    def narrow(self, vectors: Tensor) -> Tensor:
        """(..., D) -> (..., prefix)"""
        return vectors if self.prefix is None else vectors[..., : self.prefix]

    # items that come after training, where `can.cold_items`

    def grown(self, sizes: Sizes, given: Given) -> System:
        """This system with the weights it has and further items behind its own, which `given` has the content of."""
        before, made = self.sizes.items, type(self)(self.config, sizes, given).eval()
        with torch.no_grad():
            state = made.state_dict()
            for name, old in self.state_dict().items():
                (state[name] if state[name].shape == old.shape else state[name][: len(old)]).copy_(old)
            made.added(before)
        made.prefix = self.prefix
        return made

    def added(self, first: int) -> None:
        """The items from code `first` on were added after training: make of their content what answers need."""

    # answering

    def prepare(self) -> None:
        """Compute, once, the tables that answers are read from. Called in evaluation mode without gradients."""

    def scores(self, histories: Sets) -> Tensor:
        """B histories -> (B, N) float32, higher is better; the scale is the system's own."""
        raise TypeError(f"{type(self).__name__} does not score")

    def answerable(self, histories: Sets) -> Tensor:
        """(B,) bool: the histories this system can answer itself; the rest get the popular list."""
        return histories.lengths > 0

    def item_vectors(self) -> Tensor | None:
        """(N, D) float32 of a prepared system whose scores are inner products; none for any other."""
        return None

    def query_vectors(self, histories: Sets) -> Tensor | None:
        """B histories -> (B, D) float32, whose inner products with `item_vectors` are the scores; none for any other."""
        return None

    def similarity(self, items: Tensor) -> Tensor:
        """(B,) item codes -> (B, N) float32 similarity to every item."""
        raise SettingError(f'System "{self.card.name}" has no similarity between items.')


S = TypeVar("S", bound=type[System])
_REGISTRY: dict[str, type[System]] = {}


def system(name: str, *, stage: Stage, family: str, paper: str | None = None, year: int | None = None, status: Status = "draft") -> Callable[[S], S]:
    """Class decorator: registers a system under `name`. `paper` is an arXiv id or DOI; `status` is `works` once battery and card checks
    pass, `measured` once its recipe holds our number beside the published one; a `reconstruction` had no equations to follow."""

    def register(cls: S) -> S:
        skeleton = next((base.__name__ for base in cls.__mro__[1:] if base.__module__.startswith("vitrail.systems.")), "System")
        module = __import__("sys").modules[cls.__module__]
        dense = cls.item_vectors is not System.item_vectors and cls.query_vectors is not System.query_vectors
        cls.can = cls.can.model_copy(update={"dense": dense})
        summary = (cls.__doc__ or module.__doc__ or name).strip().split("\n\n")[0].replace("\n", " ")
        cls.card = Card(
            name=name, stage=stage, family=family, paper=paper, year=year, status=status, summary=summary, skeleton=skeleton, needs=cls.needs, can=cls.can
        )
        _REGISTRY[name] = cls
        return cls

    return register
