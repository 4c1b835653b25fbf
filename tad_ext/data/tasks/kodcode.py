r"""KodCode (Xu et al., arXiv 2503.02951): written coding questions with solutions and tests for pytest.

A record of KodCode-V1 holds ``question_id`` (``conversation_id``), ``question``, ``solution``, ``test`` (``test_code``)
and ``test_info``, the declarations of the functions that are tested. A file is the split; the hub has "train" only.

The tests are a module that imports from ``solution``, as the sandbox calls the solution. Test functions and methods are
called one after the other, without pytest, which takes a second to start and is not in the sandbox: of it there are
`raises` and `approx`. Tests to which pytest would give something (fixtures, parameters) cannot
be run so: problems that have them are left out, which is warned of.
"""

import ast
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tad_ext.data.tasks.code_task import CodeTask
from tad_ext.data.tasks.file_task import FileProblem, hashed_id
from tad_ext.data.tasks.records import HubDataset, Record, text_of
from tad_ext.data.tasks.task import Problem, Split

# Before the tests: a module `pytest`.
_PYTEST = f"""\
import sys as _sys, types as _types
_sys.modules["pytest"] = _types.ModuleType("pytest")
exec({Path(__file__).with_name("pytest_stand_in.py").read_text(encoding="utf-8")!r}, _sys.modules["pytest"].__dict__)
"""


@dataclass(frozen=True)
class KodCodeTask(CodeTask):
    """KodCode. What a test module imports beyond the standard library has to be in the sandbox."""

    name = "kodcode"
    hub = HubDataset("KodCode/KodCode-V1", splits={"train": "train"})

    def problem_of(self, place: str, record: Record) -> FileProblem:
        """The problem; its `answer` is empty if its tests cannot be run without pytest."""
        question, solution = text_of(place, record, "question").strip(), text_of(place, record, "solution").rstrip()
        test = text_of(place, record, "test", "test_code")
        try:
            calls = method_calls(test)
        except SyntaxError as error:
            raise ValueError(f"{place}: 'test' is no Python: {error}") from error
        own = record.get("question_id") or record.get("conversation_id")
        answer = "" if calls is None else "\n".join([test, *calls, ""])
        declared = "\n".join(_declarations(record.get("test_info")))
        asked = f"{question}\n\nIt will be called through this declaration:\n\n{declared}" if declared else question
        return FileProblem(str(own) if own else hashed_id(self.name, question), asked, solution, answer)

    def tests(self, problem: Problem) -> str:
        """The test module and its calls, behind what it knows as pytest."""
        return f"{_PYTEST}{problem.answer}"

    def _read(self, split: Split) -> list[FileProblem]:
        problems = super()._read(split)
        left = [problem for problem in problems if problem.answer]
        if len(left) < len(problems):
            warnings.warn(
                f"{len(problems) - len(left)} of {len(problems)} problems of '{self.data}' are left out: their tests "
                f"need fixtures or parameters of pytest",
                stacklevel=2,
            )
        return left


def method_calls(module: str) -> list[str] | None:
    """Lines that call the test methods of a module, in its order: its test functions are called by the sandbox.

    None if there are no tests, or if one of them needs something of pytest. Raises SyntaxError for what is no Python.
    """
    calls: list[str] = []
    tests: list[tuple[ast.FunctionDef, int]] = []  # and how many arguments a call has
    for node in ast.parse(module).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            tests.append((node, 0))
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
            if any(one.name in ("setup_method", "setup_class", "teardown_method", "teardown_class") for one in methods):
                return None
            tests += [(one, 1) for one in methods if one.name.startswith("test")]
            calls += [f"{node.name}().{one.name}()" for one in methods if one.name.startswith("test")]
    runnable = all(len(one.args.args) == own and not one.decorator_list for one, own in tests)
    return calls if tests and runnable else None


def _declarations(info: Any) -> list[str]:
    """The declarations in `test_info`, which is one object or a list of them."""
    entries = info if isinstance(info, list) else [info] if isinstance(info, dict) else []
    declared = (entry.get("function_declaration") for entry in entries if isinstance(entry, dict))
    return [text for text in declared if isinstance(text, str) and text.strip()]
