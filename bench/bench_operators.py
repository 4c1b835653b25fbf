"""Every operator against its baselines on the CPU: a test per case of cases.py."""

from __future__ import annotations

from typing import Any

import torch
from cases import Case
from side_by_side import SideBySide
from stopwatch import Stopwatch


def test_operator(benchmark: Any, case: Case, stopwatch: Stopwatch) -> None:
    torch.compiler.reset()  # each size is compiled for itself, and no limit on recompilations is met
    paths = SideBySide(stopwatch, case)
    rounds = paths.warm_up()
    benchmark.group = case.operator
    benchmark.pedantic(paths.own.run, setup=paths.before_own, rounds=rounds)
    if benchmark.stats:  # None with --benchmark-disable
        benchmark.extra_info.update(title=case.title, lines=paths.lines(benchmark.stats.stats.data))
