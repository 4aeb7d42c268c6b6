"""Tokens with roles: where they come from, whose they are, and that no refusal shows one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from vitrail.errors import SettingError
from vitrail.serve.tokens import Tokens


def file(folder: Path, entries: Any, mode: int = 0o600) -> Path:
    path = folder / "tokens.yaml"
    path.write_text(yaml.safe_dump({"tokens": entries}), encoding="utf-8")
    path.chmod(mode)
    return path


def test_tokens_come_from_everywhere(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"hashed").hexdigest()
    path = file(tmp_path, [{"name": "web", "roles": ["read"], "token": "plain"}, {"name": "shop", "roles": ["read", "events"], "sha256": digest}])
    tokens = Tokens.of("single", path, "admin:from-text,read+events:a:b")
    found = {token: tokens.holder(token.encode()) for token in ("plain", "hashed", "single", "from-text", "a:b", "other", "", digest)}
    assert {token: holder and sorted(holder.roles) for token, holder in found.items()} == {
        "plain": ["read"], "hashed": ["events", "read"], "single": ["admin"], "from-text": ["admin"], "a:b": ["events", "read"],
        "other": None, "": None, digest: None,
    }  # fmt: skip
    single = tokens.holder(b"single")
    assert single is not None and single.may("read") and single.may("events")
    web = tokens.holder(b"plain")
    assert web is not None and web.name == "web" and not web.may("events")
    assert not Tokens.of()
    assert tokens


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "tokens"),
        ([{"name": "a", "roles": ["read"]}], "either"),
        ([{"name": "a", "roles": ["read"], "token": "secret", "sha256": "0" * 64}], "either"),
        ([{"name": "a", "roles": ["reader"], "token": "secret"}], "roles"),
        ([{"name": "a", "roles": [], "token": "secret"}], "roles"),
        ([{"name": "a b", "roles": ["read"], "token": "secret"}], "name"),
        ([{"name": "a", "roles": ["read"], "sha256": "secret"}], "sha256"),
        ([{"name": "a", "roles": ["read"], "token": ["secret"]}], "token"),
        ([{"name": "a", "roles": ["read"], "token": "secret"}] * 2, "Two tokens"),
        ([{"name": "a", "role": ["read"], "token": "secret"}], "role"),
    ],
)
def test_bad_files_are_one_sentence_that_shows_no_token(tmp_path: Path, entries: Any, words: str) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        Tokens.of(file=file(tmp_path, entries))
    assert "secret" not in str(caught.value)
    assert str(caught.value).endswith(".") or "Did you mean" in str(caught.value)


def test_a_file_for_everybody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="chmod 600"):
        Tokens.of(file=file(tmp_path, [{"name": "a", "roles": ["read"], "token": "t"}], 0o644))


@pytest.mark.parametrize("text", ["secret", "read:", "reader:secret", ":secret", "read:a,,"])
def test_bad_texts_are_one_sentence_that_shows_no_token(text: str) -> None:
    with pytest.raises(SettingError, match="role:token") as caught:
        Tokens.of(text=text)
    assert "secret" not in str(caught.value)


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(SettingError, match="empty"):
        Tokens.of("")
