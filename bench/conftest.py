"""Benchmarks: `python -m pytest bench/`. Each group is one table: every line's ratio to the group's baselines, all
measured in this run. Nothing is asserted about time.

Options: `--bench-rows`, `--bench-vocabulary`, `--bench-threads` change the sizes; `--bench-json FILE` keeps the result.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table

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
        "processor": _processor(),
        "threads": config.getoption("--bench-threads"),
        "instruction_set": backend_info()["cpu_capability"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "rows": config.getoption("--bench-rows"),
        "vocabulary": config.getoption("--bench-vocabulary"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


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
        console.print(_table(group, lines))
    if config.getoption("--bench-json"):
        document = {"run": run, "results": results}
        config.getoption("--bench-json").write_text(json.dumps(document, indent=2) + "\n")


def _table(group: str, lines: list[dict[str, Any]]) -> Table:
    """One line per benchmark; `baseline / this` for every line that is marked as a baseline."""
    baselines = [line for line in lines if line.get("baseline")]
    table = Table(title=group, title_justify="left")
    table.add_column("path")
    for header in ("median ms", "best ms", *(f"{line['path']} / this" for line in baselines), "memory"):
        table.add_column(header, justify="right")
    for line in lines:
        ratios = [f"{baseline['median_ms'] / line['median_ms']:.1f}x" for baseline in baselines]
        memory = f"{line['memory_share']:.2%}" if "memory_share" in line else ""
        table.add_row(line["path"], f"{line['median_ms']:.2f}", f"{line['best_ms']:.2f}", *ratios, memory)
    if any("memory_share" in line for line in lines):
        table.caption = "memory: peak beyond inputs and gradient, as a share of the student logits' size"
    return table
