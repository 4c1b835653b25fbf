"""Watches one child from its first stage to its end, and sees to it that it ends."""

import contextlib
import json
import os
import secrets
import select
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tad_ext.data.sandbox import frames
from tad_ext.data.sandbox.guards import OPTIONAL
from tad_ext.data.sandbox.stages import MAX_REASON, NONCE_BYTES

_CHUNK = 2**20
_MOST_REPORTED = 8 * MAX_REASON  # bytes; what is longer does not come from `stages`
_EXIT_SECONDS = 1.0  # from closing its ends to the exit of a child


@dataclass(frozen=True)
class Child:
    """A child, and its server's ends of its pipes."""

    process: int
    control: int
    report: int
    output: int


class Watch:
    """One program. `request`: its `stages` (see `tad_ext.data.sandbox.stages`), and whether to run it `unprotected`."""

    def __init__(self, child: Child, limits: Mapping[str, Any], request: Mapping[str, Any]) -> None:
        self._child = child
        self._limits = limits
        self._stages = list(request["stages"])
        self._unprotected = request["unprotected"]
        self._missing: dict[str, str] | None = None  # the child has not told yet
        self._nonce: bytes | None = None
        self._sending = b""
        self._reported = bytearray()
        self._output = bytearray()
        self._reason: str | None = None  # it is running
        self._passed = False
        self._reaped = False
        self._cpu_seconds = 0.0  # once it has been reaped
        self._poll = select.poll()

    def until_end(self, lifelines: Sequence[int]) -> dict[str, Any]:
        """The reply to the request. EOFError if a lifeline breaks before. In any case nothing is left of the child."""
        deadline = time.monotonic() + self._limits["wall_seconds"]
        for end in (self._child.report, self._child.output, *lifelines):
            self._poll.register(end, select.POLLIN)
        os.set_blocking(self._child.control, False)
        os.set_blocking(self._child.output, False)
        actions = {self._child.report: self._hear, self._child.output: self._read, self._child.control: self._send}
        try:
            while self._reason is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    self._reason = f"time: more than {self._limits['wall_seconds']:g} s"
                for end, _ in self._poll.poll(max(left, 0) * 1000 + 1):
                    if end in lifelines:
                        raise EOFError("the parent has ended")
                    if self._reason is None:
                        actions[end]()
            self._end()
            self._read()  # what it printed last
        finally:
            self._end()
            for end in actions:
                os.close(end)
        return {
            "passed": self._passed,
            "reason": self._reason,
            "output": self._output[: self._limits["output_bytes"]].decode("utf-8", "backslashreplace"),
            "missing": self._missing,
        }

    def _hear(self) -> None:
        """What the child reports: what it could not protect itself with, then for each stage the nonce or a reason."""
        chunk = os.read(self._child.report, _CHUNK)
        self._reported += chunk
        try:
            messages = frames.complete(self._reported, _MOST_REPORTED)
        except ValueError:
            self._reason = "wrote to the pipe of its harness"
            return
        for message in messages:
            if self._missing is None:
                self._missing = dict(json.loads(message))
                if self._missing.keys() - OPTIONAL and not self._unprotected:
                    self._reason = "not run"
            elif message != self._nonce:
                self._reason = message.decode("utf-8", "backslashreplace") or "no reason told"
            if self._reason is not None:
                return
            self._next_stage()
        if self._reason is None and not chunk:
            self._reason = self._how_it_ended()

    def _next_stage(self) -> None:
        if not self._stages:
            self._reason, self._passed = "", True
            return
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._sending = frames.packed(self._stages.pop(0)) + self._nonce
        self._poll.register(self._child.control, select.POLLOUT)

    def _send(self) -> None:
        try:
            self._sending = self._sending[os.write(self._child.control, self._sending) :]
        except BrokenPipeError:  # it has closed its end, and can prove nothing any more
            self._sending = b""
        if not self._sending:
            self._poll.unregister(self._child.control)

    def _read(self) -> None:
        """What it has printed up to now."""
        most = self._limits["output_bytes"]
        with contextlib.suppress(BlockingIOError):
            while len(self._output) <= most:
                chunk = os.read(self._child.output, _CHUNK)
                if not chunk:
                    with contextlib.suppress(KeyError):  # it had closed it before
                        self._poll.unregister(self._child.output)
                    return
                self._output += chunk
            if self._reason is None:
                self._reason = f"output: more than {most:,} bytes"

    def _how_it_ended(self) -> str:
        """Of a child that has closed its end of the report."""
        until = time.monotonic() + _EXIT_SECONDS
        while (status := self._reap(os.WNOHANG)) is None and time.monotonic() < until:
            time.sleep(0.001)
        if status is None:
            return "closed the pipe of its harness"
        if os.WIFEXITED(status):
            return f"exited before its end, with code {os.WEXITSTATUS(status)}"
        number = os.WTERMSIG(status)
        ignored_limit = number == signal.SIGKILL and self._cpu_seconds > self._limits["cpu_seconds"]
        if number == signal.SIGXCPU or ignored_limit:
            return f"time: more than {self._limits['cpu_seconds']} s of CPU"
        names = {one.value: one.name for one in signal.Signals}  # without most of the real-time ones
        return f"killed by {names.get(number, f'signal {number}')}"

    def _end(self) -> None:
        """Kills the child, with its group, which is empty unless it was unprotected."""
        if not self._reaped:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):
                    kill(self._child.process, signal.SIGKILL)
            self._reap(0)

    def _reap(self, options: int) -> int | None:
        """The child's status if it has ended."""
        process, status, usage = os.wait4(self._child.process, options)
        if process == 0:
            return None
        self._reaped = True
        self._cpu_seconds = usage.ru_utime + usage.ru_stime
        return status
