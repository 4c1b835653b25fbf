"""`python -m pytest bench` times every operator on the CPU; nothing is asserted about time.

pytest's `-k statistics` chooses, `--benchmark-save`, `--benchmark-compare` and pytest-benchmark's other options apply.
`--benchmark-json bench/results/NAME.json` keeps what `python -m bench.report` shows.
"""

from typing import Any

import pytest
import torch

from .machine import describe_run
from .operators.cases import LLADA_VOCABULARY, OPERATORS, Case, Sizes, cases, cpu_sizes
from .report.machines import page
from .stopwatch import Stopwatch

_ROWS = (64, 32, 128)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tad_ext benchmarks")
    group.addoption(
        "--bench-rows", type=int, action="append", metavar="N",
        help="logits rows, one eighth of them near; may be given several times: the loss is measured at all of them, "
        f"everything else at the first; default {' '.join(map(str, _ROWS))}",
    )  # fmt: skip
    words = f"vocabulary; default {LLADA_VOCABULARY} (LLaDA)"
    group.addoption("--bench-vocabulary", type=int, default=LLADA_VOCABULARY, help=words)
    group.addoption("--bench-threads", type=int, default=2, help="CPU threads; default 2")
    words = "MiB read before each run with cold caches; default 256"
    group.addoption("--bench-evicted", type=int, default=256, help=words)


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(config.getoption("--bench-threads"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", list(_cases(metafunc.config)), indirect=True)


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    return _cases(request.config)[request.param]


@pytest.fixture(scope="session")
def stopwatch(pytestconfig: pytest.Config) -> Stopwatch:
    return Stopwatch("cpu", evict_bytes=2**20 * pytestconfig.getoption("--bench-evicted"))


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    """What has to be the same for two runs to be compared."""
    sizes = _sizes(config)
    return describe_run("cpu") | {"rows": list(sizes.loss_rows), "vocabulary": sizes.vocabulary}


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Without the time of every single round, unless it is asked for."""
    for benchmark in output_json["benchmarks"] if not config.getoption("--benchmark-save-data") else ():
        benchmark["stats"].pop("data", None)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    measured = [{"extra_info": one.extra_info} for one in config._benchmarksession.benchmarks if one.extra_info]
    if measured:
        document = {"machine_info": pytest_benchmark_generate_machine_info(config), "benchmarks": measured}
        terminalreporter.write_line("\n" + page("tad_ext beside its baselines", document))


def _sizes(config: pytest.Config) -> Sizes:
    return cpu_sizes(tuple(config.getoption("--bench-rows") or _ROWS), config.getoption("--bench-vocabulary"))


def _cases(config: pytest.Config) -> dict[str, Case]:
    return {case.title: case for operator in OPERATORS for case in cases(operator, _sizes(config))}
