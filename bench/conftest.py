"""Benchmarks: `python -m pytest bench/`. Each case is one table: every line's ratio to the case's baselines, all
measured in this run. Nothing is asserted about time.

Options: `--bench-rows`, `--bench-vocabulary`, `--bench-threads` change the sizes; `--bench-json FILE` keeps the result;
pytest's own `-k statistics` chooses.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import LLADA_VOCABULARY, OPERATORS, Sizes, cases, copy_case, cpu_sizes
from machine import processor
from results import Groups, write_results
from rich.console import Console
from stopwatch import Stopwatch
from tables import group_table

from tad_ext.ops import backend_info

_ROWS = (64, 32, 128)
_EVICT_BYTES = 2**28


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tad_ext benchmarks")
    group.addoption(
        "--bench-rows", type=int, action="append", metavar="N",
        help="logits rows, one eighth of them near; may be given several times: the loss is measured at all of them, "
        f"everything else at the first; default {' '.join(map(str, _ROWS))}",
    )  # fmt: skip
    group.addoption(
        "--bench-vocabulary", type=int, default=LLADA_VOCABULARY, help=f"vocabulary; default {LLADA_VOCABULARY} (LLaDA)"
    )
    group.addoption("--bench-threads", type=int, default=2, help="CPU threads; default 2")
    group.addoption("--bench-json", type=Path, default=None, help="also write machine, sizes and results to this file")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        sizes = sizes_of(metafunc.config)
        chosen = [copy_case(sizes, "cpu"), *(case for operator in OPERATORS for case in cases(operator, sizes, "cpu"))]
        metafunc.parametrize("case", chosen, ids=[case.title for case in chosen])


@pytest.fixture(scope="session")
def stopwatch(request: pytest.FixtureRequest) -> Stopwatch:
    torch.set_num_threads(request.config.getoption("--bench-threads"))
    return Stopwatch("cpu", evict_bytes=_EVICT_BYTES)


def sizes_of(config: pytest.Config) -> Sizes:
    """What the options ask for."""
    return cpu_sizes(tuple(config.getoption("--bench-rows") or _ROWS), config.getoption("--bench-vocabulary"))


def describe_run(config: pytest.Config) -> dict[str, Any]:
    """The machine, the versions and the sizes that the numbers belong to."""
    sizes = sizes_of(config)
    return {
        "processor": processor(),
        "threads": config.getoption("--bench-threads"),
        "instruction_set": backend_info()["cpu_capability"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "rows": list(sizes.rows),
        "vocabulary": sizes.vocabulary,
    }


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    measured = [benchmark.extra_info for benchmark in session.benchmarks] if session else []
    results: Groups = {info["title"]: info["lines"] for info in measured if "lines" in info}
    if not results:
        return
    run = describe_run(config)
    console = Console(file=terminalreporter._tw._file, width=200)
    console.print("\n" + ", ".join(f"{key} {value}" for key, value in run.items()), highlight=False)
    for title, lines in results.items():
        console.print(group_table(title, lines, beside=results))
    if config.getoption("--bench-json"):
        write_results(config.getoption("--bench-json"), {"run": run, "results": results})
