"""Protocols: the frozen record of every choice that moves a number, printed with each number and part of its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vitrail.config import Settings, parse_assignments
from vitrail.data.splits import ALIASES, parse_split
from vitrail.errors import SettingError, unknown
from vitrail.files import fingerprint


class Protocol(Settings):
    """What is fitted on, what is known, what is removed and how it is counted when the test part is asked."""

    name: str
    split: str
    """the way the data are cut, as data.splits reads it"""
    positive: str | None = None
    """what counts as an interaction, e.g. `value >= 4`; none: as the data set declares"""
    fit_on: Literal["train", "train+valid"] = "train"
    history_at_test: Literal["train", "train+valid", "everything before"] = "train+valid"
    """what a system may look at; `everything before` is rolling: earlier test events too"""
    mask: Literal["none", "train", "train+valid", "everything before"] = "train+valid"
    """which items of the user are removed from the ranking at test"""
    ties: Literal["hash"] = "hash"
    """equal scores are ordered by a seeded hash of the outside item id"""
    ndcg: Literal["standard", "ngcf"] = "standard"
    recall_denominator: Literal["targets", "min(k,targets)"] = "targets"
    refit: bool = False
    """whether the system is fitted again on train and valid, at the chosen setting and epoch, before test"""
    candidates: Literal["all", "cold"] = "all"
    """which items are ranked"""

    def fingerprint(self, data_fingerprint: str, split_settings: Mapping[str, Any]) -> str:
        """Identifies what is measured; numbers with different fingerprints are never put in one table."""
        return fingerprint({"data": data_fingerprint, "split": dict(split_settings), "protocol": self.model_dump(mode="json")})

    def describe(self) -> str:
        """One line for people."""
        removed = "nothing is removed" if self.mask == "none" else f"items of {self.mask} are removed"
        parts = [
            f"split {self.split}",
            f"fitted on {self.fit_on}" + (" (refit)" if self.refit else ""),
            f"history at test: {self.history_at_test}",
            removed,
            "every item is ranked" if self.candidates == "all" else "only cold items are ranked",
            f"ties by {self.ties}",
            f"NDCG {self.ndcg}",
            f"recall over {self.recall_denominator}",
        ]
        if self.positive:
            parts.insert(1, f"positive: {self.positive}")
        return f"{self.name}: {', '.join(parts)}"


class RankProtocol(Protocol):
    """The same for rankers: which rows are asked, and what may be known of each."""

    settings: dict[str, Any] = {}
    """of the split: how rows are made and cut"""
    history_at_test: Literal["train", "train+valid", "everything before"] = "everything before"
    mask: Literal["none", "train", "train+valid", "everything before"] = "none"
    groups: Literal["user"] = "user"
    """within which GAUC compares"""

    def describe(self) -> str:
        """One line for people."""
        rows = {"pairs": "each event and items drawn for it", "rated": "every event, a success or not", "shown": "what was shown"}.get(self.split, self.split)
        by_place = self.settings.get("cut") in ("position", "predefined", "given")
        left = {"name", "ties"} | ({"valid", "test"} if by_place else set())
        told = ", ".join(f"{key} {value}" for key, value in self.settings.items() if key not in left)
        known = "history and features strictly before each row"
        return f"{self.name}: rows are {rows} ({told}), fitted on {self.fit_on}, {known}, GAUC by {self.groups}, ties count half"


def recorded_protocol(values: Mapping[str, Any]) -> Protocol:
    """The protocol of a manifest, of either kind. Raises SettingError where it is damaged."""
    return (RankProtocol if "groups" in values else Protocol).of(values, where="the manifest")


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="mmrec", split="mmrec_random", history_at_test="train", mask="train"),
        Protocol(name="lattice", split="lattice_random", history_at_test="train", mask="train"),
        Protocol(name="leave_one_out", split="leave-last-out"),
        Protocol(name="recbole_rs", split="recbole_rs", history_at_test="train"),
        Protocol(name="ngcf", split="ngcf_80_20", fit_on="train+valid", refit=True),
        Protocol(name="temporal", split="temporal"),
        Protocol(name="temporal_rolling", split="temporal:rolling=true", history_at_test="everything before", mask="everything before"),
        Protocol(name="ratio", split="ratio"),
        Protocol(name="predefined", split="predefined"),
        Protocol(name="cold_items", split="cold-items", candidates="cold"),
        Protocol(name="none", split="none"),
        *(RankProtocol(name=f"rank_{split}", split=split) for split in ("pairs", "rated", "shown")),
    )
}
"""The named protocols."""


def protocol_for(split: str) -> Protocol:
    """The protocol of that name, or the one that goes with a split: its name or its text, e.g. `temporal:valid=0.2,rolling=true`.

    `-` and `_` are the same. Raises SettingError for an unknown one.
    """
    name, _, options = split.partition(":")
    name = ALIASES.get(_plain(name), name)
    if name.startswith("temporal") and "rolling=true" in options.replace(" ", "").lower():
        name = "temporal_rolling"
    by_name = {_plain(p.split): p for p in PROTOCOLS.values()} | {_plain(p.name): p for p in PROTOCOLS.values()}
    if _plain(name) not in by_name:
        raise unknown("protocol", split, PROTOCOLS)
    return by_name[_plain(name)]


CHOICES = ("history_at_test", "mask", "ndcg", "recall_denominator")
"""What may be told beside the name of a protocol; the rest follows from the split and from `refit`."""


def parse_protocol(text: str, split: str) -> Protocol:
    """`mmrec` or `predefined:mask=train`: a named protocol, with other choices where some are told, for a split of that name.

    Raises SettingError for an unknown name, choice or value.
    """
    name, _, options = text.partition(":")
    base = protocol_for(name)
    told = parse_assignments(part for part in options.split(",") if part.strip())
    for key in told:
        if key not in CHOICES:
            raise unknown("choice of a protocol", key, CHOICES)
    if (base.candidates == "cold") != (split == "cold-items"):
        raise SettingError(f'The protocol "{base.name}" does not go with the split "{split}": only cold-items ranks cold items alone.')
    if not told and parse_split(base.split).name == split:
        return base
    full = base.name + (":" + ",".join(f"{key}={told[key]}" for key in sorted(told)) if told else "")
    return Protocol.of({**base.model_dump(), **told, "name": full, "split": split}, where=f'protocol "{text}"')


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_")
