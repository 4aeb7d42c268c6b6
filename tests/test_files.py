"""Atomic files and folders: all or nothing, whatever goes wrong, and one sentence for a full disk whoever met it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import vitrail.files as files
from vitrail.errors import ArtifactError, DataError, ResourceError, VitrailError
from vitrail.files import atomic_file, atomic_folder, fingerprint, full_disk_as_sentence, read_json, sha256, write_json, write_text

FULL = OSError(errno.ENOSPC, "No space left on device")
FAILURES = [(RuntimeError("boom"), RuntimeError), (KeyboardInterrupt(), KeyboardInterrupt), (FULL, ResourceError), (DataError("mine"), DataError)]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


class TestFile:
    def test_content_arrives_whole(self, tmp_path: Path) -> None:
        target = tmp_path / "deep" / "er" / "a.txt"
        with atomic_file(target) as temporary:
            temporary.write_text("new")
            assert not target.exists() and temporary.parent == target.parent
        assert target.read_text() == "new" and names(target.parent) == ["a.txt"]

    @pytest.mark.parametrize(("failure", "raised"), FAILURES)
    def test_a_failure_keeps_the_old_and_leaves_nothing(self, tmp_path: Path, failure: BaseException, raised: type[BaseException]) -> None:
        target = tmp_path / "a.txt"
        target.write_text("old")
        with pytest.raises(raised), atomic_file(target) as temporary:
            temporary.write_text("ne")
            raise failure
        assert target.read_text() == "old" and names(tmp_path) == ["a.txt"]

    def test_a_disk_that_fills_at_the_last_moment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Delayed allocation reports a full disk only when the data are flushed."""

        def flush(descriptor: int) -> None:
            raise FULL

        monkeypatch.setattr(os, "fsync", flush)
        with pytest.raises(ResourceError, match=r"disk is full while writing .*a\.txt.*nothing was left half-written"):
            write_text(tmp_path / "a.txt", "text")
        assert names(tmp_path) == []

    def test_permissions_are_those_of_an_ordinary_file(self, tmp_path: Path) -> None:
        write_text(tmp_path / "a.txt", "text")
        (tmp_path / "b.txt").write_text("text")
        assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "b.txt").stat().st_mode)

    def test_impossible_places_are_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        (tmp_path / "folder").mkdir()
        for place in (tmp_path / "file" / "a.txt", tmp_path / "folder", tmp_path / ("x" * 300)):
            with pytest.raises(ResourceError, match=r"cannot be written \(.*choose another place"):
                write_text(place, "text")
        assert names(tmp_path) == ["file", "folder"]


class TestFullDisk:
    """Libraries tell of a full disk in their own ways; people read one sentence."""

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    @pytest.mark.parametrize("library", ["python", "polars", "numpy small", "numpy large"])
    def test_for_real(self, library: str) -> None:
        full = Path("/dev/full")

        def write() -> None:
            if library == "python":
                full.write_text("x" * 100_000)
            elif library == "polars":
                pl.DataFrame({"a": np.arange(100_000)}).write_parquet(full)
            else:
                with full.open("wb") as file:
                    np.save(file, np.arange(10 if library == "numpy small" else 1_000_000))

        with pytest.raises(ResourceError, match=r"disk is full while writing a\.bin"), full_disk_as_sentence(Path("a.bin")):
            write()

    def test_in_words(self) -> None:
        for words in ("Error while serializing: I/O error: No space left on device (os error 28)", "1000000 requested and 131056 written"):
            with pytest.raises(ResourceError, match="disk is full"), full_disk_as_sentence(Path("a")):
                raise RuntimeError(words)

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
    def test_permission(self, number: int) -> None:
        with pytest.raises(ResourceError, match=r"a\.txt cannot be written: check its permissions"), full_disk_as_sentence(Path("a.txt")):
            raise OSError(number, "no")

    def test_other_errors_pass(self) -> None:
        for error in (ValueError("bad value 28"), FileNotFoundError(errno.ENOENT, "gone"), ArtifactError("No space left in this sentence")):
            with pytest.raises(type(error)) as caught, full_disk_as_sentence(Path("a")):
                raise error
            assert caught.value is error


class TestFolder:
    def test_content_arrives_whole(self, tmp_path: Path) -> None:
        target = tmp_path / "deep" / "run"
        with atomic_folder(target) as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub" / "a").write_text("a")
            assert not target.exists()
        assert (target / "sub" / "a").read_text() == "a" and names(tmp_path / "deep") == ["run"]

    def test_an_existing_folder_is_kept_unless_asked(self, tmp_path: Path) -> None:
        target = tmp_path / "run"
        target.mkdir()
        with atomic_folder(target) as temporary:
            (temporary / "a").write_text("into an empty folder is fine")
        entered = False
        with pytest.raises(DataError, match=r"exists already: choose another place, or pass --overwrite"), atomic_folder(target):
            entered = True
        assert not entered and names(target) == ["a"]
        (tmp_path / "file").write_text("a file, not a folder")
        with pytest.raises(DataError, match="exists already"), atomic_folder(tmp_path / "file"):
            pass
        with atomic_folder(target, overwrite=True) as temporary:
            (temporary / "b").write_text("")
        assert names(target) == ["b"] and names(tmp_path) == ["file", "run"]

    @pytest.mark.parametrize(("failure", "raised"), FAILURES)
    def test_a_failure_keeps_the_old_and_leaves_nothing(self, tmp_path: Path, failure: BaseException, raised: type[BaseException]) -> None:
        target = tmp_path / "run"
        target.mkdir()
        (target / "old").write_text("old")
        with pytest.raises(raised), atomic_folder(target, overwrite=True) as temporary:
            (temporary / "new").write_text("half")
            raise failure
        assert names(target) == ["old"] and names(tmp_path) == ["run"]

    def test_the_old_folder_comes_back_when_the_swap_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target = tmp_path / "run"
        target.mkdir()
        (target / "old").write_text("old")
        replace, count = os.replace, iter(range(10))

        def second_fails(a: object, b: object) -> None:
            if next(count) == 1:
                raise FULL
            replace(a, b)

        monkeypatch.setattr(files.os, "replace", second_fails)
        with pytest.raises(ResourceError, match="disk is full"), atomic_folder(target, overwrite=True) as temporary:
            (temporary / "new").write_text("new")
        assert names(target) == ["old"] and names(tmp_path) == ["run"]

    def test_a_second_writer_wins_whole(self, tmp_path: Path) -> None:
        """Two writers of one place: whoever ends last is what a reader sees, never a mixture."""
        target = tmp_path / "cache"
        with atomic_folder(target, overwrite=True) as one:
            (one / "a").write_text("1")
            with atomic_folder(target, overwrite=True) as two:
                (two / "b").write_text("2")
        assert names(target) == ["a"] and names(tmp_path) == ["cache"]

    def test_a_temporary_folder_that_vanished_is_an_error_not_a_half(self, tmp_path: Path) -> None:
        with pytest.raises(OSError), atomic_folder(tmp_path / "run") as temporary:
            shutil.rmtree(temporary)
        assert names(tmp_path) == []


class TestJson:
    def test_round_trip(self, tmp_path: Path) -> None:
        value = {"name": "ü", "list": [1, 2.5, None, True]}
        write_json(tmp_path / "a.json", value)
        assert read_json(tmp_path / "a.json") == value and "ü" in (tmp_path / "a.json").read_text(encoding="utf-8")
        write_json(tmp_path / "b.json", {"path": Path("x")})
        assert json.loads((tmp_path / "b.json").read_text()) == {"path": "x"}

    def test_not_a_number_is_refused_and_nothing_written(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError):
            write_json(tmp_path / "a.json", {"x": float("nan")})
        assert names(tmp_path) == []

    @pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"{} {}"])
    def test_damage_is_one_sentence(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"a\.json is damaged"):
            read_json(tmp_path / "a.json")

    def test_absence_is_one_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match=r"a\.json is missing"):
            read_json(tmp_path / "a.json")


def test_checksum_and_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})
    assert len(fingerprint(None)) == 16


def test_every_error_of_ours_is_a_vitrail_error() -> None:
    assert all(issubclass(kind, VitrailError) for kind in (ArtifactError, DataError, ResourceError))
