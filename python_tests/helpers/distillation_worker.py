"""Runs `distill` in forks of one process that has imported everything: a run can be killed at any moment.

Run as a script this is that process.
"""

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

from tad_ext.distillation.adapter_run import used_settings
from tad_ext.distillation.trainer import Trainer
from tad_ext.interrupts import stoppable
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.settings import made


class Worker:
    """The process, from outside."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        assert self._answer() == "ready\n"

    def run(
        self, settings: DistillConfig, *, ranks: int = 1, after: float | None = None, stop_at: int | None = None
    ) -> list[int]:
        """Runs on so many ranks; their exit statuses as waitpid has them.

        All are killed after some seconds, or get a SIGTERM within the step behind `stop_at`. Otherwise those that are
        left are killed as soon as one has failed.
        """
        self._say({"settings": used_settings(settings), "ranks": ranks, "stop_at": stop_at})
        pids = json.loads(self._answer())
        if after is not None:
            time.sleep(after)
            for pid in pids:
                os.kill(
                    pid, signal.SIGKILL
                )  # a zombie at worst: the worker waits for a line before it forgets its children
        self._say({"killed": after is not None})
        statuses: list[int] = json.loads(self._answer())
        return statuses

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def _say(self, value: object) -> None:
        assert self.process.stdin
        print(json.dumps(value), file=self.process.stdin, flush=True)

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()


def main() -> None:
    """The worker: reads what `Worker` says, a line each, and answers."""
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        pids = [_forked(job, rank, port) for rank in range(job["ranks"])]
        print(json.dumps(pids), flush=True)
        killed = json.loads(sys.stdin.readline())["killed"]
        statuses = {}
        while len(statuses) < len(pids):
            pid, status = os.wait()
            statuses[pid] = status
            if status and not killed and job["stop_at"] is None:
                for other in set(pids) - statuses.keys():
                    os.kill(other, signal.SIGKILL)
        print(json.dumps([statuses[pid] for pid in pids]), flush=True)


def _forked(job: dict[str, Any], rank: int, port: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.dup2(2, 1)
    if job["ranks"] > 1:
        world = str(job["ranks"])
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    real = Trainer._accumulate

    def accumulate(trainer: Trainer, own: Any) -> Any:
        sums = real(trainer, own)
        if trainer.step == job["stop_at"]:
            os.kill(os.getpid(), signal.SIGTERM)
        return sums

    Trainer._accumulate = accumulate  # type: ignore[method-assign]
    status = 1
    try:
        with stoppable():
            distill(made(DistillConfig, job["settings"]))
        status = 0
    except SystemExit as error:
        status = int(str(error.code))
    except BaseException:
        traceback.print_exc()
    os._exit(status)


if __name__ == "__main__":
    main()
