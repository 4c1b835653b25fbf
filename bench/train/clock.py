"""Times the parts of optimizer steps, wherever in the code they are.

On a GPU parts are the device's, between two events; on a CPU they are CPU seconds of the thread that they run in, as
others may be at work beside it.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from ..stopwatch import milliseconds, moment


class PartClock:
    """What runs between two calls of `parts_ms` is one step."""

    def __init__(self, device: torch.device | str) -> None:
        self.on_gpu = torch.device(device).type == "cuda"
        self._marks: list[tuple[str, str | None, Any, Any]] = []
        self._within: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs within belongs to this part, but for the parts within that. There may be many of a name."""
        outer = self._within[-1] if self._within else None
        self._within.append(name)
        began = self._moment()
        try:
            yield
        finally:
            self._within.pop()
            self._marks.append((name, outer, began, self._moment()))

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, as a part."""

        @wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*arguments, **options)

        return run

    def parts_ms(self) -> dict[str, float]:
        """Milliseconds of each part since the last call; waits for the device."""
        if self.on_gpu:
            torch.cuda.synchronize()
        sums: dict[str, float] = defaultdict(float)
        for name, outer, began, ended in self._marks:
            took = milliseconds(began, ended)
            sums[name] += took
            if outer is not None:
                sums[outer] -= took
        self._marks.clear()
        return dict(sums)

    def now(self) -> float:
        """Seconds, for whole steps: on a GPU the clock's, and on a CPU this process's own in all its threads."""
        if not self.on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def _moment(self) -> Any:
        return moment(True) if self.on_gpu else time.thread_time()
