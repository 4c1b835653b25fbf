"""The lines of a case: how long every path takes.

On a CPU all paths run in turn, so that a machine whose speed drifts is as slow for one as for the other. On a GPU,
whose clock is steadier and whose time is dear, each path is measured by itself, tad_ext's first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

from ..results import Line, Turns, attempt
from ..stopwatch import Implementation, Stopwatch, Workload
from .cases import Case
from .peers import LIGER, QUACK

_SECONDS, _FEWEST, _MOST = 2.5, 5, 11  # of a case: rounds until this long, but not fewer or more than these


def side_by_side(stopwatch: Stopwatch, case: Case, workload: Workload) -> list[Line]:
    """Rounds in which each path runs once with emptied caches and once right after that."""
    turns = Turns(workload.implementations)
    turns.each(stopwatch.times_ms)  # compiles what is to be compiled
    started = time.perf_counter()
    turns.each(stopwatch.times_ms)
    rounds = min(_MOST, max(_FEWEST, int(_SECONDS / (2 * (time.perf_counter() - started)))))

    def cold_then_warm(work: Implementation) -> list[float]:
        return stopwatch.times_ms(work, cold=True) + stopwatch.times_ms(work)

    times = [turns.each(cold_then_warm) for _ in range(rounds)]
    peaks = turns.each(stopwatch.peak_bytes)

    def numbers(path: str) -> Line:
        cold, warm = zip(*(round_[path] for round_ in times))
        return _numbers(case, workload, {"": warm, "cold_": cold}, peaks[path])

    return turns.lines(numbers)


def one_by_one(stopwatch: Stopwatch, case: Case, *, compiled: bool = True) -> Iterator[Line]:
    """Each path's line as soon as it is measured. `compiled`: also those that compile in their first run."""
    workload = case.build(stopwatch.device)

    def numbers(work: Implementation) -> Line:
        cold, warm = (stopwatch.fitting_times_ms(work, cold=cold) for cold in (True, False))
        return _numbers(case, workload, {"": cold, "warm_": warm}, stopwatch.peak_bytes(work))

    for path, work in workload.implementations.items():
        if compiled or not ("compile" in path or path.startswith((LIGER, QUACK))):
            yield attempt(path, partial(numbers, work))


def _numbers(case: Case, workload: Workload, times: dict[str, Sequence[float]], peak_bytes: int) -> Line:
    """`times`: by what their names begin with."""
    line = {"main": case.main, "bytes": workload.bytes}
    if workload.flops is not None:
        line["flops"] = workload.flops
    for prefix, ms in times.items():
        line |= {f"{prefix}median_ms": median(ms), f"{prefix}best_ms": min(ms)}
    return line | {"rounds": len(times[""]), "peak_bytes": peak_bytes}
