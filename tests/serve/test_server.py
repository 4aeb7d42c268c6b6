"""The service as a process: it binds, answers, finishes what is under way when told to stop, and refuses a taken port."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vitrail.errors import ArtifactError, ResourceError, SettingError
from vitrail.serve import server

STAND_IN = """
    import sys, time
    sys.path.insert(0, {folder!r})
    from test_app import Fake
    from vitrail.serve import server
    from vitrail.serve.app import create_app

    class Slow(Fake):
        def answer(self, user, *rest):
            if user == "slow":
                time.sleep(1.0)
            return super().answer(user, *rest)

    server._app = lambda settings, token: create_app(Slow(), token=token, max_k=settings.max_k)
    server.serve("run", port=0, token={token!r}, host={host!r})
"""


@contextmanager
def running(host: str = "127.0.0.1", token: str | None = None) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A served stand-in: the process, its address, and the first lines of its stderr."""
    code = textwrap.dedent(STAND_IN.format(folder=str(Path(__file__).parent), token=token, host=host))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = ""
        while "http://" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        port = said.split("http://")[1].split(" ")[0].rsplit(":", 1)[1]
        yield process, f"http://127.0.0.1:{port}", said
    finally:
        process.kill()
        process.wait()


def get(url: str) -> dict[str, object]:
    """At once: what said its address listens."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return dict(json.loads(answer.read()))


def test_a_stop_lets_requests_under_way_finish() -> None:
    with running() as (process, address, said):
        assert "warning" not in said
        assert get(f"{address}/health")["status"] == "ok"
        answers: list[dict[str, object]] = []
        thread = threading.Thread(target=lambda: answers.append(get(f"{address}/recommend?user=slow")))
        thread.start()
        time.sleep(0.4)
        process.send_signal(signal.SIGTERM)
        thread.join(timeout=10)
        assert process.wait(timeout=10) == 0
        assert answers
        assert answers[0]["user"] == "slow"


def test_an_open_host_without_token_is_warned_about() -> None:
    with running(host="0.0.0.0") as (_, _, said):
        assert "warning:" in said
        assert "--token" in said
    with running(host="0.0.0.0", token="t") as (_, address, said):
        assert "warning" not in said
        assert get(f"{address}/health")["status"] == "ok"
        with pytest.raises(urllib.error.HTTPError):
            get(f"{address}/metrics")


def test_a_taken_port_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_app", lambda *_: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ResourceError, match="--port"):
            server.serve("run", port=taken.getsockname()[1])


def test_a_worker_is_told_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[server.ServeSettings, str | None]] = []
    monkeypatch.setattr(server, "_app", lambda settings, token: told.append((settings, token)))
    monkeypatch.setattr("uvicorn.supervisors.Multiprocess.run", lambda self: None)
    handlers = {number: signal.getsignal(number) for number in signal.Signals if number not in (signal.SIGKILL, signal.SIGSTOP)}
    monkeypatch.setenv(server.SETTINGS_VARIABLE, "")
    monkeypatch.setenv(server.TOKEN_VARIABLE, "old")
    try:
        for token in ("secret", None):
            server.serve("run", port=0, workers=2, token=token, max_k=7, plugins=["my.py"])
            server.from_environment()
            (here, given), (there, received) = told[-2:]
            assert here == there
            assert (here.path, here.max_k, here.plugins) == ("run", 7, ["my.py"])
            assert given == received == token
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


@pytest.mark.parametrize(
    "flags", [{"port": 70000}, {"host": "no.such.host.invalid"}, {"token": ""}, {"workers": 0}, {"max_k": 0}, {"max_body": -1}, {"max_history": 0}]
)
def test_settings_out_of_bounds(monkeypatch: pytest.MonkeyPatch, flags: dict[str, object]) -> None:
    monkeypatch.setattr(server, "_app", lambda *_: None)
    with pytest.raises(SettingError):
        server.serve("run", **flags)  # type: ignore[arg-type]


def test_loopback() -> None:
    assert all(server.is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.8.0.1"))
    assert not any(server.is_loopback(host) for host in ("0.0.0.0", "10.0.0.1", "::", "example.org"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vitrail.testing import checkerboard
    from vitrail.train.fit import fit

    folder = tmp_path_factory.mktemp("server")
    fit("popular", checkerboard(folder / "board"), split="leave-last-out", out=folder / "runs" / "first", quiet=True)
    return folder / "runs" / "first"


def test_a_run_is_opened_with_its_store_and_neighbours(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.setenv(server.TOKENS_VARIABLE, "read:r,admin:a")
    settings = server.ServeSettings(path=str(run / "artifact"), store=str(server.beside(run)), budget_ms=5000, log="none")
    with TestClient(server._app(settings, None), headers={"Authorization": "Bearer a"}) as client:
        assert client.get("/models").json()["offered"] == ["first"]
        assert client.get("/recommend?user=u1").json()["variant"] == "first"
    assert (run.parent / "first.store.sqlite").is_file()
    settings = server.ServeSettings(path=str(run), plugins=[str(run / "none.py")])
    with pytest.raises(SettingError, match="no file"):
        server._app(settings, None)


def test_a_run_answers_through_its_index(tmp_path: Path) -> None:
    from vitrail.funnel.recommender import load
    from vitrail.funnel.through_index import index_of
    from vitrail.testing import checkerboard, quick
    from vitrail.train.fit import fit

    run = tmp_path / "run"
    fit("bpr-mf", checkerboard(tmp_path / "board"), split="none", settings=quick("bpr-mf", epochs=2), out=run, quiet=True)
    index_of(load(run), kind="exact").save(run / "index")
    plain, through = server._opened(str(run), None), server._opened(str(run), str(run / "index"))
    assert plain._through is None and through._through is not None
    assert [row["item"] for row in plain.answer("u1", None, 5)["items"]] == [row["item"] for row in through.answer("u1", None, 5)["items"]]
    with pytest.raises(ArtifactError):
        server._opened(str(run), str(tmp_path / "none"))


def test_a_funnel_takes_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.funnel.build.open_answerer", lambda _: object())
    with pytest.raises(SettingError, match="leave --index out"):
        server._opened(str(tmp_path), "index")
