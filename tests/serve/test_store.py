"""One set of checks for every store: what is written is there once, in order, joined, exported, changed, erased."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vitrail.errors import ResourceError, SettingError
from vitrail.serve.store.base import Event, ItemChange, Rate, Served, Store, StoreAway, StoreFull, open_store, shown_url

ODD = 'ü "quote\' ; drop table events; -- %s %(x)s {0} \\ \t 漢字 \U0001f600'


def clear(store: Any) -> None:
    """Empties a server's store between tests."""
    if store.url.startswith("redis"):
        store._client.flushall()
    elif store.url.startswith("postgres"):
        with store._transaction() as cursor:
            cursor.execute("truncate vitrail_events, vitrail_served, vitrail_items, vitrail_state")


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    urls = {"postgresql": "postgres_url", "redis": "redis_url"}
    url = request.getfixturevalue(urls[request.param]) if request.param in urls else str(tmp_path / "store.sqlite")
    opened = open_store(url)
    clear(opened)
    yield opened
    opened.close()


def event(id: str, user: str = "u", item: str = "i", timestamp: int = 1, **more: Any) -> Event:
    return Event(id, user, item, timestamp, **more)


def test_an_event_is_there_once(store: Store) -> None:
    assert store.write([[event("a"), event("b"), event("a")], [event("b", user="other"), event("c")]]) == [2, 1]
    assert store.write([[event("a", item="changed")], []]) == [0, 0]
    kept = store.events(0, 10)
    assert [one.id for _, one in kept] == ["a", "b", "c"]
    assert {one.item for _, one in kept} == {"i"}
    assert [place for place, _ in kept] == sorted({place for place, _ in kept})


def test_history_is_the_newest_oldest_first(store: Store) -> None:
    store.write([[event(str(n), item=f"i{n}", timestamp=10 - n // 2) for n in range(8)], [event("x", user="v")]])
    assert [one.item for one in store.history("u", 100)] == ["i6", "i7", "i4", "i5", "i2", "i3", "i0", "i1"]
    assert [one.item for one in store.history("u", 3)] == ["i3", "i0", "i1"]
    assert store.history("nobody", 3) == []


def test_what_comes_back_is_what_was_written(store: Store) -> None:
    whole = event(ODD, user=ODD, item=ODD, timestamp=4_102_444_799_999_999, kind=ODD, value=-1.5e-300, request=ODD, context='{"a": [1, "ü"]}')
    served = Served(ODD, 1, ODD, ODD, [ODD, "b"], [1.0, 0.1], '{"page": 1}')
    nobody = Served("r2", 2, "v")
    assert store.write([[whole]], [served, nobody, Served("r2", 3, "other")]) == [1]
    assert store.history(ODD, 5) == [whole]
    assert [one for _, one in store.served(0, 10)] == [served, Served("r2", 2, "v", None, [], [])]
    assert store.clicks([ODD, "r2"]) == {(ODD, ODD)}


def test_pages_of_an_export(store: Store) -> None:
    store.write([[event(f"e{n}") for n in range(25)]], [Served(f"r{n}", n, "v") for n in range(25)])
    for read, prefix in ((store.events, "e"), (store.served, "r")):
        names, after = [], 0
        while page := read(after, 10):
            assert len(page) <= 10
            names += [getattr(one, "id", None) or one.request for _, one in page]  # type: ignore[union-attr]
            after = page[-1][0]
        assert names == [f"{prefix}{n}" for n in range(25)]


def test_rates_count_items_that_were_shown_and_came_back(store: Store) -> None:
    store.write([], [Served("r1", 10, "a", "u", ["x", "y"], [1, 1]), Served("r2", 11, "a", "v", ["x"], [1]), Served("r3", 12, "b", None, ["x"], [1])])
    clicks = [("r1", "x"), ("r1", "x"), ("r1", "y"), ("r1", "never shown"), ("r3", "never shown"), ("no such", "x"), (None, "x")]
    store.write([[event(f"c{n}", item=item, request=request) for n, (request, item) in enumerate(clicks)]])
    assert store.rates(0) == {"a": Rate(2, 3, 2, 1), "b": Rate(1, 1, 0, 0)}
    assert store.rates(12) == {"b": Rate(1, 1, 0, 0)}
    assert store.rates(13) == {}
    assert store.clicks([]) == set()


def test_changes_of_items_are_merged_and_numbered(store: Store) -> None:
    assert store.item_changes() == []
    assert store.change_items([]) == 0
    first = store.change_items([ItemChange("a", {"price": 1.5, "tags": []}), ItemChange(ODD, withdrawn=True)])
    second = store.change_items([ItemChange("a", {"price": None}), ItemChange("b", {"deep": {"x": []}}), ItemChange("b", {"y": 1})])
    assert second > first
    changes = {change.item: change for change in store.item_changes()}
    assert changes["a"].attributes == {"price": None, "tags": []}
    assert changes["b"].attributes == {"deep": {"x": []}, "y": 1}
    assert changes[ODD].withdrawn
    assert not changes["a"].withdrawn
    assert [change.item for change in store.item_changes(first)] == ["a", "b"]
    assert store.item_changes(second) == []


def test_state(store: Store) -> None:
    assert store.get_state("models") is None
    store.put_state("models", "{}")
    store.put_state("models", '{"current": "ü"}')
    assert store.get_state("models") == '{"current": "ü"}'
    store.ping()


def test_a_user_is_forgotten_and_nobody_else(store: Store) -> None:
    events = [event(f"a{n}", user="erase", request="r1" if n else None) for n in range(5)] + [event("b", user="keep", request="r2")]
    store.write([events], [Served("r1", 1, "v", "erase", ["i"], [1]), Served("r2", 2, "v", "keep", ["i"], [1]), Served("r3", 3, "v", "erase")])
    gone = store.forget("erase")
    assert (gone.events, gone.requests) == (5, 2)
    assert store.history("erase", 9) == []
    assert [one.id for _, one in store.events(0, 9)] == ["b"]
    assert [one.request for _, one in store.served(0, 9)] == ["r2"]
    assert store.rates(0) == {"v": Rate(1, 1, 1, 1)}
    gone = store.forget("erase")
    assert (gone.events, gone.requests) == (0, 0)
    assert store.write([[event("a1", user="erase")]]) == [1]


def test_several_threads_write(store: Store) -> None:
    fresh: list[int] = []

    def write(name: int) -> None:
        fresh.extend(store.write([[event(f"{n if n % 2 else (name, n)}", user=f"u{name}")]])[0] for n in range(20))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(fresh) == 10 + 3 * 10
    assert len(store.events(0, 100)) == 40


def test_a_second_process_sees_what_is_written(store: Store) -> None:
    store.write([[event("a")]])
    other = open_store(store.url)
    assert [one.id for one in other.history("u", 1)] == ["a"]
    other.write([[event("b", timestamp=2)]])
    other.close()
    assert [one.id for one in store.history("u", 9)] == ["a", "b"]


# each its own


def test_nothing_of_a_forgotten_user_is_left_in_the_files(tmp_path: Path) -> None:
    path, name = tmp_path / "store.sqlite", "erase-me-7f3c"
    store, reader = open_store(path), open_store(path)
    for turn in range(20):
        store.write([[event(f"{turn}-{n}", user=name if n % 3 == 0 else f"user{n}") for n in range(50)]], [Served(f"r{turn}", 1, "v", name, ["x"], [1.0])])
    reader.history(name, 5)
    files = [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]
    assert any(name.encode() in file.read_bytes() for file in files)
    assert store.forget(name).events == 20 * 17
    assert not any(name.encode() in file.read_bytes() for file in tmp_path.iterdir())
    assert len(store.events(0, 10_000)) == 20 * 33
    reader.close()
    store.close()


def test_a_user_is_forgotten_while_others_write(tmp_path: Path) -> None:
    path, name = tmp_path / "store.sqlite", "erase-me-5d2e"
    store, busy = open_store(path), open_store(path)
    store.write([[event(f"mine{n}", user=name) for n in range(50)]])
    stop, written = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            written.append(busy.write([[event(f"other{len(written)}", user="other")]])[0])
            busy.history("other", 5)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert store.forget(name).events == 50
    finally:
        stop.set()
        thread.join()
    assert not any(name.encode() in file.read_bytes() for file in tmp_path.iterdir())
    assert len(store.events(0, 100_000)) == sum(written)
    store.close()
    busy.close()


def test_a_forgotten_user_leaves_the_append_only_file_of_redis(redis_url: str) -> None:
    store: Any = open_store(redis_url)
    folder = Path(store._client.config_get("dir")["dir"])
    store.write([[event("e", user="erase-me-9a1b")]], [Served("r", 1, "v", "erase-me-9a1b")])

    def found() -> bool:
        return any(b"erase-me-9a1b" in file.read_bytes() for file in folder.rglob("*") if file.is_file())

    assert found()
    store.forget("erase-me-9a1b")
    assert not found()
    store.close()


def test_a_full_disk_refuses_writes_and_answers_reads(tmp_path: Path) -> None:
    store: Any = open_store(tmp_path / "store.sqlite")
    store.write([[event("first")]])
    pages = store._connection().execute("pragma page_count").fetchone()[0]
    store._connection().execute(f"pragma max_page_count={pages + 2}")
    with pytest.raises(StoreFull, match="no room"):
        for n in range(100):
            store.write([[event(f"big{n}-{'x' * 900}")]])
    assert store.history("u", 1000)[0].id == "first"
    before = len(store.events(0, 1000))
    store._connection().execute("pragma max_page_count=1000000")
    assert store.write([[event("after")]]) == [1]
    assert len(store.events(0, 1000)) == before + 1
    store.close()


def test_a_store_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database" * 100, encoding="utf-8")
    with pytest.raises(ResourceError, match="is not a store"):
        open_store(tmp_path / "text")
    with pytest.raises(ResourceError, match="no folder"):
        open_store(tmp_path / "none" / "store")
    with pytest.raises(ResourceError, match="cannot be opened"):
        open_store(tmp_path)
    with pytest.raises(SettingError, match='Did you mean "postgresql"'):
        open_store("postgresq://x")
    with pytest.raises(SettingError, match="names no file"):
        open_store("sqlite:///")
    assert open_store(f"sqlite:///{tmp_path / 'one'}").url == f"sqlite:///{tmp_path / 'one'}"


def test_a_server_that_is_not_there_is_one_sentence(postgres_url: str, redis_url: str) -> None:
    for url in ("postgresql://u:secret@127.0.0.1:1/x", "redis://:secret@127.0.0.1:1/0"):
        with pytest.raises(StoreAway, match="does not answer") as caught:
            open_store(url)
        assert "secret" not in str(caught.value)
    with pytest.raises(SettingError, match="cannot be read"):
        open_store("redis://127.0.0.1:port/0")
    assert shown_url("redis://127.0.0.1/0") == "redis://127.0.0.1/0"


def test_a_redis_that_may_lose_what_it_confirmed_is_refused(redis_url: str) -> None:
    store: Any = open_store(redis_url)
    clear(store)
    store._client.config_set("appendfsync", "everysec")
    try:
        with pytest.raises(SettingError, match="appendfsync always"):
            open_store(redis_url)
    finally:
        store._client.config_set("appendfsync", "always")
    store._client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreFull):
            store.write([[event("full")]])
        assert store.history("u", 1) == []
    finally:
        store._client.config_set("maxmemory", "0")
    store.close()


def test_a_writer_that_does_not_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.serve.store.sqlite.SECONDS_TO_WAIT", 0.05)
    first: Any = open_store(tmp_path / "s")
    second = open_store(tmp_path / "s")
    first._connection().execute("begin immediate")
    with pytest.raises(StoreAway, match="another writer"):
        second.write([[event("a")]])
    first._connection().execute("rollback")
    reading = first._connection().execute("begin") and first._connection().execute("select * from events").fetchall()
    assert reading == []
    second.write([[event("a", user="x")]])
    with pytest.raises(StoreAway, match="run forget again"):
        second.forget("x")
    first.close()
    assert second.forget("x").events == 0
    second.close()


def test_the_libraries_of_servers_are_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, url in (("psycopg", "postgresql://x/y"), ("redis", "redis://x/0")):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(ResourceError, match="pip install"):
            open_store(url)
    code = "import vitrail.serve.store.base, sys; assert not {'sqlite3', 'redis', 'psycopg'} & set(sys.modules)"
    subprocess.run([__import__("sys").executable, "-c", code], check=True)
