"""Times all paths of a case in turn, so that a machine whose speed drifts is as slow for one as for the other.

In every round each path runs once with emptied caches and once right after that. pytest-benchmark times the second run
of the first path, which is tad_ext's; everything else happens in what pytest-benchmark calls setup.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

from cases import Case
from lines import failed_line, in_order, line
from results import Line
from stopwatch import Stopwatch
from work import Implementation

_SECONDS, _FEWEST, _MOST = 2.5, 5, 11  # of a case: rounds until this long, but not fewer or more than these
Result = TypeVar("Result")


class SideBySide:
    """`own` is the first path: `own.run` is for pytest-benchmark to time, `before_own` for its setup."""

    def __init__(self, stopwatch: Stopwatch, case: Case) -> None:
        self._stopwatch, self._case = stopwatch, case
        self._workload = case.build()
        self._paths = in_order(self._workload.implementations)
        self._own = next(iter(self._paths))
        self._failed: dict[str, Line] = {}
        self._cold_ms: dict[str, list[float]] = {path: [] for path in self._paths}
        self._warm_ms: dict[str, list[float]] = {path: [] for path in self._paths}

    @property
    def own(self) -> Implementation:
        """What the case is about."""
        return self._paths[self._own]

    def warm_up(self) -> int:
        """Run everything; returns how many rounds to time."""
        self._each(self._stopwatch.run_ms)  # compiles what is to be compiled
        started = time.perf_counter()
        self._each(self._stopwatch.run_ms)
        seconds = 2 * (time.perf_counter() - started)
        return min(_MOST, max(_FEWEST, int(_SECONDS / seconds)))

    def before_own(self) -> None:
        """A round of every other path, and the first half of the own one."""
        self.own.forget()
        for path, (cold, warm) in self._each(self._cold_and_warm, but=self._own).items():
            self._cold_ms[path].append(cold)
            self._warm_ms[path].append(warm)
        self._cold_ms[self._own].append(self._stopwatch.run_ms(self.own, cold=True))
        if self.own.prepare:
            self.own.prepare()

    def lines(self, own_warm_seconds: list[float]) -> list[Line]:
        """The case's table; `own_warm_seconds` are from pytest-benchmark."""
        self._warm_ms[self._own] = [1e3 * seconds for seconds in own_warm_seconds]
        self.own.forget()
        peaks = self._each(self._stopwatch.peak_bytes)
        return [self._failed.get(path) or self._line(path, peaks[path]) for path in self._cold_ms]

    def _line(self, path: str, peak: int) -> Line:
        cold, warm = self._cold_ms[path], self._warm_ms[path]
        return line(self._case, self._workload, path) | {
            "median_ms": median(warm),
            "best_ms": min(warm),
            "cold_median_ms": median(cold),
            "cold_best_ms": min(cold),
            "rounds": len(warm),
            "peak_bytes": peak,
        }

    def _cold_and_warm(self, work: Implementation) -> tuple[float, float]:
        return self._stopwatch.run_ms(work, cold=True), self._stopwatch.run_ms(work)

    def _each(self, measure: Callable[[Implementation], Result], *, but: str | None = None) -> dict[str, Result]:
        """`measure` of every path that has not failed. A baseline that fails is left out from then on."""
        results = {}
        for path in [path for path in self._paths if path != but]:
            try:
                results[path] = measure(self._paths[path])
            except Exception as error:
                if path == self._own:
                    raise
                self._failed[path] = failed_line(self._case, path, error)
            finally:
                self._paths[path].forget()
            if path in self._failed:
                del self._paths[path]
        return results
