"""The original HumanEval and MBPP: every published solution passes its tests in the sandbox, others do not."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from problem_files import original
from sandbox_walls import needs_every_wall

from tad_ext.data.tasks.task import Problem, Task, get_task

pytestmark = needs_every_wall

FILES = {"humaneval": "HumanEval.jsonl.gz", "mbpp": "mbpp.jsonl"}


@pytest.fixture(scope="module", params=FILES)
def task(request: pytest.FixtureRequest) -> Any:
    name = request.param
    return get_task(name, data=str(original(FILES[name])))


def every_problem(task: Task) -> list[Problem]:
    """MBPP has two splits, HumanEval is one."""
    return task.problems("test") + (task.problems("train") if task.name == "mbpp" else [])


def passing(task: Task, problems: Sequence[Problem], solutions: Sequence[str]) -> list[str]:
    def is_correct(problem: Problem, solution: str) -> bool:
        return task.is_correct(problem, f"```python\n{solution}\n```")

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        passed = threads.map(is_correct, problems, solutions)
        return [problem.id for problem, one in zip(problems, passed, strict=True) if one]


def test_every_published_solution_passes(task: Task) -> None:
    problems = every_problem(task)
    assert len(problems) == {"humaneval": 164, "mbpp": 964}[task.name]  # MBPP's first ten are for examples
    assert passing(task, problems, [one.reference for one in problems]) == [one.id for one in problems]


def test_the_solution_of_another_problem_does_not_pass(task: Task) -> None:
    problems = every_problem(task)[::4]
    assert passing(task, problems, [one.reference for one in problems[1:] + problems[:1]]) == []


def test_a_solution_without_its_last_line_does_not_pass(task: Task) -> None:
    if task.name == "humaneval":
        problems = every_problem(task)
        assert passing(task, problems, [one.reference.rstrip().rpartition("\n")[0] for one in problems]) == []
