"""The built files of the studio: a fixed map of addresses, read once; no path of a request is ever looked for on the disk."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from fastapi import FastAPI, Request, Response

HOME = "/studio/"
KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
RULE = "; ".join(
    (
        "default-src 'self'", "img-src 'self' data: blob:", "object-src 'none'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
    )
)  # fmt: skip
"""Nothing from elsewhere, no script or style that stands in a page, no frame around it."""
FOREVER = "public, max-age=31536000, immutable"
"""The name of such a file changes with what is in it."""


@dataclass(frozen=True)
class File:
    """A file as it is sent."""

    body: bytes
    packed: bytes
    """gzip"""
    kind: str
    tag: str
    keep: str


def built() -> dict[str, File]:
    """Address -> file; empty where the page was never built."""
    home = importlib.resources.files("vitrail.serve").joinpath("studio")
    files: dict[str, File] = {}
    _gather(home, HOME, files)
    if HOME + "index.html" in files:
        files[HOME] = files.pop(HOME + "index.html")
    return files


def _gather(folder: Traversable, address: str, files: dict[str, File]) -> None:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            _gather(entry, f"{address}{entry.name}/", files)
            continue
        kind = KINDS.get(entry.name[entry.name.rfind(".") :])
        if kind is not None:
            body = entry.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            keep = FOREVER if "/assets/" in address + entry.name else "no-cache"
            files[address + entry.name] = File(body, gzip.compress(body, 9, mtime=0), kind, tag, keep)


def add_static(app: FastAPI, files: dict[str, File]) -> None:
    """A route for each file, and /studio for the way in."""
    for address, file in files.items():
        app.add_api_route(address, _sender(file), methods=["GET", "HEAD"], include_in_schema=False)

    @app.get("/studio", include_in_schema=False)
    async def studio() -> Response:
        return Response(status_code=307, headers={"location": HOME})


def _sender(file: File):  # type: ignore[no-untyped-def]
    async def send(request: Request) -> Response:
        headers = {
            "etag": file.tag, "cache-control": file.keep, "content-security-policy": RULE, "referrer-policy": "no-referrer", "vary": "accept-encoding",
        }  # fmt: skip
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(file.packed, media_type=file.kind, headers=headers | {"content-encoding": "gzip"})
        return Response(file.body, media_type=file.kind, headers=headers)

    return send
