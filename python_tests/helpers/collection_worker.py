"""Runs `collect` in forks, which can be killed at any moment."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from collection_runs import LenientTask
from forks import forks

from tad_ext.jobs import common
from tad_ext.jobs.collect import run as collection
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.settings import made, values_of

with contextlib.suppress(ImportError):  # which pyarrow imports when it first writes
    import pandas  # noqa: F401


class Worker:
    """Runs one thing after the other, or two beside each other."""

    function = "collection_worker:in_fork"

    def __init__(self) -> None:
        forks().prepare(self.function)

    def run(self, settings: Any, *, kill_after: float | None = None, **options: Any) -> int:
        """Exit status of one run as waitpid gives it: 0, or the signal. ``options``: of `in_fork`."""
        pid = self._start(settings, **options)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        return forks().end(pid)[0]

    @contextlib.contextmanager
    def running(self, settings: Any, *, kill_after: float | None = None, **options: Any) -> Iterator[None]:
        """A run beside the block."""
        pid = self._start(settings, **options)
        killer = threading.Timer(kill_after or 0, os.kill, (pid, signal.SIGKILL))
        if kill_after is not None:
            killer.start()
        yield
        if kill_after is not None:
            killer.join()
        forks().end(pid)

    def _start(self, settings: Any, *, rank: int = 0, world_size: int = 1, **options: Any) -> int:
        ranks = {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
        return forks().start(self.function, values_of(settings), options, **ranks)


def in_fork(settings: dict[str, Any], options: dict[str, Any]) -> None:
    """One run. ``die_at = (moment, n)`` makes it kill itself before or after its rename number n (from 0) of a finished
    file; ``expect_decoded`` makes it fail if it decodes another number of answers.
    """
    with expected(collection, **options):
        collection.collect(made(CollectConfig, settings))


@contextlib.contextmanager
def expected(decodes: Any, die_at: tuple[str, int] | None = None, expect_decoded: int | None = None) -> Iterator[None]:
    """The same of a run in the block, whose module `decodes` calls `decode_stream`."""
    common.get_task = lambda name, **_: LenientTask()  # type: ignore[assignment]
    if die_at:
        os.replace = _deadly(os.replace, *die_at)  # type: ignore[assignment]
    decoded = _counted(decodes)
    yield
    assert expect_decoded in (None, len(decoded)), decoded


def _counted(module: Any) -> list[int]:
    """The numbers of all prompts that are decoded from now on, in every run."""
    numbers: list[int] = []
    real = module.decode_stream

    def counted(*arguments: Any, **options: Any) -> Any:
        numbers.extend(options["numbers"])
        return real(*arguments, **options)

    module.decode_stream = counted
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
