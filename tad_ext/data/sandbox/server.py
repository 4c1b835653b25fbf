"""The server: forks a protected child for each program.

It is a small process with one thread that never runs a program itself, so every child starts from the same state. It
ends when the process that started it does, however that ends.
"""

import contextlib
import fcntl
import gc
import importlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from tad_ext.data.sandbox import frames
from tad_ext.data.sandbox.protection import Protection
from tad_ext.data.sandbox.stages import CONTROL, REPORT, run_stages
from tad_ext.data.sandbox.watch import Child, Watch

# What programs import most is imported once.
_COMMON = (
    "array bisect cmath collections copy datetime decimal enum fractions functools hashlib heapq itertools json math "
    "operator queue random re statistics string typing"
)
_FIRST_FREE = 10  # from here on a child's descriptors wait for their places


def serve(parent: int) -> None:
    """Answers requests from the standard input on the standard output until `parent`, a process id, closes it or ends.

    A request is two messages, the limits and what to run; the reply is one (see `tad_ext.data.sandbox.pool`).
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whatever the thread that started it keeps from itself
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    lifelines = [requests]
    with contextlib.suppress(AttributeError, OSError):  # a fork of the parent may hold the other end of the pipe open
        lifelines.append(os.pidfd_open(parent))
    for name in _COMMON.split():
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tad_ext"]:
        del sys.modules[name]  # no program needs it
    sys.argv = [""]
    protection = Protection()
    gc.freeze()
    try:
        while os.getppid() == parent and _is_asked(requests, lifelines):
            limits = frames.receive(requests)
            protection.renew(limits)
            child = _start(protection, limits)
            # Read after the fork: the child is to know nothing of its tests before their turn.
            watch = Watch(child, limits, frames.receive(requests))
            frames.send(replies, frames.packed(watch.until_end(lifelines)))
    except (EOFError, BrokenPipeError):  # the parent has closed its end
        pass
    finally:
        protection.remove()


def _is_asked(requests: int, lifelines: list[int]) -> bool:
    """Waits for a request; False if the parent ends before."""
    poll = select.poll()
    for end in lifelines:
        poll.register(end, select.POLLIN)
    return [end for end, _ in poll.poll()] == [requests]


def _start(protection: Protection, limits: Mapping[str, Any]) -> Child:
    """Forks a child, which protects itself and waits for its first stage."""
    (control, to_child), (from_child, report), (printed, output) = os.pipe(), os.pipe(), os.pipe()
    server = os.getpid()
    process = os.fork()
    if process == 0:
        try:
            _child(protection, limits, server, {0: 0, 1: output, 2: output, CONTROL: control, REPORT: report})
        except BaseException:  # whatever it is, it must not go on as a second server
            traceback.print_exc()  # where the program prints
        finally:
            os._exit(1)
    for end in (control, report, output):
        os.close(end)
    return Child(process, control=to_child, report=from_child, output=printed)


def _child(protection: Protection, limits: Mapping[str, Any], server: int, places: dict[int, int]) -> NoReturn:
    os.setsid()
    waiting = {place: fcntl.fcntl(end, fcntl.F_DUPFD, _FIRST_FREE) for place, end in places.items()}
    for place, end in waiting.items():
        os.dup2(end, place)
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    missing = protection.put_on(limits, server)
    os.closerange(max(places) + 1, 2**31 - 1)
    frames.send(REPORT, frames.packed(missing))
    run_stages()
    os._exit(0)
