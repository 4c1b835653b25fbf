"""Code tasks: the code in a response, the program that is run, and the original formats."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_files import RECORDS, write_records

from tad_ext.data.sandbox.run import SandboxError
from tad_ext.data.tasks import pytest_stand_in
from tad_ext.data.tasks.code_task import extract_code
from tad_ext.data.tasks.kodcode import method_calls
from tad_ext.data.tasks.task import get_task

F = "def f():\n    return 1\n"


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (F, F),
        (f"Here:\n```python\n{F}```\nDone.", F),
        (f"```\n{F}```", F),
        (f"```py\n{F}", F),  # the canvas ended before the block
        (f"  ```Python title=x\n{F}  ```", F),
        (f"```\nprint(f())\n```\nand\n```python\n{F}```\n```python\nf()\n```", F),
        ("```python\nx = 1\n```\n```python\ny = 2\n```", "x = 1\n"),
        (f"```bash\npip install x\n```\n```python\n{F}```", F),
        ("    return 1\n", "    return 1\n"),  # what stands behind a function's beginning
        ("    return 1\n```\nThis returns 1.", "    return 1\n"),
        ("The result of `f` is ``` x ```.\n```python\nclass A:\n    pass\n```", "class A:\n    pass\n"),
        ("```python\nasync def f():\n    pass\n```", "async def f():\n    pass\n"),
        ("", None),
        (" \n", None),
        ("```python\n\n```", None),
        ("```", None),
    ],
)
def test_the_code_in_a_response(response: str, code: str | None) -> None:
    assert extract_code(response) == code


@given(st.text(st.sampled_from("`\n pythondef:(")))
def test_any_response_is_read(response: str) -> None:
    assert extract_code(response) is None or extract_code(response) in response


def task_of(name: str, tmp_path: Path, *records: dict[str, Any], **options: Any) -> Any:
    return get_task(name, data=write_records(tmp_path / f"{name}.jsonl", list(records)), **options)


POLY = {
    "task_id": "HumanEval/32", "entry_point": "root", "canonical_solution": "    return poly(x) - 1\n",
    "prompt": 'def poly(x):\n    return x + 1\n\n\ndef root(x):\n    """Undo poly."""\n',
    "test": "def check(candidate):\n    assert candidate(3) == 3\n",
}  # fmt: skip


@pytest.mark.parametrize(
    "response",
    [
        "    return poly(x) - 1\n",  # the body
        "\n    return poly(x) - 1\n\ndef other():\n    pass",
        "```python\ndef root(x):\n    return poly(x) - 1\n```",  # the function without its helper
        f"```python\n{POLY['prompt']}    return x\n```",  # all of it
        "    y = poly(x) - 1\n    return y\n```\nIt works.",
    ],
)
def test_humaneval_runs_the_body_or_the_whole_function_behind_the_beginning(response: str, tmp_path: Path) -> None:
    task = task_of("humaneval", tmp_path, POLY)
    (problem,) = task.problems("test")
    assert task.is_correct(problem, response)
    assert not task.is_correct(problem, response.replace("return", "return 1 +"))
    assert problem.reference == POLY["prompt"] + "    return poly(x) - 1"
    assert problem.id == "HumanEval/32"


def test_without_protections_nothing_is_asked_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []

    def check(*, unprotected: bool = False) -> None:
        told.append(unprotected)
        if not unprotected:
            raise SandboxError("no walls")

    monkeypatch.setattr("tad_ext.data.tasks.code_task.check_sandbox", check)
    monkeypatch.setattr("tad_ext.data.tasks.own_problems.check_sandbox", check)
    record = {"prompt": "Write f.", "response": F, "tests": "assert f() == 1"}
    for name, one in (("humaneval", POLY), ("jsonl", record)):
        with pytest.raises(SandboxError, match="no walls"):
            task_of(name, tmp_path, one).problems("test")
        task = task_of(name, tmp_path, one, unprotected=True)
        (problem,) = task.problems("test")
        assert task.is_correct(problem, problem.reference)  # with the walls that there are
    assert told == [False, True] * 2
    assert len(task_of("jsonl", tmp_path, {"prompt": "?", "response": "4"}).problems("test")) == 1  # nothing to run


def test_a_response_without_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tad_ext.data.tasks.code_task.run_tests", pytest.fail)
    task = task_of("humaneval", tmp_path, POLY)
    assert not task.is_correct(task.problems("test")[0], " \n")


def test_mbpp_has_its_published_splits(tmp_path: Path) -> None:
    numbers = (1, 2, 10, 11, 510, 511, 600, 601, 974, 1000)
    records = [{**RECORDS["mbpp"][0], "task_id": number} for number in numbers]
    task = task_of("mbpp", tmp_path, *records)
    ids = {split: {int(one.id.removeprefix("mbpp-")) for one in task.problems(split)} for split in ("train", "test")}
    assert ids == {"test": {11, 510}, "train": {511, 600, 601, 974, 1000}}
    (example, other) = task_of("mbpp", tmp_path, *records, shots=2).problems("test")[0].examples
    assert (example.id, other.id) == ("mbpp-1", "mbpp-2")


def test_mbpp_shows_its_tests_and_runs_its_setup(tmp_path: Path) -> None:
    record = {
        "task_id": 12, "text": "Add the size.", "code": "def g(x):\r\n\treturn x + 2",
        "test_setup_code": "import math\r\none = math.gcd(g(0), 1)\r\n",
        "test_list": ["assert g(one) == 3", "assert g(2) == 4"],
        "challenge_test_list": ["assert g(0) == 0"],
    }  # fmt: skip
    task = task_of("mbpp", tmp_path, record)
    (problem,) = task.problems("test")
    assert problem.question == "Add the size. It has to pass these tests:\n\nassert g(one) == 3\nassert g(2) == 4"
    assert problem.reference == "def g(x):\n\treturn x + 2"
    assert problem.answer == "import math\none = math.gcd(g(0), 1)\n\nassert g(one) == 3\nassert g(2) == 4\n"
    assert task.is_correct(problem, problem.reference)
    assert task.is_correct(problem, "def g(x):\n    return math.floor(x + 2.5)")  # what is imported is for all
    sanitized = {
        "task_id": 12,
        "prompt": "Add.",
        "code": F,
        "test_imports": ["import math"],
        "test_list": ["assert f()"],
    }
    (problem,) = task_of("mbpp", tmp_path, sanitized).problems("test")
    assert problem.answer == "import math\nassert f()\n"
    assert problem.question.startswith("Add. ")


def test_kodcode_names_the_function_and_runs_the_tests_without_pytest(tmp_path: Path) -> None:
    record = {
        **RECORDS["kodcode"][0],
        "test": "import solution\nfrom solution import add_0 as add\n\nclass TestIt:\n    def test_a(self):\n"
        "        assert add(4) == 4\n\n    def helper(self, x):\n        pass\n\n"
        "def test_b():\n    assert solution.add_0(5) == 5\n",
    }
    task = task_of("kodcode", tmp_path, record)
    (problem,) = task.problems("train")
    assert problem.question == "Add 0.\n\nIt will be called through this declaration:\n\ndef add_0(x):"
    assert task.is_correct(problem, record["solution"])
    for value, wrong in (("4", "def add_0(x):\n    return 4"), ("5", "def add_0(x):\n    return 5")):
        assert not task.is_correct(problem, wrong), f"right for {value} only"


def test_kodcode_has_what_tests_call_of_pytest(tmp_path: Path) -> None:
    solution = "def third(x):\n    if x < 0:\n        raise ValueError('below')\n    return x / 3"
    test = (
        "import pytest\nfrom solution import third\n\ndef test_a():\n    assert third(1) == pytest.approx(0.3333333)\n"
        "    with pytest.raises(ValueError, match='below'):\n        third(-1)\n"
    )
    record = {**RECORDS["kodcode"][0], "solution": solution, "test": test}
    task = task_of("kodcode", tmp_path, record)
    (problem,) = task.problems("train")
    assert task.is_correct(problem, record["solution"])
    for wrong in (record["solution"].replace("/ 3", "/ 4"), record["solution"].replace("x < 0", "False")):
        assert not task.is_correct(problem, wrong)


NUMBERS = st.one_of(st.floats(), st.integers(-5, 5))
TOLERANCES = st.one_of(st.none(), st.floats(0, 2))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3), st.floats(0, 1e-5), TOLERANCES, TOLERANCES)
def test_approx_is_that_of_pytest(pairs: Any, near: float, rel: float | None, tolerance: float | None) -> None:
    """For numbers of every kind, some of them close, and for lists, tuples and mappings of them."""
    pairs = [*pairs, *((number * (1 + near), number) for number, _ in pairs)]
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    several = [tuple(map(kind, sides)) for kind in (list, tuple, lambda side: dict(enumerate(side)))]
    for number, expected in [*pairs, *several]:
        own, theirs = (one.approx(expected, rel=rel, abs=tolerance) for one in (pytest_stand_in, pytest))
        assert (number == own) == (number == theirs)


def test_raises_is_that_of_pytest() -> None:
    for one in (pytest_stand_in, pytest):
        with one.raises((KeyError, ValueError), match="^b.g$") as caught:
            raise ValueError("big")
        assert (caught.type, str(caught.value)) == (ValueError, "big")
        assert one.raises(ZeroDivisionError, lambda x, y: x / y, 1, y=0).type is ZeroDivisionError
        with pytest.raises(BaseException, match=r"(?i)did not raise"), one.raises(ValueError):
            pass
        with pytest.raises(AssertionError), one.raises(ValueError, match="small"):
            raise ValueError("big")
        with pytest.raises(KeyError), one.raises(ValueError):
            raise KeyError


@pytest.mark.parametrize(
    ("module", "calls"),
    [
        ("def test_a():\n    pass\ndef helper(x):\n    pass", []),  # functions are called by the sandbox
        ("class TestA:\n    def test_a(self):\n        pass\n    def other(self):\n        pass", ["TestA().test_a()"]),
        ("def test_a(tmp_path):\n    pass", None),
        ("@pytest.mark.parametrize('x', [1])\ndef test_a(x):\n    pass\ndef test_b():\n    pass", None),
        ("class TestA:\n    def setup_method(self):\n        pass\n    def test_a(self):\n        pass", None),
        ("class TestA:\n    def test_a(self, capsys):\n        pass", None),
        ("x = 1", None),
    ],
)
def test_the_calls_of_a_test_module(module: str, calls: list[str] | None) -> None:
    assert method_calls(module) == calls


def test_problems_that_need_pytest_are_left_out_and_counted(tmp_path: Path) -> None:
    fixture = {**RECORDS["kodcode"][0], "test": "def test_a(tmp_path):\n    pass", "question_id": "other"}
    task = task_of("kodcode", tmp_path, RECORDS["kodcode"][1], fixture)
    with pytest.warns(UserWarning, match=r"1 of 2 problems of '.*kodcode.jsonl' are left out: their tests need"):
        problems = task.problems("train")
    assert [problem.id for problem in problems] == ["Own_1_I"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("humaneval", {"prompt": None}, "line 1: 'prompt' must be a text that is not empty, got None"),
        ("humaneval", {"entry_point": " "}, "line 1: 'entry_point' must be a text that is not empty, got ' '"),
        ("humaneval", {"task_id": 3}, "line 1: 'task_id' must be a text that is not empty, got 3"),
        ("mbpp", {"task_id": "3"}, "line 1: 'task_id' must be an integer, got '3'"),
        ("mbpp", {"task_id": True}, "line 1: 'task_id' must be an integer, got True"),
        ("mbpp", {"text": None}, "line 1: 'text' must be a text that is not empty, got None"),
        ("mbpp", {"test_list": []}, r"line 1: 'test_list' must hold at least one test, got \[\]"),
        ("mbpp", {"test_list": "assert"}, "line 1: 'test_list' must be a list of texts, got 'assert'"),
        ("mbpp", {"test_setup_code": 5}, "line 1: 'test_setup_code' must be a text that is not empty, got 5"),
        ("kodcode", {"test": "def test_a(:"}, "line 1: 'test' is no Python"),
        ("kodcode", {"solution": ""}, "line 1: 'solution' must be a text that is not empty, got ''"),
    ],
)
def test_bad_lines_are_named(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        task_of(name, tmp_path, {**RECORDS[name][0], **changes}).problems("train")
