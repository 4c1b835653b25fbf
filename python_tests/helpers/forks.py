"""Functions in forks of one process that has imported everything: they run at once, and can be killed at any moment.

Run as a script this is that process.
"""

import atexit
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from typing import Any

import torch


class Forks:
    """The process, from outside. `functions` are "module:name"."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def prepare(self, function: str) -> None:
        """Imports its module, so that no run is measured with that."""
        self._ask(prepare=function)

    def start(self, function: str, *arguments: Any, **environment: str) -> int:
        """The process id of a fork that calls this function: a zombie at worst until `end`, so that a kill is safe."""
        return self._ask(function=function, arguments=arguments, environment=environment)

    def start_ranks(self, count: int, function: str, *arguments: Any) -> list[int]:
        """The same of so many ranks, which find each other."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        world |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        ranks = ({**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {} for rank in range(count))
        return [self.start(function, *arguments, **environment) for environment in ranks]

    def end(self, *pids: int, together: bool = False) -> list[int]:
        """Waits for these forks; their statuses as waitpid has them. `together`: where one fails the others are
        killed.
        """
        return self._ask(end=pids, together=together)

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _ask(self, **question: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@functools.cache
def forks() -> Forks:
    """One for all tests of this process."""
    made = Forks()
    atexit.register(made.close)
    return made


def main() -> None:
    """The process: reads what `Forks` asks, a line each, and answers."""
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None  # as conftest.py has it
    for line in sys.stdin:
        question = json.loads(line)
        if "prepare" in question:
            answer: Any = _function(question["prepare"]).__name__
        elif "function" in question:
            answer = _forked(_function(question["function"]), question["arguments"], question["environment"])
        else:
            answer = _statuses(question["end"], question["together"])
        print(json.dumps(answer), flush=True)


def _function(name: str) -> Any:
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


def _forked(function: Any, arguments: list[Any], environment: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.dup2(2, 1)
    os.environ |= environment
    status = 1
    try:
        function(*arguments)
        status = 0
    except SystemExit as error:
        status = int(str(error.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _statuses(pids: list[int], together: bool) -> list[int]:
    statuses: dict[int, int] = {}
    while len(statuses) < len(pids):
        for pid in [pid for pid in pids if pid not in statuses]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                statuses[pid] = status
            if ended and status and together:
                for other in set(pids) - statuses.keys():
                    os.kill(other, signal.SIGKILL)
        time.sleep(0.002)
    return [statuses[pid] for pid in pids]


if __name__ == "__main__":
    main()
