"""Benchmarks: `python -m pytest bench/`. Each group is one table: every line's ratio to the group's baselines, all
measured in this run. Nothing is asserted about time.

Options: `--bench-rows`, `--bench-vocabulary`, `--bench-threads` change the sizes; `--bench-json FILE` keeps the result.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from machine import processor
from results import write_results
from rich.console import Console
from tables import group_table

from tad_ext.ops import backend_info


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tad_ext benchmarks")
    group.addoption("--bench-rows", type=int, default=64, help="logits rows (one eighth of them near); default 64")
    group.addoption("--bench-vocabulary", type=int, default=126_464, help="vocabulary; default 126464 (LLaDA)")
    group.addoption("--bench-threads", type=int, default=2, help="CPU threads; default 2")
    group.addoption("--bench-json", type=Path, default=None, help="also write machine, sizes and results to this file")


@pytest.fixture(scope="session")
def sizes(request: pytest.FixtureRequest) -> dict[str, int]:
    torch.set_num_threads(request.config.getoption("--bench-threads"))
    return {
        "rows": request.config.getoption("--bench-rows"),
        "vocabulary": request.config.getoption("--bench-vocabulary"),
    }


def describe_run(config: pytest.Config) -> dict[str, Any]:
    """The machine, the versions and the sizes that the numbers belong to."""
    return {
        "processor": processor(),
        "threads": config.getoption("--bench-threads"),
        "instruction_set": backend_info()["cpu_capability"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "rows": config.getoption("--bench-rows"),
        "vocabulary": config.getoption("--bench-vocabulary"),
    }


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    results: dict[str, list[dict[str, Any]]] = {}
    for benchmark in session.benchmarks if session else []:
        if not benchmark.stats.rounds:
            continue
        line = {"name": benchmark.name, "median_ms": benchmark.stats.median * 1e3, "best_ms": benchmark.stats.min * 1e3}
        results.setdefault(benchmark.group, []).append(line | benchmark.extra_info)
    if not results:
        return
    run = describe_run(config)
    console = Console(file=terminalreporter._tw._file, width=130)
    console.print("\n" + ", ".join(f"{key} {value}" for key, value in run.items()), highlight=False)
    for group, lines in results.items():
        console.print(group_table(group, lines))
    if config.getoption("--bench-json"):
        document = {"run": run, "results": results}
        write_results(config.getoption("--bench-json"), document)
