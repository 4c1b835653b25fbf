"""Every operator beside its baselines on a CPU: a test per case of cases.py.

pytest-benchmark times tad_ext's path, in rounds of its own: its options, what it saves and compares are about that. The
ratios are of a second measurement, in which all paths take turns; they are the benchmark's "extra_info".
"""

from __future__ import annotations

from typing import Any

import torch

from ..stopwatch import Implementation, Stopwatch
from .cases import Case
from .measure import side_by_side

_PREPARED_ROUNDS = 50  # of work that needs something before every run: pytest-benchmark wants to be told


def test_operator(benchmark: Any, case: Case, stopwatch: Stopwatch) -> None:
    torch.compiler.reset()  # each size is compiled for itself, and no limit on recompilations is met
    workload = case.build()
    own = next(iter(workload.implementations.values()))
    benchmark.group = case.operator
    if own.prepare is Implementation.prepare:
        benchmark(own.run)
    else:
        benchmark.pedantic(own.run, setup=own.prepare, rounds=_PREPARED_ROUNDS, warmup_rounds=3)
    if benchmark.enabled:
        benchmark.extra_info.update(title=case.title, lines=side_by_side(stopwatch, case, workload))
