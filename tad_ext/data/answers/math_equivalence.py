"""Whether two LaTeX expressions are mathematically equal: the library math-verify, in a process that may be lost.

Sympy can take for ever and all memory over a short line (``9^{9^{9^9}}``), and a thread cannot be stopped. So a child
process compares, which is started when it is needed and then kept, and which bounds its time and memory itself
(`math_equivalence_worker`). It is a fresh interpreter, not a fork: the parent may have threads and a GPU.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

_WORKER = Path(__file__).with_name("math_equivalence_worker.py")
_CPU_SECONDS = 5.0  # for one pair; not of the clock, so that it does not matter what else the machine does


class _Comparer:
    """The child process. One pair at a time: threads wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._lock:
            self._started()

    def equivalent(self, gold: str, given: str) -> bool:
        with self._lock:
            try:
                reply = self._reply(self._started(), f"{json.dumps([gold, given])}\n".encode())
            except BaseException:  # Ctrl-C above all: the reply that is still to come belongs to nobody
                self._end()
                raise
            if reply is None:
                self._end()  # it ran out of time or memory; the next comparison starts another
            return reply is True

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        self._process = subprocess.Popen(
            # -P: without its own folder among the importable ones
            [sys.executable, "-P", str(_WORKER), str(_CPU_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # a fork has nothing to write a second time
            env=os.environ | {"PYTHONHASHSEED": "0"},  # sympy's steps depend on it; results shall not
            start_new_session=True,  # Ctrl-C is the parent's
        )
        try:
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            problem = json.loads(line) if line else "its process ended at the start"
        except BaseException:
            self._end()
            raise
        if problem is not None:
            self._end()
            raise RuntimeError(
                "comparing mathematical answers needs math-verify, which the extra 'math' installs; "
                f"alone: pip install 'math-verify>=0.9'; got {problem}"
            )
        return self._process

    @staticmethod
    def _reply(process: subprocess.Popen[bytes], request: bytes) -> object:
        """None if the process has ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(request)
            line = process.stdout.readline()
            return json.loads(line) if line.endswith(b"\n") else None
        return None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(BrokenPipeError), self._process:
                pass  # closes the pipes and waits
        self._process = None


_comparer = _Comparer()


def check_math_verify() -> None:
    """Starts the child process, which takes about a second.

    Raises RuntimeError, with the command that helps, if math-verify is not installed or does not work.
    """
    _comparer.start()


def equivalent(gold: str, given: str) -> bool:
    """Whether two expressions in LaTeX are mathematically equal; False where one is no mathematics, or where it takes
    more than five seconds of CPU time or a gigabyte to tell. From any thread. RuntimeError as `check_math_verify`.
    """
    return _comparer.equivalent(gold, given)


def _forget() -> None:
    """A forked process has a child of its own, and a lock that no thread held while it was forked."""
    global _comparer
    _comparer = _Comparer()


os.register_at_fork(after_in_child=_forget)
