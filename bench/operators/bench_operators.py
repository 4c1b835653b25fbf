"""Every operator beside its baselines on a CPU: a test per case of cases.py.

pytest-benchmark times tad_ext's path in rounds of its own, which its options are about. The ratios, its "extra_info",
are of a second measurement: all paths take turns, so that a machine whose speed drifts is as slow for each of them.
"""

import time
from typing import Any

import torch

from ..results import Line, Turns
from ..stopwatch import Implementation, Stopwatch, Workload
from .cases import Case

_PREPARED_ROUNDS = 50  # of work that needs something before every run: pytest-benchmark wants to be told
_SECONDS, _FEWEST, _MOST = 2.5, 5, 11  # of a case: rounds until this long, but not fewer or more than these


def test_operator(benchmark: Any, case: Case, stopwatch: Stopwatch) -> None:
    torch.compiler.reset()  # each size is compiled for itself, and no limit on recompilations is met
    workload = case.build()
    own = next(iter(workload.implementations.values()))
    benchmark.group = case.operator
    if own.prepare is Implementation.prepare:  # nothing to prepare
        benchmark(own.run)
    else:
        benchmark.pedantic(own.run, setup=own.prepare, rounds=_PREPARED_ROUNDS, warmup_rounds=3)
    if benchmark.enabled:
        benchmark.extra_info.update(title=case.title, lines=side_by_side(stopwatch, case, workload))


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
        cold, warm = zip(*(of[path] for of in times))
        return {"main": case.main, **workload.numbers(peaks[path], warm, cold=cold)}

    return turns.lines(numbers)
