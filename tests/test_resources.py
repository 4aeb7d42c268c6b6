"""What is left of memory and disk, under control groups of both versions too."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitrail.errors import ResourceError
from vitrail.resources import GIB, UNKNOWN, afford_disk, afford_memory, free_memory, give_back


def machine(tmp_path: Path, group: str, files: dict[str, str], free_kb: int = 8 * 2**20) -> tuple[Path, Path]:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {free_kb} kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(group)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    return tmp_path / "proc", tmp_path / "groups"


@pytest.mark.parametrize(
    ("group", "files", "left"),
    [
        ("0::/\n", {}, 8.0),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/b/memory.current": "7"}, 8.0),
        ("0::/a/b\n", {"a/b/memory.max": str(4 * GIB), "a/b/memory.current": str(GIB)}, 3.0),
        ("0::/a/b\n", {"a/memory.max": str(2 * GIB), "a/memory.current": str(GIB), "a/memory.stat": f"anon 3\ninactive_file {GIB // 2}\n"}, 1.5),
        ("0::/\n", {"memory.max": str(GIB), "memory.current": str(2 * GIB)}, 0.0),
        ("4:cpu:/c\n3:memory:/m\n0::/\n", {"memory/m/memory.limit_in_bytes": str(2 * GIB), "memory/m/memory.usage_in_bytes": "0"}, 2.0),
        ("nonsense\n", {"memory.max": "1", "memory.current": "1"}, 8.0),
    ],
)
def test_the_least_of_machine_and_groups_counts(tmp_path: Path, group: str, files: dict[str, str], left: float) -> None:
    assert free_memory(*machine(tmp_path, group, files)) == left * GIB


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert free_memory(tmp_path, tmp_path) == UNKNOWN
    assert 0 < free_memory() <= UNKNOWN


def test_memory_is_refused_in_one_sentence_and_printed_from_a_gibibyte_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ResourceError, match=r"^This fit needs about 3.0 GiB of memory, and 2.0 GiB are free: use less\.$"):
        afford_memory(3 * GIB, 2 * GIB, "This fit", "use less")
    afford_memory(GIB - 1, 2 * GIB, "This fit", "use less", quiet=False)
    afford_memory(GIB, 2 * GIB, "This fit", "use less")
    assert capsys.readouterr().err == ""
    afford_memory(GIB, 2 * GIB, "This fit", "use less", quiet=False)
    assert capsys.readouterr().err == "this fit needs about 1.0 GiB of memory, 2.0 GiB are free\n"


def test_disk_is_that_of_the_nearest_folder_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    afford_disk(1, tmp_path / "not" / "there", "It")
    with pytest.raises(ResourceError, match=r"It needs about .* of disk at .*nothing was written"):
        afford_disk(2**80, tmp_path / "not" / "there", "It")

    def refuse(path: Path) -> None:
        raise OSError

    monkeypatch.setattr("shutil.disk_usage", refuse)
    afford_disk(2**80, tmp_path, "It")


def test_memory_is_given_back_where_the_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def library(name: object) -> object:
        asked.append(name)
        return object()  # it has no malloc_trim

    give_back()
    monkeypatch.setattr("ctypes.CDLL", library)
    give_back()
    assert asked == [None]
