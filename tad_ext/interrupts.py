"""Ctrl-C and SIGTERM: whenever they come, a command stops in good order.

Python raises KeyboardInterrupt wherever it happens to be, and what surrounds it may make something else of it: a
library whose import was cut short fails later with an ImportError, and what is raised inside a callback is printed and
forgotten. So it is remembered here that a signal came: whatever ends the command after that, ends it because of it.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_received = 0  # the last signal, 0: none
_shields = 0  # blocks entered in which signals wait
_waiting = False


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block SIGINT raises KeyboardInterrupt and SIGTERM SystemExit, and `received` tells of them.

    A signal that the process ignores (nohup) stays ignored. Outside the main thread, which alone may set handlers,
    nothing changes.
    """
    global _received, _waiting
    _received, _waiting = 0, False
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
    hook = sys.unraisablehook
    try:
        sys.unraisablehook = _not_forgotten
        for number, handler in handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, _stop)
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


def received() -> int:
    """The signal that came within `stoppable`; 0 if none did."""
    return _received


def forget() -> None:
    """The signal was meant for one answer (a chat), not for the command, which goes on."""
    global _received
    _received = 0


def check() -> None:
    """Raises for a signal that came, and that a library may have swallowed."""
    if _received:
        raise KeyboardInterrupt if _received == signal.SIGINT else SystemExit(128 + _received)


@contextmanager
def shielded() -> Iterator[None]:
    """Signals wait until the block is left: for cleaning up, which a second Ctrl-C must not cut short."""
    global _shields, _waiting
    _shields += 1
    try:
        yield
    finally:
        _shields -= 1
        if _waiting and not _shields:
            _waiting = False
            check()


def _stop(number: int, frame: FrameType | None) -> None:
    global _received, _waiting
    _received, _waiting = number, bool(_shields)
    if not _shields:
        check()


def _not_forgotten(unraisable: "sys.UnraisableHookArgs") -> None:
    """What is raised in a callback goes nowhere: a signal that ended there comes again when the callback is over."""
    if not _received or not issubclass(unraisable.exc_type, (KeyboardInterrupt, SystemExit)):
        sys.__unraisablehook__(unraisable)
        return
    global _shields
    over = threading.Event()

    def again() -> None:
        over.wait()  # on a busy machine a thread's start takes long, and here the signal would be lost a second time
        time.sleep(0.01)
        os.kill(os.getpid(), _received)

    _shields += 1  # likewise another signal, which comes again with the first
    threading.Thread(target=again, daemon=True).start()
    over.set()
    _shields -= 1
