"""What the service promises when things break: killed under load, its disk full, its model damaged, fed with rubbish. The long forms are `make test-long`."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitrail.serve.app import create_app
from vitrail.serve.store.base import Event, open_store

REAL = """
    from vitrail.serve import server

    server.serve({run!r}, port=0, store={store!r}, workers={workers})
"""
STAND_IN = """
    import sys
    sys.path.insert(0, {folder!r})
    from test_app import Fake
    from vitrail.serve import server
    from vitrail.serve.app import create_app
    from vitrail.serve.store.base import open_store

    server._app = lambda settings, token: create_app(Fake(), store=open_store(settings.store))
    server.serve("run", port=0, store={store!r})
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real run: what several worker processes load."""
    from vitrail.testing import checkerboard
    from vitrail.train.fit import fit

    folder = tmp_path_factory.mktemp("faults")
    fit("popular", checkerboard(folder / "board"), split="leave-last-out", out=folder / "run", quiet=True)
    return str(folder / "run")


@contextmanager
def running(store: str, run: str | None = None, workers: int = 1) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A served run, or a stand-in that starts quicker, over a real store; and its port."""
    text = STAND_IN if run is None else REAL
    code = textwrap.dedent(text.format(folder=str(Path(__file__).parent), store=store, workers=workers, run=run))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = ""
        while "http://" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        port = int(said.split("http://127.0.0.1:")[1].split(" ")[0])
        wait_until_ready(port)
        yield process, port
    finally:
        for child in children(process.pid) if workers > 1 else ():
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait()


def wait_until_ready(port: int) -> None:
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    raise AssertionError("the service does not get ready")


class Load:
    """Clients that send batches of events and ask between them, and remember what was acknowledged."""

    def __init__(self, port: int, turn: int, clients: int = 4) -> None:
        self.port, self.turn = port, turn
        self.acknowledged: dict[str, list[str]] = {}
        self.sent: dict[str, list[str]] = {}
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, client: int) -> None:
        draw = random.Random(client)
        for number in range(100_000):
            if self._stop.is_set():
                return
            name = f"{self.turn}-{client}-{number}"
            ids = [f"{name}-{n}" for n in range(draw.randint(1, 20))]
            body = json.dumps({"events": [{"event_id": one, "user": f"u{client}", "item": "b", "request_id": f"q{name}"} for one in ids]})
            self.sent[name] = ids
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                # a client that hears nothing sends again: half of the batches come twice
                for _ in range(draw.randint(1, 2)):
                    connection.request("POST", "/events", body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status == 200:
                        self.acknowledged[name] = ids
                    else:
                        self.errors.append(str(answer.status))
                connection.request("GET", f"/recommend?user=u{client}&k=2")
                connection.getresponse().read()
                connection.close()
            except (OSError, http.client.HTTPException):
                if self._stop.wait(0.02):
                    return

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def kill_again_and_again(url: str, kills: int, run: str | None = None, workers: int = 1) -> None:
    """Every acknowledged event is there exactly once, however often the service was killed; of the others whole batches or nothing."""
    acknowledged: dict[str, list[str]] = {}
    sent: dict[str, list[str]] = {}
    for turn in range(kills):
        with running(url, run, workers) as (process, port):
            load = Load(port, turn)
            until = time.monotonic() + 20
            while len(load.acknowledged) < 10 and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(random.Random(turn).random() * 0.3)
            for child in children(process.pid) if workers > 1 else ():
                os.kill(child, signal.SIGKILL)
            process.kill()
            process.wait()
            load.end()
            assert not load.errors
            acknowledged |= load.acknowledged
            sent |= load.sent
    store = open_store(url)
    kept: list[str] = []
    after = 0
    while page := store.events(after, 10_000):
        after = page[-1][0]
        kept += [event.id for _, event in page]
    there = set(kept)
    assert len(kept) == len(there)
    assert len(acknowledged) >= 10 * kills
    assert not [one for ids in acknowledged.values() for one in ids if one not in there]
    for ids in sent.values():
        assert len(there & set(ids)) in (0, len(ids))
    # it goes on where it was
    assert store.write([[Event("after", "u", "i", 1)]]) == [1]
    store.close()


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def test_killed_under_load_no_acknowledged_event_is_lost(tmp_path: Path) -> None:
    kill_again_and_again(str(tmp_path / "store.sqlite"), 2)


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_under_load_twenty_times(tmp_path: Path, run: str, workers: int) -> None:
    kill_again_and_again(str(tmp_path / "store.sqlite"), 20, run if workers > 1 else None, workers)


@pytest.mark.long
@pytest.mark.parametrize("server", ["postgres_url", "redis_url"])
def test_killed_under_load_with_a_server_as_store(server: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(server)
    store: Any = open_store(url)
    if server == "redis_url":
        store._client.flushall()
    else:
        with store._transaction() as cursor:
            cursor.execute("truncate vitrail_events, vitrail_served")
    kill_again_and_again(url, 5)


def test_workers_share_a_store_and_their_counts(tmp_path: Path, run: str) -> None:
    with running(str(tmp_path / "store.sqlite"), run, workers=2) as (process, port):

        def get(path: str, body: str | None = None) -> bytes:
            # a connection each, so that both processes are asked
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            found = answer.read()
            assert answer.status == 200, found
            connection.close()
            return found

        for n in range(12):
            get("/events", json.dumps({"event_id": f"e{n % 6}", "user": "u", "item": "i 1"}))
        text = get("/metrics").decode()
        assert 'vitrail_events_total{outcome="new"} 6.0' in text
        assert 'vitrail_events_total{outcome="known"} 6.0' in text
        assert 'vitrail_requests_total{method="POST",route="/events",status="200"} 12.0' in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


# a full disk


def test_a_full_disk_refuses_events_while_reads_go_on(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from test_app import Fake

    store: Any = open_store(tmp_path / "store.sqlite")
    with TestClient(create_app(Fake(), store=store)) as client:
        event = {"user": "u0", "item": "b", "context": {"padding": "x" * 1000}}
        assert client.post("/events", json=event).status_code == 200
        # the writer's own connection is the one that must not grow
        for connection in store._opened:
            pages = connection.execute("pragma page_count").fetchone()[0]
            connection.execute(f"pragma max_page_count={pages + 4}")
        answers = [client.post("/events", json=event) for _ in range(60)]
        assert {answer.status_code for answer in answers} == {200, 507}
        assert "no room" in answers[-1].json()["error"]
        assert client.get("/recommend?user=u0").status_code == 200
        assert client.get("/ready").status_code == 503
        for connection in store._opened:
            connection.execute("pragma max_page_count=1000000")
        assert client.post("/events", json=event).status_code == 200
        kept = sum(answer.status_code == 200 for answer in answers) + 2
        assert len(store.events(0, 1000)) == kept
    store.close()


@pytest.mark.long
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        with running(str(place / "store.sqlite")) as (_, port):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

            def ask(method: str, path: str, body: Any = None) -> int:
                connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                return answer.status

            codes, kept = [], []
            for n in range(3000):
                codes.append(ask("POST", "/events", {"event_id": f"e{n}", "user": "u", "item": "b", "context": {"padding": "x" * 2000}}))
                kept += [f"e{n}"] if codes[-1] == 200 else []
                if codes[-5:] == [507] * 5:
                    break
            assert set(codes) == {200, 507}
            assert ask("GET", "/recommend?user=u") == 200
        store = open_store(place / "store.sqlite")
        assert {event.id for _, event in store.events(0, 10_000)} == set(kept)
        store.close()
    finally:
        subprocess.run(["umount", str(place)], check=False)


# rubbish


TEXT = st.text(max_size=20)
VALUE = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.lists(TEXT, max_size=3), st.dictionaries(TEXT, TEXT, max_size=3))
EVENT = st.dictionaries(
    st.sampled_from(["user", "item", "event_id", "event", "timestamp", "value", "request_id", "context", "other"]),
    st.one_of(VALUE, st.sampled_from(["u0", "b", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])),
    max_size=8,
)
GOOD = st.fixed_dictionaries({"user": TEXT, "item": TEXT, "event_id": TEXT})
BODY = st.one_of(EVENT, GOOD, st.fixed_dictionaries({"events": st.lists(st.one_of(GOOD, EVENT), max_size=5)}), VALUE)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    sys.path.insert(0, str(Path(__file__).parent))
    from test_app import Fake

    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "models").mkdir()
    app = create_app(Fake(), store=open_store(folder / "store.sqlite"), models=folder / "models", load=lambda _: Fake(), max_k=20)  # type: ignore[arg-type]
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def check_events(client: TestClient, body: Any) -> None:
    answer = client.post("/events", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 422:
        assert "\n" not in answer.json()["error"]
        assert answer.json()["error"].endswith((".", "?"))
    else:
        assert answer.json()["new"] + answer.json()["known"] == len(answer.json()["event_ids"])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=BODY)
def test_fuzzed_events_are_kept_or_refused_in_a_sentence(client: TestClient, body: Any) -> None:
    check_events(client, body)


@pytest.mark.long
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=BODY)
def test_many_fuzzed_events(client: TestClient, body: Any) -> None:
    check_events(client, body)


def fuzz(client: TestClient, examples: int) -> tuple[int, set[int]]:
    """Generated requests to every operation of our own OpenAPI: how many, and the statuses. No answer is a 5xx that was not promised."""
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    count, statuses = 0, set()
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:

        @settings(max_examples=max(examples // len(operations), 1), deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            nonlocal count
            answer = case.call(session=client, base_url="http://testserver") if hasattr(case, "call") else case.call_asgi()
            count += 1
            statuses.add(answer.status_code)
            # /search without content says 501, and nothing else may fail
            assert answer.status_code < 500 or (answer.status_code == 501 and case.path == "/search"), (case.method, case.path, answer.text[:300])

        ask()
    return count, statuses


def test_generated_requests_never_fail_it(client: TestClient) -> None:
    count, statuses = fuzz(client, 130)
    assert count >= 70
    assert {200, 422} <= statuses


@pytest.mark.long
def test_many_generated_requests_never_fail_it(client: TestClient) -> None:
    count, _ = fuzz(client, 9000)
    assert count >= 5000
