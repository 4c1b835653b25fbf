"""The servers of this process: each runs one program at a time, so there are as many as callers, up to the cores.

A server is a fresh interpreter: nothing of this process (threads, torch, secrets) is in it, and this process is never
forked. A fork of this process starts servers of its own.
"""

import atexit
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tad_ext.data.sandbox import frames

_ROOT = Path(__file__).parents[3]  # of the package
_START = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tad_ext.data.sandbox.server import serve
del sys.path[0]
serve(int(sys.argv[2]))
"""
# As -I, and no site-packages; but the order of sets of texts is the same in every run.
_OPTIONS = ["-s", "-P", "-S", "-B"]
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
_KEPT = ("LD_LIBRARY_PATH", "TMPDIR")  # what the interpreter may need to start, and where the disk is


class Server:
    """A server process, and the pipes to it."""

    def __init__(self) -> None:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, *_OPTIONS, "-c", _START, str(_ROOT), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_ENVIRONMENT | kept,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for this process
        )

    @property
    def process_id(self) -> int:
        """Of the server."""
        return self._process.pid

    def ask(self, limits: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        """The reply. OSError, EOFError: the server has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        frames.send(self._process.stdin.fileno(), frames.packed(limits) + frames.packed(request))
        return frames.receive(self._process.stdout.fileno())

    def close(self) -> None:
        """Ends the server, and with it the program that it runs."""
        self.forget()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Closes this process's ends of the pipes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


class Pool:
    """Servers that wait for a program; started when they are missed."""

    def __init__(self) -> None:
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        self._turns = threading.BoundedSemaphore(len(cores))  # more would bring each other to time limits
        self._lock = threading.Lock()
        self._idle: list[Server] = []

    def ask(self, limits: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        """A server's reply; waits for its turn. A server that has ended is replaced. OSError if that one ends, too."""
        with self._turns:
            try:
                return self._ask_once(limits, request)
            except (OSError, EOFError):
                try:
                    return self._ask_once(limits, request)
                except EOFError as error:
                    raise OSError("the sandbox's server ended; its error output says why") from error

    def _ask_once(self, limits: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            server = self._idle.pop() if self._idle else None
        server = server or Server()
        try:
            reply = server.ask(limits, request)
        except BaseException:  # KeyboardInterrupt, too: its reply would be taken for the next one's
            server.close()
            raise
        with self._lock:
            self._idle.append(server)
        return reply

    def idle(self) -> list[int]:
        """The process ids of the servers that wait."""
        with self._lock:
            return [server.process_id for server in self._idle]

    def close(self) -> None:
        """Ends those that wait."""
        while self._idle:
            self._idle.pop().close()

    def forget(self) -> None:
        """In a fork of this process: these servers are another's."""
        for server in self._idle:
            server.forget()
        self.__init__()  # type: ignore[misc]  # whoever held lock or turns is not in the fork


POOL = Pool()
atexit.register(POOL.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.forget)
