"""Runs `collect` in forks of one process that has imported everything: a run can be killed at any moment.

Run as a script this is that process.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from collection_runs import LenientTask

from tad_ext.jobs import common
from tad_ext.jobs.collect import run as collection
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.jobs.collect.run import collect
from tad_ext.settings import made, values_of


class Worker:
    """The process, from outside."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def run(self, settings: CollectConfig, *, kill_after: float | None = None, **options: Any) -> int:
        """Exit status of one run as waitpid gives it: 0, or the signal. ``options``: of `main`."""
        pid = self._start(settings, **options)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)  # a zombie at worst: the worker waits for "reap" before it forgets the child
        return self._end()

    @contextlib.contextmanager
    def running(self, settings: CollectConfig, *, kill_after: float | None = None, **options: Any) -> Iterator[None]:
        """A run beside the block."""
        pid = self._start(settings, **options)
        killer = threading.Timer(kill_after or 0, os.kill, (pid, signal.SIGKILL))
        if kill_after is not None:
            killer.start()
        yield
        if kill_after is not None:
            killer.join()
        self._end()

    def _start(self, settings: CollectConfig, **options: Any) -> int:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps({"settings": values_of(settings), **options}), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def _end(self) -> int:
        assert self.process.stdin
        assert self.process.stdout
        print("reap", file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


def main() -> None:
    """The worker: one JSON line per run on stdin; prints the fork's process id and, after a line "reap", its exit
    status.

    ``rank`` and ``world_size``; ``die_at = (moment, n)`` makes the run kill itself before or after its rename number n
    (from 0) of a finished file; ``expect_decoded`` makes it fail if it decodes another number of answers.
    """
    torch.set_num_threads(1)
    common.get_task = lambda name, **_: LenientTask()  # type: ignore[assignment]
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.dup2(2, 1)
            os.environ |= {"RANK": str(job.get("rank", 0)), "WORLD_SIZE": str(job.get("world_size", 1))}
            if "die_at" in job:
                os.replace = _deadly(os.replace, *job["die_at"])  # type: ignore[assignment]
            status = 1
            try:
                decoded = _counted()
                collect(made(CollectConfig, job["settings"]))
                assert job.get("expect_decoded", len(decoded)) == len(decoded), decoded
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        print(pid, flush=True)
        assert sys.stdin.readline() == "reap\n"
        print(os.waitpid(pid, 0)[1], flush=True)


def _counted() -> list[int]:
    """The numbers of all prompts that are decoded from now on."""
    numbers: list[int] = []
    real = collection.decode_stream

    def counted(*arguments: Any, **options: Any) -> Any:
        numbers.extend(options["numbers"])
        return real(*arguments, **options)

    collection.decode_stream = counted
    return numbers


def _deadly(replace: Any, moment: str, number: int) -> Any:
    calls = iter(range(sys.maxsize))

    def replace_or_die(*arguments: Any) -> None:
        due = next(calls) == number
        if not (due and moment == "before"):
            replace(*arguments)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)

    return replace_or_die


if __name__ == "__main__":
    main()
