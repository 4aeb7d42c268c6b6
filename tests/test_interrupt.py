"""An interrupt ends a verb wherever it meets it: children that swallow it, that are deep in compiled code, that import, that exchange folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vitrail import interrupt

SAID = f"{interrupt.SENTENCE}\n"
VERBS = {
    "a loop": "while True: pass",
    "one that swallows it": """
        while True:
            try:
                while True: pass
            except BaseException:
                pass
        """,
    "a destructor": """
        class Falls:
            def __del__(self):
                while not interrupt.heard(): pass
                for _ in range(1000): pass
        Falls()
        while True: pass
        """,
    "compiled code": "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2_000_000_000)",
    "an import": "import slow",
    "an exchange of folders": """
        with interrupt.exchange():
            print('inside', flush=True)
            while not interrupt.heard(): pass
            (HOME / 'new').mkdir()
        while True: pass
        """,
    "a panic": """
        try:
            while True: pass
        except BaseException:
            raise RuntimeError('a panic') from None
        """,
    "threads that go on": """
        threading.Thread(target=threading.Event().wait).start()
        while True: pass
        """,
}
START = """
import hashlib, signal, sys, threading
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from vitrail import interrupt
interrupt.GRACE = 0.3
HOME = Path(sys.argv[1])
sys.path.insert(0, str(HOME / 'modules'))
def verb():
    interrupt.UNDER_WAY.add(HOME / 'half')
    (HOME / 'half').mkdir()
    print('ready', flush=True)
"""


def child(home: Path, body: str) -> subprocess.Popen[str]:
    (home / "modules").mkdir()
    (home / "modules" / "slow.py").write_text("while True: pass\n")
    from textwrap import dedent, indent

    code = START + indent(dedent(body), "    ") + "\ninterrupt.run(verb)\n"
    return subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("where", VERBS)
def test_one_interrupt_is_enough(tmp_path: Path, where: str) -> None:
    running = child(tmp_path, VERBS[where])
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    if where == "an exchange of folders":
        assert running.stdout.readline() == "inside\n", "before it began an interrupt is as anywhere"
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=300)
    assert (running.returncode, said) == (interrupt.INTERRUPTED, SAID)
    assert not (tmp_path / "half").exists()
    assert (tmp_path / "new").exists() == (where == "an exchange of folders"), "an exchange is never left in the middle"


def test_a_handler_of_the_verb_is_left_alone(tmp_path: Path) -> None:
    """A service finishes what is under way."""
    told = "signal.signal(signal.SIGINT, lambda *_: (threading.Event().wait(1), print('finished'), sys.exit(7)))\nwhile True: pass"
    running = child(tmp_path, told.replace("\nwhile", "\nprint('set', flush=True)\nwhile"))
    assert running.stdout is not None and [running.stdout.readline() for _ in range(2)] == ["ready\n", "set\n"]
    running.send_signal(signal.SIGINT)
    out, said = running.communicate(timeout=300)
    assert (running.returncode, out, said) == (7, "finished\n", "")


# in this process

watch = interrupt._watch


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Nothing was heard yet; what `run` sets is put back."""
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(interrupt, "_state", interrupt._State())
    monkeypatch.setattr(interrupt, "UNDER_WAY", set())
    monkeypatch.setattr(interrupt, "_watch", lambda pipe: None)  # it would end this process
    yield interrupt._state
    signal.signal(signal.SIGINT, handler)
    signal.set_wakeup_fd(-1)
    sys.unraisablehook = hook


def test_the_main_thread_unwinds_and_the_sentence_comes_once(state: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    half = tmp_path / "half"
    interrupt.UNDER_WAY.update({half, tmp_path / "never made"})
    half.mkdir()
    (half / "file").touch()
    with pytest.raises(SystemExit) as left:
        interrupt.run(lambda: interrupt.run(lambda: signal.raise_signal(signal.SIGINT)))  # `python -m vitrail` calls `main` of the command line
    assert left.value.code == interrupt.INTERRUPTED and interrupt.heard()
    assert capfd.readouterr().err == SAID
    assert not half.exists() and not interrupt.UNDER_WAY
    signal.raise_signal(signal.SIGINT)  # one more in the verb's last moments does nothing


def test_what_is_no_interrupt_passes(state: Any) -> None:
    with pytest.raises(SystemExit) as left:
        interrupt.run(lambda: sys.exit(3))
    assert left.value.code == 3 and not interrupt.heard()
    signal.raise_signal(signal.SIGINT)
    assert not interrupt.heard(), "the verb is over"


def test_where_signals_are_not_ours_the_verb_is_called(state: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a job in the background of a shell
    interrupt.run(lambda: signal.raise_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt.run, args=(lambda: None,))
    thread.start()
    thread.join()
    assert not interrupt.heard() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_import_and_an_exchange_are_not_interrupted(state: Any) -> None:
    code = compile("def f(): return _interrupt(2, sys._getframe())", "<frozen importlib._bootstrap>", "exec")
    module: dict[str, Any] = {"_interrupt": interrupt._interrupt, "sys": sys}
    exec(code, module)
    module["f"]()
    assert state.heard and state.at_once.is_set()
    interrupt._state = fresh = interrupt._State()
    with interrupt.exchange():
        interrupt._interrupt(2, sys._getframe())
    assert fresh.at_once.is_set() and fresh.exchanging == 0


def test_the_thread_ends_the_process(state: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(interrupt, "GRACE", 0.0)
    heard, told = os.pipe()
    os.write(told, bytes([signal.SIGTERM, signal.SIGINT]))  # nobody's, and not ours yet
    signal.signal(signal.SIGINT, interrupt._interrupt)
    os.write(told, bytes([signal.SIGINT]))
    os.close(told)
    watch(heard)
    os.close(heard)
    assert set(codes) == {interrupt.INTERRUPTED} and SAID in capfd.readouterr().err


def test_a_lost_interrupt_is_not_printed(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    interrupt._listen()
    state.heard = True
    for error in (KeyboardInterrupt(), ValueError()):
        lost = type("Lost", (), {"exc_value": error})
        sys.unraisablehook(lost)  # type: ignore[arg-type]
    assert [type(one.exc_value) for one in shown] == [ValueError]
