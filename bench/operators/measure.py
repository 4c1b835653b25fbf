"""The lines of a case: how long every path takes.

On a CPU all paths run in turn, so that a machine whose speed drifts is as slow for one as for the other. On a GPU,
whose clock is steadier and whose time is dear, each path is measured by itself, tad_ext's first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from ..results import Line, failed, is_own
from ..stopwatch import Implementation, Stopwatch
from .cases import Case
from .peers import LIGER, QUACK
from .work import Workload

_SECONDS, _FEWEST, _MOST = 2.5, 5, 11  # of a case: rounds until this long, but not fewer or more than these


def own_first(workload: Workload) -> dict[str, Implementation]:
    """The paths; what is wanted most is measured even where a baseline breaks."""
    return dict(sorted(workload.implementations.items(), key=lambda item: not is_own({"path": item[0]})))


def compiles_first(path: str) -> bool:
    """Whether a path's first run takes seconds."""
    return "compile" in path or path.startswith((LIGER, QUACK))


def side_by_side(stopwatch: Stopwatch, case: Case, workload: Workload) -> list[Line]:
    """Rounds in which each path runs once with emptied caches and once right after that.

    A path that fails is left out from then on.
    """
    failures: dict[str, Line] = {}

    def each(measure: Callable[[Implementation], Any]) -> dict[str, Any]:
        results = {}
        for path, work in own_first(workload).items():
            if path not in failures:
                try:
                    results[path] = measure(work)
                except Exception as error:
                    failures[path] = failed(path, error)
                finally:
                    work.forget()
        return results

    each(stopwatch.run_ms)  # compiles what is to be compiled
    started = time.perf_counter()
    each(stopwatch.run_ms)
    rounds = min(_MOST, max(_FEWEST, int(_SECONDS / (2 * (time.perf_counter() - started)))))
    pairs = [each(lambda work: (stopwatch.run_ms(work, cold=True), stopwatch.run_ms(work))) for _ in range(rounds)]
    peaks = each(stopwatch.peak_bytes)

    def line(path: str) -> Line:
        cold, warm = zip(*(times[path] for times in pairs), strict=True)
        return {
            **_work(case, workload, path),
            "median_ms": median(warm),
            "best_ms": min(warm),
            "cold_median_ms": median(cold),
            "cold_best_ms": min(cold),
            "rounds": rounds,
            "peak_bytes": peaks[path],
        }

    return [failures.get(path) or line(path) for path in own_first(workload)]


def one_by_one(stopwatch: Stopwatch, case: Case, workload: Workload, *, compiled: bool = True) -> Iterator[Line]:
    """Each path's line as soon as it is measured. `compiled`: also those that compile in their first run."""
    for path, work in own_first(workload).items():
        if not compiled and compiles_first(path):
            continue
        try:
            cold, warm = (stopwatch.time(work, cold=cold) for cold in (True, False))
            work.forget()
            peak = stopwatch.peak_bytes(work)
        except Exception as error:
            yield failed(path, error)
            continue
        finally:
            work.forget()
        yield {
            **_work(case, workload, path),
            **vars(cold),
            "warm_median_ms": warm.median_ms,
            "warm_best_ms": warm.best_ms,
            "peak_bytes": peak,
        }


def _work(case: Case, workload: Workload, path: str) -> Line:
    work = {"path": path, "main": case.main, "bytes": workload.bytes, "flops": workload.flops}
    return {key: value for key, value in work.items() if value is not None}
