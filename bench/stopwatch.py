"""Times work on one device: CUDA events on a GPU, the clock on a CPU.

Cold: before each round the caches are filled with other data. On a GPU this also keeps it busy while the host queues
the round, so that the time is the kernels' own. Warm: rounds follow each other, as in a loop over small tensors that
stay in the cache, and where the host is slower than the kernels it is the host that is timed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

_FEWEST_ROUNDS, _WARM_UPS = 7, 3


@dataclass(frozen=True)
class Implementation:
    """`run` is timed, and what it returns is dropped; `prepare` is called before every run and is not timed."""

    run: Callable[[], Any]
    prepare: Callable[[], Any] = lambda: None


def training_step(loss: Callable[..., Tensor], leaves: list[Tensor], *others: Any, **options: Any) -> Implementation:
    """Forward and backward of `loss(*leaves, *others)`; a run returns it and the gradient of every leaf."""

    def run() -> tuple[Tensor, ...]:
        result = loss(*leaves, *others, **options)
        return result, *torch.autograd.grad(result, leaves)

    return Implementation(run)


@dataclass(frozen=True)
class Workload:
    """A piece of work, with everyone who does it on the same tensors, tad_ext first. `bytes` is the least traffic that
    it could have: every input read once, every output written once; `flops` are of its matrix products.
    """

    implementations: dict[str, Implementation]
    bytes: int
    flops: int | None = None

    def numbers(self, peak_bytes: int, times_ms: Sequence[float], **other_times_ms: Sequence[float]) -> dict[str, Any]:
        """The numbers of one path's line; `other_times_ms` are with other caches, "cold" or "warm"."""
        numbers = {"bytes": self.bytes} | ({} if self.flops is None else {"flops": self.flops})
        numbers |= {"median_ms": median(times_ms), "best_ms": min(times_ms), "rounds": len(times_ms)}
        for name, times in other_times_ms.items():
            numbers |= {f"{name}_median_ms": median(times), f"{name}_best_ms": min(times)}
        return numbers | {"peak_bytes": peak_bytes}


def moment(on_gpu: bool) -> Any:
    """Now: on a GPU an event, which the host does not wait for."""
    if not on_gpu:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def milliseconds(began: Any, ended: Any) -> float:
    """Between two moments that the device has reached."""
    return (ended - began) * 1e3 if isinstance(began, float) else began.elapsed_time(ended)


class Stopwatch:
    """`evict_bytes` are read to empty the caches: several times the last-level cache, and long enough to queue work."""

    def __init__(self, device: torch.device | str, *, evict_bytes: int = 4) -> None:
        self.device = torch.device(device)
        self.on_gpu = self.device.type == "cuda"
        self._other_data = torch.ones(evict_bytes // 4, device=device)
        self._sum = torch.empty((), device=device)

    def times_ms(self, work: Implementation, rounds: int = 1, *, cold: bool = False) -> list[float]:
        """Milliseconds of each of so many runs; the first of a compiled function compiles it."""
        moments = []
        for _ in range(rounds):
            work.prepare()
            if cold:
                self._evict()
            began = moment(self.on_gpu)
            work.run()
            moments.append((began, moment(self.on_gpu)))
        if self.on_gpu:
            torch.cuda.synchronize()
        return [milliseconds(*pair) for pair in moments]

    def fitting_times_ms(
        self, work: Implementation, *, seconds: float = 0.15, most: int = 50, cold: bool = False
    ) -> list[float]:
        """Milliseconds of each run: as many as fit into `seconds`, 7 to `most`, after a few that are not timed."""
        *_, one_ms = (self.times_ms(work)[0] for _ in range(_WARM_UPS + 1))
        return self.times_ms(work, min(most, max(_FEWEST_ROUNDS, int(1e3 * seconds / max(one_ms, 1e-3)))), cold=cold)

    def peak_bytes(self, work: Implementation) -> int:
        """The most memory that one run has at a time beyond what was there before it, its results included."""
        work.prepare()
        if not self.on_gpu:
            return cpu_peak_bytes(work.run)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work.run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def _evict(self) -> None:
        # Read, not written: dirty lines would be written back during the round and be counted as its traffic.
        torch.sum(self._other_data, dim=0, out=self._sum)


def cpu_peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that `work` had allocated at a time, by PyTorch's own allocation events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recording:
        work()
    events = [event for event in recording.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes, initial=0))
