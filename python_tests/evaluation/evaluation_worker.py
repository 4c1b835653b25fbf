"""Runs `evaluate` in forks of one process that has imported everything: a run can be killed at any moment.

Run as a script this is that process, which speaks as `collection_worker` does.
"""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from collection_runs import LenientTask
from collection_worker import Worker, _deadly

from tad_ext.evaluation import measure
from tad_ext.jobs import common
from tad_ext.jobs.evaluate import run as evaluation
from tad_ext.jobs.evaluate.config import EvaluateConfig
from tad_ext.settings import made


class EvaluationWorker(Worker):
    """The process, from outside."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        pipe = subprocess.PIPE
        command = [sys.executable, str(Path(__file__))]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"


def main() -> None:
    """The worker; its lines are those of `collection_worker.main`."""
    torch.set_num_threads(1)
    common.get_task = lambda name, **_: LenientTask()  # type: ignore[assignment]
    evaluation.WAIT = 0.1
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
                evaluation.evaluate(made(EvaluateConfig, job["settings"]))
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
    """The numbers of all problems that are decoded from now on, in every run."""
    numbers: list[int] = []
    real = measure.decode_stream

    def counted(*arguments: Any, **options: Any) -> Any:
        numbers.extend(options["numbers"])
        return real(*arguments, **options)

    measure.decode_stream = counted
    return numbers


if __name__ == "__main__":
    main()
