"""Runs the service: binds, warns, answers until it is told to stop, and stops gracefully."""

from __future__ import annotations

import gc
import ipaddress
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.config import PositiveInt, Settings
from vitrail.errors import ResourceError, SettingError

if TYPE_CHECKING:
    from fastapi import FastAPI

SETTINGS_VARIABLE = "VITRAIL_SERVE"
TOKEN_VARIABLE = "VITRAIL_TOKEN"
SECONDS_TO_FINISH = 10
"""After a stop is asked, requests under way get this long."""


class ServeSettings(Settings):
    """What a worker process needs to know; it crosses to it in an environment variable, the token in VITRAIL_TOKEN."""

    path: str
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
    max_k: int = 100,
    max_body: int = 64 * 1024,
    max_history: int = 1000,
    plugins: Sequence[str] = (),
) -> None:
    """Serve the run or artifact at `path` until SIGTERM or SIGINT; requests under way are finished first.

    `plugins`: Python files that register systems. `port` 0 takes a free one. With several `workers` each loads the artifact and counts its own requests.
    Raises SettingError for a host or port that cannot be taken, ArtifactError or DataError where `path` is no run.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    values = {"path": str(path), "max_k": max_k, "max_body": max_body, "max_history": max_history, "plugins": list(plugins)}
    settings = ServeSettings.of(values, where="serve")
    if token == "":
        raise SettingError("The token is empty: give one of some length, or none.")
    if workers < 1:
        raise SettingError(f"workers must be 1 or more, got {workers}.")
    app = _app(settings, token)  # also where workers will load their own: what is wrong with the artifact is told here, once
    target: Any = "vitrail.serve.server:from_environment" if workers > 1 else app
    listening = _bind(host, port)
    _warn(host, token)
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
    )
    shown = f"[{host}]" if ":" in host else host
    print(f"Serving {path} on http://{shown}:{listening.getsockname()[1]} (docs at /docs); stop with Ctrl-C.", file=sys.stderr, flush=True)  # noqa: T201
    # uvicorn finishes what is under way, then raises the signal again: to be told to stop is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    if workers > 1:
        Multiprocess(config, [listening]).run()
    else:
        uvicorn.Server(config).run(sockets=[listening])


def from_environment() -> FastAPI:
    """The application of one worker process, as `serve` described it in the environment."""
    settings = ServeSettings.of(json.loads(os.environ[SETTINGS_VARIABLE]), where="serve")
    return _app(settings, os.environ.get(TOKEN_VARIABLE) or None)


def _app(settings: ServeSettings, token: str | None) -> FastAPI:
    import torch

    from vitrail.funnel.recommender import load
    from vitrail.serve.app import create_app
    from vitrail.systems.registry import load_file

    for file in settings.plugins:
        load_file(file)
    torch.set_num_threads(1)  # one question is too small to share among threads
    app = create_app(load(settings.path), token=token, max_k=settings.max_k, max_body=settings.max_body, max_history=settings.max_history)
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


def _warn(host: str, token: str | None) -> None:
    if token is None and not is_loopback(host):
        print(f"warning: {host} can be reached from other machines and no token is set: pass --token or VITRAIL_TOKEN.", file=sys.stderr, flush=True)  # noqa: T201
