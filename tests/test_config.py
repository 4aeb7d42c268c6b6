"""Settings: bounds, one-sentence errors that say what was meant, assignments and YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError, field_validator, model_validator

from vitrail.config import NonNegativeInt, PositiveFloat, PositiveInt, Rate, Settings, Share, parse_assignments, read_yaml
from vitrail.errors import SettingError


class Inner(Settings):
    depth: PositiveInt = 1


class Example(Settings):
    dim: PositiveInt = 64
    """width D"""
    dropout: Rate = 0.2
    share: Share = 0.5
    decay: PositiveFloat = 1.0
    workers: NonNegativeInt = 0
    loss: Literal["bce", "full"] = "bce"
    name: str = "x"
    inner: Inner = Inner()

    @field_validator("name")
    @classmethod
    def _no_space(cls, value: str) -> str:
        if " " in value:
            raise ValueError("a name has no spaces.")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Example:
        if self.dim < self.workers:
            raise ValueError("workers must not exceed dim")
        return self


class Required(Settings):
    data: str


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dmi": 3}, r'^Unknown key "dmi" in here\. Did you mean "dim"\?$'),
        ({"zzz": 3}, r'^Unknown key "zzz" in here\. Known: decay, dim, '),
        ({"dim": 0}, r'^Bad value for "dim" in here: input should be greater than 0, got 0\.$'),
        ({"dim": "many"}, r"got 'many'"),
        ({"dim": 2.5}, r"got 2\.5"),
        ({"dropout": 1.0}, r"less than 1, got 1"),
        ({"share": -0.1}, r"greater than or equal to 0"),
        ({"share": float("nan")}, r'"share"'),
        ({"decay": float("nan")}, r'"decay"'),
        ({"loss": "bcee"}, r"'bce' or 'full', got 'bcee'"),
        ({"name": "a b"}, r'^Bad value for "name" in here: a name has no spaces\.$'),
        ({"workers": 100}, r"^Bad here: workers must not exceed dim\.$"),
        ({"inner": {"depth": 0}}, r'"inner\.depth"'),
        ({"inner": {"depht": 1}}, r'^Unknown key "inner\.depht" in here\. Did you mean "depth"\?$'),
        ({"dim": None}, r'"dim"'),
    ],
)
def test_mistakes_are_one_sentence(values: dict, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence) as caught:
        Example.of(values, where="here")
    assert "\n" not in str(caught.value) and caught.value.__cause__ is None


def test_a_missing_key_is_named() -> None:
    with pytest.raises(SettingError, match=r'^The key "data" is missing in run\.yaml: add it\.$'):
        Required.of({}, where="run.yaml")


def test_settings_are_frozen_and_copies_are_checked() -> None:
    settings = Example.of({"dim": 8})
    with pytest.raises(ValidationError, match="frozen"):
        settings.dim = 9
    changed = settings.but({"loss": "full"})
    assert (changed.dim, changed.loss, settings.loss) == (8, "full", "bce")
    with pytest.raises(SettingError, match='"dim"'):
        settings.but({"dim": -1})
    assert settings == Example(dim=8) and hash(settings) == hash(Example(dim=8))


def test_docstrings_describe_the_fields() -> None:
    assert Example.model_fields["dim"].description == "width D"


def test_assignments() -> None:
    pairs = ["dim=64", "lr=1e-3", "loss=bce", "flag=true", "empty=", "list=[1, 2]", " spaced =x", "path=a=b", "when=2024-01-31", "k=[5,10]"]
    values = parse_assignments(pairs)
    assert values["dim"] == 64 and values["lr"] == 1e-3 and values["loss"] == "bce" and values["flag"] is True and values["empty"] is None
    assert values["list"] == [1, 2] and values["spaced"] == "x" and values["path"] == "a=b" and str(values["when"]) == "2024-01-31"
    assert parse_assignments([]) == {}


@pytest.mark.parametrize("pair", ["dim", "=3", " =3", ""])
def test_an_assignment_needs_a_key_and_a_value(pair: str) -> None:
    with pytest.raises(SettingError, match=r"not of the form key=value"):
        parse_assignments([pair])


@pytest.mark.parametrize("pair", ["a=[1", "a={", "a='"])
def test_an_unreadable_value_is_told(pair: str) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        parse_assignments([pair])


class TestYaml:
    def test_numbers_in_the_notation_people_write(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("lr: 1e-3\nnested: {decay: 5e-1, name: x}\nlist: [1, 2]\n")
        assert read_yaml(tmp_path / "a.yaml") == {"lr": 1e-3, "nested": {"decay": 0.5, "name": "x"}, "list": [1, 2]}

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"a: [1", "not readable YAML"),
            (b"\xff\xfe\x00", "not readable YAML"),
            (b"- 1\n", "must hold a mapping"),
            (b"", "must hold a mapping"),
            (b"a: !!python/object/apply:os.getcwd []", "not readable YAML"),
        ],
    )
    def test_damage(self, tmp_path: Path, content: bytes, sentence: str) -> None:
        (tmp_path / "a.yaml").write_bytes(content)
        with pytest.raises(SettingError, match=sentence) as caught:
            read_yaml(tmp_path / "a.yaml")
        assert "\n" not in str(caught.value)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match="There is no file"):
            read_yaml(tmp_path / "a.yaml")
        with pytest.raises(SettingError, match="cannot be read: is a directory"):
            read_yaml(tmp_path)


class Listed(Settings):
    inside: list[Inner] = []
    maybe: Inner | None = None
    named: dict[str, Inner] = {}


@pytest.mark.parametrize("values", [{"inside": [{"depth": 1}, {"dpth": 1}]}, {"maybe": {"dpth": 1}}, {"named": {"a": {"dpth": 1}}}])
def test_a_key_inside_lists_and_alternatives_is_suggested_too(values):
    with pytest.raises(SettingError, match='Did you mean "depth"'):
        Listed.of(values)
