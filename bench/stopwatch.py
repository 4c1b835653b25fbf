"""Times work on one device: CUDA events on a GPU, the clock on a CPU.

Cold: before each round the caches are filled with other data. On a GPU this also keeps it busy while the host queues
the round, so that the time is the kernels' own. Warm: rounds follow each other, as in a loop over small tensors that
stay in the cache, and where the host is slower than the kernels it is the host that is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_FEWEST_ROUNDS, _WARM_UPS = 7, 3


def _nothing() -> None:
    """For work that leaves nothing behind."""


@dataclass(frozen=True)
class Implementation:
    """`run` is timed; `prepare` is called before every run and is not; `forget` lets go of what the last run left."""

    run: Callable[[], Any]
    prepare: Callable[[], Any] = _nothing
    forget: Callable[[], Any] = _nothing

    @property
    def is_prepared(self) -> bool:
        """Whether `prepare` does anything."""
        return self.prepare is not _nothing


@dataclass(frozen=True)
class Timing:
    """Of `rounds` rounds, in milliseconds."""

    median_ms: float
    best_ms: float
    rounds: int


class Stopwatch:
    """`evict_bytes` are read to empty the caches: several times the last-level cache, and long enough to queue work."""

    def __init__(self, device: torch.device | str, *, evict_bytes: int) -> None:
        self.device = torch.device(device)
        self._cuda = self.device.type == "cuda"
        self._other_data = torch.ones(evict_bytes // 4, device=self.device)
        self._sum = torch.empty((), device=self.device)

    def time(self, work: Implementation, *, cold: bool, seconds: float = 0.15, most: int = 50) -> Timing:
        """Of rounds for so many seconds, but at least 7 and at `most` so many; what a run returns is dropped."""
        for _ in range(_WARM_UPS):
            self.seconds(work)
        rounds = min(most, max(_FEWEST_ROUNDS, int(seconds / max(self.seconds(work), 1e-6))))
        times = (
            self._events(work, rounds, cold) if self._cuda else [self.run_ms(work, cold=cold) for _ in range(rounds)]
        )
        return Timing(median(times), min(times), rounds)

    def run_ms(self, work: Implementation, *, cold: bool = False) -> float:
        """One run on a CPU, by the clock."""
        work.prepare()
        if cold:
            self._evict()
        started = time.perf_counter()
        work.run()
        return (time.perf_counter() - started) * 1e3

    def seconds(self, work: Implementation) -> float:
        """One run with the host waiting for it; the first of a compiled function compiles it."""
        work.prepare()
        self._wait()
        started = time.perf_counter()
        work.run()
        self._wait()
        return time.perf_counter() - started

    def peak_bytes(self, work: Implementation) -> int:
        """The most memory that one run has at a time beyond what was there before it, its results included."""
        work.prepare()
        if not self._cuda:
            return cpu_peak_bytes(work.run)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work.run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def _events(self, work: Implementation, rounds: int, cold: bool) -> list[float]:
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        for start, end in pairs:
            work.prepare()
            if cold:
                self._evict()
            start.record()
            work.run()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in pairs]

    def _evict(self) -> None:
        # Read, not written: dirty lines would be written back during the round and be counted as its traffic.
        torch.sum(self._other_data, dim=0, out=self._sum)

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


def cpu_peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that `work` had allocated at a time, by PyTorch's own allocation events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recording:
        work()
    events = [event for event in recording.profiler.kineto_results.events() if event.name() == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak
