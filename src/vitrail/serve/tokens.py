"""Who may do what: tokens with roles, from a file or from the environment."""

from __future__ import annotations

import hashlib
import hmac
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from vitrail.config import Settings, read_yaml
from vitrail.errors import SettingError

Role = Literal["read", "events", "admin"]
ROLES: tuple[Role, ...] = ("read", "events", "admin")
"""read: ask; events: send events; admin: all of it, and items and models."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class TokenEntry(Settings):
    """A token of a tokens file."""

    name: Name
    """What logs and limits call it."""
    roles: Annotated[list[Role], Field(min_length=1)]
    token: Annotated[str, StringConstraints(min_length=1)] | None = None
    """What a request carries."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """In place of `token`: its SHA-256, so that the file holds no secret."""


class TokenFile(Settings):
    """A tokens file."""

    tokens: Annotated[list[TokenEntry], Field(min_length=1)]


@dataclass(frozen=True)
class Holder:
    """Whose token a request carries."""

    name: str
    roles: frozenset[str]

    def may(self, role: Role) -> bool:
        """Whether it may act in `role`."""
        return role in self.roles or "admin" in self.roles


class Tokens:
    """The tokens of a service. None at all: everybody may do everything."""

    def __init__(self, holders: Sequence[tuple[bytes, Holder]] = ()) -> None:
        """`holders`: SHA-256 of a token, and whose it is."""
        self._holders = list(holders)

    def __bool__(self) -> bool:
        return bool(self._holders)

    def holder(self, token: bytes) -> Holder | None:
        """Whose `token` is. Every known one is compared in full, so the time tells nothing."""
        digest, found = hashlib.sha256(token).digest(), None
        for known, holder in self._holders:
            if hmac.compare_digest(digest, known):
                found = holder
        return found

    @classmethod
    def of(cls, single: str | None = None, file: str | Path | None = None, text: str | None = None) -> Tokens:
        """From one token that may do everything, a YAML file `{tokens: [{name, roles, token or sha256}]}`, and a text
        `role:token,role+role:token`. Raises SettingError: one sentence that shows no token.
        """
        entries: list[TokenEntry] = []
        if single is not None:
            if not single:
                raise SettingError("The token is empty: give one of some length, or none.")
            entries.append(TokenEntry(name="token", roles=["admin"], token=single))
        if file is not None:
            entries += _read(Path(file))
        if text:
            entries += _parse(text)
        names = [entry.name for entry in entries]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise SettingError(f'Two tokens are called "{twice}": give each its own name.')
        return cls([(_digest(entry), Holder(entry.name, frozenset(entry.roles))) for entry in entries])


def _digest(entry: TokenEntry) -> bytes:
    if (entry.token is None) == (entry.sha256 is None):
        raise SettingError(f'The token "{entry.name}" wants either "token" or "sha256", one of the two.')
    return bytes.fromhex(entry.sha256) if entry.sha256 is not None else hashlib.sha256(str(entry.token).encode()).digest()


def _read(file: Path) -> list[TokenEntry]:
    values: Mapping[str, Any] = read_yaml(file)
    if file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise SettingError(f"{file} can be read by every user of this machine: chmod 600 {file}.")
    try:
        return TokenFile.of(values, where=str(file)).tokens
    except SettingError as error:
        # the sentence of a bad value shows the value, which may be a secret
        raise SettingError(f"{str(error).partition(', got ')[0].rstrip('.')}.") from None


def _parse(text: str) -> list[TokenEntry]:
    entries = []
    for number, piece in enumerate(text.split(","), start=1):
        roles, colon, token = piece.strip().partition(":")
        wanted = roles.split("+")
        if not colon or not token or not all(role in ROLES for role in wanted):
            raise SettingError(f"Token {number} of VITRAIL_TOKENS is not of the form role:token, with the roles {', '.join(ROLES)} joined by +.")
        entries.append(TokenEntry(name=f"{roles.replace('+', '-')}-{number}", roles=list(wanted), token=token))  # type: ignore[arg-type]
    return entries
