"""Public data sets as records: where their files are, what they must hash to, whose they are, and which file plays which part."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, StringConstraints, field_validator, model_validator

from vitrail.config import Settings, read_yaml
from vitrail.data.ingest import IngestSettings
from vitrail.errors import SettingError, unknown

RECORDS = Path(__file__).with_name("records.yaml")
CATEGORY = "{category}"
"""Stands in a record of a family for the category that is asked for: `amazon-2014:Beauty`."""
ADDRESS = re.compile(r"https?://[^/\s]+/\S+")

Digest = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]+$")]
Role = Literal["events", "train", "valid", "test", "items", "users"]


class Member(Settings):
    """One table inside a file, and how its lines become lines that ingest reads."""

    path: str = ""
    """Place inside an archive of several files; empty where the file holds this table alone."""
    role: Role = "events"
    """What the table holds; train, valid and test are events that come split."""
    dialect: Literal["text", "json", "python"] = "text"
    """Lines of text as they are, JSON objects, or objects as Python writes them (single quotes)."""
    encoding: str = "utf-8"
    """Encoding of lines of text; they are brought to UTF-8."""
    columns: tuple[str, ...] = ()
    """Names of the columns, for a file without a header."""
    separator: str = "\t"
    """What separates the columns, for a file without a header."""
    marks: dict[str, tuple[str, ...]] = {}
    """Column -> columns of 0 and 1 that become its list of categories, for a file without a header."""
    keep: tuple[str, ...] = ()
    """Keys of the objects that are read; none named: all."""
    joined: tuple[str, ...] = ()
    """Keys whose lists of sentences become one text."""
    numbers: tuple[str, ...] = ()
    """Keys whose first number is the value: "$1,299.99" is 1299.99."""
    seen: str | None = None
    """Key of the item id: objects of items that no event has are left out."""

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if not safe(path):
            raise ValueError(f'"{path}" leads out of the archive')
        return path


    @model_validator(mode="after")
    def _known(self) -> Member:
        absent = {name for names in self.marks.values() for name in names} - set(self.columns)
        if absent:
            raise ValueError(f'"{min(absent)}" is none of the columns')
        return self


class SourceFile(Settings):
    """One file to download."""

    file: str = Field(pattern=r"^[A-Za-z0-9{][\w.{}-]*$")
    """Its name in the cache."""
    urls: tuple[str, ...] = Field(min_length=1)
    """Where it is, the first first."""
    sha256: Annotated[Digest, StringConstraints(min_length=64, max_length=64)] | None = None
    """As published; where neither this nor `md5` is, the first download is remembered and later ones must equal it."""
    md5: Annotated[Digest, StringConstraints(min_length=32, max_length=32)] | None = None
    bytes: int | None = Field(default=None, gt=0)
    """About how large it is; a download of more than twice that is stopped."""
    archive: Literal["zip", "gz", "tar.gz", "none"] = "none"
    members: tuple[Member, ...] = Field(min_length=1)

    @field_validator("urls")
    @classmethod
    def _web(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not ADDRESS.fullmatch(url):
                raise ValueError(f'"{url}" is not an address of the web')
        return urls

    @model_validator(mode="after")
    def _placed(self) -> SourceFile:
        if any(bool(member.path) != (self.archive in ("zip", "tar.gz")) for member in self.members):
            raise ValueError(f"{self.file}: the tables of a zip or tar archive have a path, others none")
        return self

    @property
    def checksum(self) -> str | None:
        """The published checksum with its kind, e.g. "md5 0e33..."; None where none is published."""
        return f"sha256 {self.sha256}" if self.sha256 else f"md5 {self.md5}" if self.md5 else None


class SourceRecord(Settings):
    """A public data set, or a family of them that differ in their category."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*(:\w+)?$")
    title: str
    files: tuple[SourceFile, ...] = Field(min_length=1)
    licence: str
    citation: str
    homepage: str
    ingest: IngestSettings = IngestSettings()
    """How the tables are read."""
    categories: tuple[str, ...] = ()
    """Categories of a family, each a data set `name:category`."""
    verified: bool = False
    """Whether addresses, form and checksums were checked against published material."""
    note: str = ""
    """What is worth knowing before use."""

    @model_validator(mode="after")
    def _whole(self) -> SourceRecord:
        roles = [member.role for file in self.files for member in file.members]
        if not {"events", "train"} & set(roles):
            raise ValueError(f"{self.name} has no table of events")
        if any(roles.count(part) > 1 for part in ("train", "valid", "test")):
            raise ValueError(f"{self.name} has two tables of one part")
        if len({file.file for file in self.files}) < len(self.files):
            raise ValueError(f"{self.name} has two files of one name")
        return self

    @property
    def size(self) -> int | None:
        """About how many bytes are downloaded; None where it is not known."""
        sizes = [file.bytes for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def only(self, category: str) -> SourceRecord:
        """The record of one category of a family. Raises SettingError for an unknown one."""
        if category not in self.categories:
            raise unknown(f"category of {self.name}", category, self.categories)
        values: dict[str, Any] = orjson.loads(orjson.dumps(self.model_dump(mode="json")).replace(CATEGORY.encode(), category.encode()))
        return SourceRecord.model_validate(values | {"name": f"{self.name}:{category}", "categories": ()})


def safe(path: str) -> bool:
    """Whether a path inside an archive stays inside."""
    pure = PurePosixPath(path)
    return not (pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path or "\0" in path)


@cache
def records() -> dict[str, SourceRecord]:
    """Every record that is shipped, by name."""
    return load(RECORDS)


def load(path: Path) -> dict[str, SourceRecord]:
    """The records in a YAML file (`records: [...]`), by name. Raises SettingError: absent, malformed, or a key that is unknown."""
    found: dict[str, SourceRecord] = {}
    for values in read_yaml(path).get("records", []):
        record = SourceRecord.of(values, where=f"{path.name}, {values.get('name')}")
        found[record.name] = record
    return found


def find(name: str) -> SourceRecord:
    """The record `name` or, of a family, `name:category`. Raises SettingError for an unknown name and for a family without a category."""
    base, colon, category = name.partition(":")
    if base not in records():
        raise unknown("data set", base, records())
    record = records()[base]
    if colon and not record.categories:
        raise SettingError(f'{base} has no categories: ask for "{base}" alone.')
    if colon:
        return record.only(category)
    if record.categories:
        raise SettingError(f"{base} is a family: name a category, e.g. {base}:{record.categories[0]}; there are {', '.join(record.categories)}.")
    return record
