"""The original HumanEval and MBPP: every published solution passes its tests in the sandbox, others do not."""

import builtins
import gzip
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from problem_files import original
from sandbox_walls import needs_every_wall

from tad_ext.data.jsonl import read_jsonl
from tad_ext.data.sandbox.run import Run, run_tests

pytestmark = needs_every_wall


@dataclass(frozen=True)
class Problem:
    id: str
    solution: str
    tests: str


def human_eval() -> list[Problem]:
    with gzip.open(original("HumanEval.jsonl.gz"), "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [
        Problem(
            one["task_id"], one["prompt"] + one["canonical_solution"], f"{one['test']}\ncheck({one['entry_point']})\n"
        )
        for one in records
    ]


def mbpp() -> list[Problem]:
    records = [one for _, one in read_jsonl(original("mbpp.jsonl"), argument="data")]
    return [
        Problem(f"MBPP/{one['task_id']}", one["code"], "\n".join([one["test_setup_code"], *one["test_list"]]))
        for one in records
    ]


def run(problem: Problem) -> Run:
    asked_for = set(re.findall(r"^def (\w+)", problem.solution, re.MULTILINE)) & set(dir(builtins))
    return run_tests(problem.solution, problem.tests, builtins=asked_for)


def run_all(problems: list[Problem]) -> dict[str, Run]:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return dict(zip([one.id for one in problems], threads.map(run, problems), strict=True))


@pytest.mark.parametrize(("problems", "count"), [(human_eval, 164), (mbpp, 974)], ids=["human_eval", "mbpp"])
def test_every_published_solution_passes(problems, count):
    runs = run_all(problems())
    assert len(runs) == count
    assert {name: one.reason for name, one in runs.items() if not one.passed} == {}


@pytest.mark.parametrize("problems", [human_eval, mbpp])
def test_the_solution_of_another_problem_does_not_pass(problems):
    chosen = problems()[::4]
    exchanged = [
        Problem(one.id, other.solution, one.tests) for one, other in zip(chosen, chosen[1:] + chosen[:1], strict=True)
    ]
    assert [name for name, one in run_all(exchanged).items() if one.passed] == []


def test_a_solution_without_its_last_line_does_not_pass():
    cut = [Problem(one.id, one.solution.rstrip().rpartition("\n")[0] + "\n", one.tests) for one in human_eval()]
    assert {name: one.reason for name, one in run_all(cut).items() if one.passed} == {}
