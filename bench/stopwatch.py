"""Times work on one device: CUDA events on a GPU, the clock on a CPU.

Cold: before each round the caches are filled with other data. On a GPU this also keeps it busy while the host queues
the round, so that the time is the kernels' own. Warm: rounds follow each other, as in a loop over small tensors that
stay in the cache, and where the host is slower than the kernels it is the host that is timed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import memory
import torch
from work import Implementation

_SECONDS, _FEWEST, _MOST = 0.15, 7, 50  # per timing: rounds until this long, but not fewer or more than these
_WARM_UPS = 3


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

    def time(self, work: Implementation, *, cold: bool) -> Timing:
        """Medians and minima after warm-up; what a run returns is dropped."""
        for _ in range(_WARM_UPS):
            self._once(work)
        rounds = min(_MOST, max(_FEWEST, int(_SECONDS / max(self._once(work), 1e-6))))
        times = (
            self._events(work, rounds, cold) if self._cuda else [self.run_ms(work, cold=cold) for _ in range(rounds)]
        )
        return Timing(median(times), min(times), rounds)

    def run_ms(self, work: Implementation, *, cold: bool = False) -> float:
        """One run on a CPU, by the clock."""
        if work.prepare:
            work.prepare()
        if cold:
            self._evict()
        started = time.perf_counter()
        work.run()
        return (time.perf_counter() - started) * 1e3

    def first_call_seconds(self, work: Implementation) -> float:
        """How long the first run takes: for a compiled function, its compilation."""
        return self._once(work)

    def peak_bytes(self, work: Implementation) -> int:
        """The most memory that one run has at a time beyond what was there before it, its results included."""
        if work.prepare:
            work.prepare()
        if not self._cuda:
            return memory.peak_bytes(work.run)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work.run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def _once(self, work: Implementation) -> float:
        """One run with the host waiting for it, in seconds."""
        if work.prepare:
            work.prepare()
        self._wait()
        started = time.perf_counter()
        work.run()
        self._wait()
        return time.perf_counter() - started

    def _events(self, work: Implementation, rounds: int, cold: bool) -> list[float]:
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        for start, end in pairs:
            if work.prepare:
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
