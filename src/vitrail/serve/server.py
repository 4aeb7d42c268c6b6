"""Runs the service: binds, warns, answers until it is told to stop, and stops gracefully."""

from __future__ import annotations

import gc
import ipaddress
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt, Settings
from vitrail.errors import ResourceError, SettingError
from vitrail.serve.logs import Amount, set_up
from vitrail.serve.store.base import open_store, shown_url
from vitrail.serve.tokens import Tokens

if TYPE_CHECKING:
    from fastapi import FastAPI

SETTINGS_VARIABLE = "VITRAIL_SERVE"
TOKEN_VARIABLE = "VITRAIL_TOKEN"
TOKENS_VARIABLE = "VITRAIL_TOKENS"
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SECONDS_TO_FINISH = 10
"""After a stop is asked, requests under way get this long."""

SECONDS_TO_START = 60
"""A worker that does not speak for so long is replaced. Importing and loading can keep it silent for longer than the usual 5 s on a busy machine,
and one that is killed for it would start over for ever."""


class ServeSettings(Settings):
    """What a worker process needs to know; it crosses to it in an environment variable, tokens in VITRAIL_TOKEN and VITRAIL_TOKENS."""

    path: str
    index: str | None = None
    """Folder of an index that the run answers through"""
    store: str = "none"
    """URL or path of the store; none: nothing is kept"""
    tokens: str | None = None
    """A file of tokens with roles"""
    models: str | None = None
    """Folder of further versions; none: that of `path`"""
    runs: str | None = None
    """Folder of runs and comparisons that the studio shows; none: that of `path`"""
    rate: NonNegativeFloat = 0.0
    """Requests a second of one client; 0: any"""
    flush_ms: PositiveFloat = 200.0
    """Milliseconds a served answer may wait for the disk"""
    budget_ms: PositiveFloat | None = None
    """Milliseconds after which the popular items are answered"""
    history_events: list[str] = []
    """Kinds of events that are history; empty: all"""
    log: Amount = "errors"
    open_admin: bool = True
    max_k: PositiveInt = 100
    max_body: PositiveInt = 64 * 1024
    max_history: PositiveInt = 1000
    plugins: list[str] = []
    """Python files that register systems."""


def serve(
    path: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    workers: int = 1,
    *,
    index: str | Path | None = None,
    store: str | None = None,
    tokens: str | Path | None = None,
    models: str | Path | None = None,
    runs: str | Path | None = None,
    rate: float = 0.0,
    flush_ms: float = 200.0,
    budget_ms: float | None = None,
    history_events: Sequence[str] = (),
    log: Amount = "errors",
    max_k: int = 100,
    max_body: int = 64 * 1024,
    max_history: int = 1000,
    plugins: Sequence[str] = (),
) -> None:
    """Serve the run or artifact at `path` until SIGTERM or SIGINT; requests under way are finished first.

    `index`: a folder that `vitrail index build` made of the run, through which it then answers; further versions answer without.
    `store`: where events and served answers are kept, a path or URL; none: a file beside `path`; "none": nowhere. `tokens`: a file of tokens
    with roles, beside the variable VITRAIL_TOKENS. `models`: folder of further versions, `runs`: folder of runs and
    comparisons that the studio shows (none: the one `path` is in). `plugins`: Python files
    that register systems. The rest as in `create_app`. `port` 0 takes a free one. With several `workers` each loads the artifact; they share the
    store and their counts.
    Raises SettingError for a host or port that cannot be taken, ArtifactError or DataError where `path` is no run.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    open_admin = is_loopback(host)
    settings = ServeSettings.of(
        {
            "path": str(path), "index": None if index is None else str(index),
            "store": store or str(beside(path)), "tokens": None if tokens is None else str(tokens),
            "models": None if models is None else str(models), "runs": None if runs is None else str(runs),
            "rate": rate, "flush_ms": flush_ms, "budget_ms": budget_ms,
            "history_events": list(history_events), "log": log, "open_admin": open_admin,
            "max_k": max_k, "max_body": max_body, "max_history": max_history, "plugins": list(plugins),
        },
        where="serve",
    )  # fmt: skip
    known = Tokens.of(token, tokens, os.environ.get(TOKENS_VARIABLE))  # what is wrong with them is told here, once
    if workers < 1:
        raise SettingError(f"workers must be 1 or more, got {workers}.")
    counts = _share_counts(workers)
    app = _app(settings, token)  # also where workers will load their own: what is wrong with the artifact is told here, once
    target: Any = "vitrail.serve.server:from_environment" if workers > 1 else app
    listening = _bind(host, port)
    _warn(host, known)
    if workers > 1:
        os.environ |= {SETTINGS_VARIABLE: json.dumps(settings.model_dump()), TOKEN_VARIABLE: token or ""}
    config = uvicorn.Config(
        target,
        factory=workers > 1,
        workers=workers,
        loop="auto",
        http="auto",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
        timeout_worker_healthcheck=SECONDS_TO_START,
    )
    shown = f"[{host}]" if ":" in host else host
    kept = "nothing is kept" if settings.store == "none" else f"events in {shown_url(settings.store)}"
    where = f"http://{shown}:{listening.getsockname()[1]} (docs at /docs, studio at /studio/)"
    over = _when_listening(listening, f"Serving {path} on {where}, {kept}; stop with Ctrl-C.")
    # uvicorn finishes what is under way, then raises the signal again: to be told to stop is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        if workers > 1:
            Multiprocess(config, [listening]).run()
        else:
            uvicorn.Server(config).run(sockets=[listening])
    finally:
        over.set()
        if counts is not None:
            os.environ.pop(METRICS_VARIABLE, None)
            shutil.rmtree(counts, ignore_errors=True)


def _when_listening(bound: socket.socket, sentence: str) -> threading.Event:
    """Says `sentence` once a connection to the bound socket is taken, or never where the event it returns is set first: with workers the first of
    them may be seconds away."""
    over = threading.Event()
    host, port = bound.getsockname()[:2]
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)

    def wait() -> None:
        while not over.wait(0.05):
            try:
                socket.create_connection((reached, port), timeout=1).close()
            except OSError:
                continue
            print(sentence, file=sys.stderr, flush=True)  # noqa: T201
            return

    threading.Thread(target=wait, daemon=True, name="vitrail-listening").start()
    return over


def _opened(path: str, index: str | None) -> Any:
    """What answers at `path`, through the index of the folder `index` where one is named. Raises SettingError where it can answer through none."""
    from vitrail.funnel.build import open_answerer

    answerer = open_answerer(path)
    if index is None:
        return answerer
    if not hasattr(answerer, "with_index"):
        raise SettingError(f"{path} is a funnel, whose sources name their indexes in its file: leave --index out.")
    from vitrail.index.store import open_index

    return answerer.with_index(open_index(index))


def beside(path: str | Path) -> Path:
    """The store of a run where none is named: a file beside its folder, so that a new fit in the folder leaves it alone."""
    folder = Path(path).absolute()
    return folder.with_name(folder.name + ".store.sqlite")


def _share_counts(workers: int) -> str | None:
    """A folder where worker processes add up their counts; it must be known before the library of counts is imported."""
    if workers == 1:
        return None
    folder = tempfile.mkdtemp(prefix="vitrail-counts-")
    os.environ[METRICS_VARIABLE] = folder
    return folder


def from_environment() -> FastAPI:
    """The application of one worker process, as `serve` described it in the environment."""
    settings = ServeSettings.of(json.loads(os.environ[SETTINGS_VARIABLE]), where="serve")
    return _app(settings, os.environ.get(TOKEN_VARIABLE) or None)


def _app(settings: ServeSettings, token: str | None) -> FastAPI:
    import torch

    from vitrail.funnel.build import open_answerer
    from vitrail.serve.app import create_app
    from vitrail.systems.registry import load_file

    set_up(settings.log)
    for file in settings.plugins:
        load_file(file)
    torch.set_num_threads(1)  # one question is too small to share among threads
    folder = Path(settings.path).resolve()
    folder = folder.parent if folder.name == "artifact" else folder
    answerer = _opened(settings.path, settings.index)
    app = create_app(
        answerer, name=folder.name, store=None if settings.store == "none" else open_store(settings.store),
        models=Path(settings.models) if settings.models else folder.parent, load=open_answerer,
        runs=Path(settings.runs) if settings.runs else folder.parent,
        tokens=Tokens.of(token, settings.tokens, os.environ.get(TOKENS_VARIABLE)), open_admin=settings.open_admin, rate=settings.rate,
        flush=settings.flush_ms / 1000, budget_ms=settings.budget_ms, history_kinds=frozenset(settings.history_events),
        max_k=settings.max_k, max_body=settings.max_body, max_history=settings.max_history,
    )  # fmt: skip
    gc.collect()
    gc.freeze()  # what was loaded stays: the collector need not walk it between requests
    return app


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise SettingError(f"The port must be 0 to 65535, got {port}.")
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except socket.gaierror:
        listening.close()
        raise SettingError(f'There is no host "{host}" to bind to: use 127.0.0.1, or an address of this machine.') from None
    except PermissionError:
        listening.close()
        raise ResourceError(f"Port {port} may not be taken by this user: choose one above 1023 with --port.") from None
    except OSError as error:
        listening.close()
        raise ResourceError(f"{host}:{port} cannot be taken ({error.strerror or error}): choose another with --port.") from None
    listening.set_inheritable(True)
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _warn(host: str, tokens: Tokens) -> None:
    if not tokens and not is_loopback(host):
        print(f"warning: {host} can be reached from other machines and no token is set: pass --token or VITRAIL_TOKEN.", file=sys.stderr, flush=True)  # noqa: T201
