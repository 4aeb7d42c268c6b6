"""One interrupt ends a verb: within about a second, with one sentence, and with nothing half-written.

Python turns SIGINT into a KeyboardInterrupt between two bytecodes of the main thread, and that alone is not enough. Raised in the callback of a
weak reference (every import runs some) or in a destructor it is printed and dropped; compiled code turns it into a panic of its own; a long call
into compiled code holds it back. So a thread hears the signal too: where the main thread is not out after `GRACE`, or must not be interrupted at
all, the thread removes what was under way and ends the process. Nothing heavy is imported here: before `run` an interrupt is Python's traceback.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

INTERRUPTED = 130
"""The exit code: 128 and the number of SIGINT, as shells have it."""
SENTENCE = "Interrupted: nothing half-written was left; where the verb has --resume, the same command with it goes on from here."
GRACE = 1.0
"""Seconds the main thread has to unwind."""
TRIES = 50
"""Times a folder is removed that its writer still fills."""
UNDER_WAY: set[Path] = set()
"""Temporary files and folders that become something only when they are renamed."""
EXCHANGE = threading.RLock()
"""Held while an old folder is exchanged for a new one: between the two renames there is neither."""


class _State:
    """What is known of the interrupt."""

    def __init__(self) -> None:
        self.heard = self.told = self.over = False
        self.exchanging = 0
        self.at_once = threading.Event()
        self.telling = threading.Lock()


_state = _State()


def heard() -> bool:
    """Whether the verb was interrupted."""
    return _state.heard


class exchange:
    """A stretch that an interrupt waits for."""

    def __enter__(self) -> None:
        _state.exchanging += 1
        EXCHANGE.acquire()

    def __exit__(self, *_: object) -> None:
        EXCHANGE.release()
        _state.exchanging -= 1


def run(verb: Callable[[], Any]) -> None:
    """Call `verb`; SIGINT ends it and the process. A process that was started to ignore SIGINT, and a thread, only call it."""
    try:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            _listen()
        verb()
        _state.over = True
    except BaseException:
        _state.over = True
        if not _state.heard:
            raise
        sweep()
        tell()
        raise SystemExit(INTERRUPTED) from None


def _listen() -> None:
    hook = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if _state.heard and isinstance(lost.exc_value, KeyboardInterrupt) else hook(lost)
    if os.name == "posix":  # elsewhere only sockets can be heard: there the exception has to do
        heard, told = os.pipe()  # never closed: the thread listens as long as the process lives
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(heard,), daemon=True, name="vitrail-interrupt").start()
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The handler of SIGINT: the first raises KeyboardInterrupt, unless the main thread is where that would be lost or do harm."""
    if _state.heard or _state.over:
        return
    _state.heard = True
    if os.name == "posix" and (_state.exchanging or _importing(frame)):
        _state.at_once.set()
        return
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: half-imported modules answer an interrupt with panics and tracebacks of their own."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _watch(pipe: int) -> None:
    """The thread: a byte comes for every signal; a SIGINT that is ours to handle (a service has a handler of its own) ends the process."""
    while (number := os.read(pipe, 1)) != b"":
        if number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is _interrupt:
            _state.at_once.wait(GRACE)
            end()


def end() -> None:
    """Remove what is under way, say so, and leave."""
    with EXCHANGE:
        try:
            sweep()
            tell()
        finally:
            os._exit(INTERRUPTED)


def sweep() -> None:
    """Remove what is under way."""
    for path in list(UNDER_WAY):
        for _ in range(TRIES):
            remove(path)
            if not os.path.lexists(path):
                break
        UNDER_WAY.discard(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, as far as that can be done."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def tell() -> None:
    """Say once that the verb was interrupted, past every buffer, for the main thread may hold their locks."""
    with _state.telling:
        if _state.told:
            return
        _state.told = _state.heard
    back = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides the cursor
    with suppress(OSError):  # nobody reads
        os.write(2, f"{back}{SENTENCE}\n".encode())
