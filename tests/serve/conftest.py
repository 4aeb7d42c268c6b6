"""Real servers for the stores, started on loopback from the programs of the machine; where there are none, the tests say so and are skipped."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="session")
def place() -> Iterator[Callable[[str], Path]]:
    """Makes folders that another user of the machine can reach, and takes them away."""
    made: list[str] = []

    def make(name: str) -> Path:
        made.append(tempfile.mkdtemp(prefix=f"vitrail-{name}-"))
        return Path(made[-1])

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(place: Callable[[str], Path]) -> Iterator[str]:
    """A PostgreSQL cluster of our own; as root it runs as another user, since it refuses to run as root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra postgres)")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    folder, port = place("postgres"), free_port()
    names = {user.pw_name for user in pwd.getpwall()}
    user = next((name for name in ("postgres", "nobody") if name in names), None) if os.getuid() == 0 else None
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    quiet = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([initdb, "-D", str(folder / "data"), "-U", "vitrail", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8"], check=True, **quiet)  # type: ignore[call-overload]
    program = str(Path(initdb).with_name("postgres"))
    server = subprocess.Popen([program, "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)], **quiet)  # type: ignore[call-overload]
    url = f"postgresql://vitrail@127.0.0.1:{port}/postgres"
    try:
        wait_for(lambda: __import__("psycopg").connect(url, connect_timeout=1).close())
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.fixture(scope="session")
def redis_url(place: Callable[[str], Path]) -> Iterator[str]:
    """A Redis server of our own that syncs at every write."""
    pytest.importorskip("redis", reason="redis-py is not installed (extra redis)")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed (apt install redis-server)")
    port, folder = free_port(), place("redis")
    flags = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder)]
    server = subprocess.Popen([program, "--port", str(port), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        wait_for(lambda: __import__("redis").Redis.from_url(url).ping())
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


def wait_for(act: Callable[[], object], seconds: float = 30.0) -> None:
    """Tries until it works."""
    until = time.monotonic() + seconds
    while True:
        try:
            act()
            return
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
