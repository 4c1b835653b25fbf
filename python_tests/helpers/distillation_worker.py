"""Runs `distill` in forks, on one rank or several, which can be killed at any moment."""

import os
import signal
import time
from typing import Any

from forks import forks

from tad_ext.distillation.adapter_run import used_settings
from tad_ext.distillation.trainer import Trainer
from tad_ext.interrupts import stoppable
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.settings import made

FUNCTION = "distillation_worker:in_fork"


class Worker:
    """Runs one training after the other."""

    def __init__(self) -> None:
        forks().prepare(FUNCTION)

    def run(
        self, settings: DistillConfig, *, ranks: int = 1, after: float | None = None, stop_at: int | None = None
    ) -> list[int]:
        """Runs on so many ranks; their exit statuses as waitpid has them.

        All are killed after some seconds, or get a SIGTERM within the step behind `stop_at`. Otherwise those that are
        left are killed as soon as one has failed.
        """
        pids = forks().start_ranks(ranks, FUNCTION, used_settings(settings), stop_at)
        if after is not None:
            time.sleep(after)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        return forks().end(*pids, together=after is None and stop_at is None)


def in_fork(settings: dict[str, Any], stop_at: int | None) -> None:
    """One rank of a training."""
    real = Trainer._accumulate

    def accumulate(trainer: Trainer, own: Any) -> Any:
        sums = real(trainer, own)
        if trainer.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return sums

    Trainer._accumulate = accumulate  # type: ignore[method-assign]
    with stoppable():
        distill(made(DistillConfig, settings))
