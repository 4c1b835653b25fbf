r"""KodCode (Xu et al., arXiv 2503.02951): written coding questions with solutions and tests for pytest.

A record of KodCode-V1 holds ``question_id`` (``conversation_id``), ``question``, ``solution``, ``test`` (``test_code``)
and ``test_info``, the declarations of the functions that are tested. A file is the split; the hub has "train" only.

The tests are a module that imports from ``solution``. Here that is the module in which the solution has just run, and
its test functions are called one after the other, without pytest, which takes a second to start and is not in the
sandbox: of it there are `raises` and `approx`. Tests to which pytest would give something (fixtures, parameters) cannot
be run so: problems that have them are left out, which is warned of.
"""

import ast
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tad_ext.data.code_task import CodeTask
from tad_ext.data.file_task import FileProblem, hashed_id
from tad_ext.data.records import HubDataset, Record, text_of
from tad_ext.data.tasks import Problem, Split

# Before the tests: a module `pytest`, and a module `solution` of what has been defined, if the sandbox has made none.
_MODULES = f"""\
import sys as _sys, types as _types
_sys.modules["pytest"] = _types.ModuleType("pytest")
exec({Path(__file__).with_name("pytest_stand_in.py").read_text(encoding="utf-8")!r}, _sys.modules["pytest"].__dict__)
if "solution" not in _sys.modules:
    _sys.modules["solution"] = _types.ModuleType("solution")
    _sys.modules["solution"].__dict__.update({{k: v for k, v in globals().items() if not k.startswith("__")}})
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
            calls = test_calls(test)
        except SyntaxError as error:
            raise ValueError(f"{place}: 'test' is no Python: {error}") from error
        own = record.get("question_id") or record.get("conversation_id")
        answer = "\n".join([test, *calls, ""]) if calls else ""
        declared = "\n".join(_declarations(record.get("test_info")))
        asked = f"{question}\n\nIt will be called through this declaration:\n\n{declared}" if declared else question
        return FileProblem(str(own) if own else hashed_id(self.name, question), asked, solution, answer)

    def tests(self, problem: Problem) -> str:
        """The test module and its calls, behind the modules that it imports from."""
        return f"{_MODULES}{problem.answer}"

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


def test_calls(module: str) -> list[str]:
    """Lines that call the tests of a module for pytest, in its order; none if one of them needs something of pytest.

    Raises SyntaxError for what is no Python.
    """
    calls: list[str] = []
    for node in ast.parse(module).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            named = [(node, f"{node.name}()", 0)]
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
            if any(one.name in ("setup_method", "setup_class", "teardown_method", "teardown_class") for one in methods):
                return []
            named = [(one, f"{node.name}().{one.name}()", 1) for one in methods if one.name.startswith("test")]
        else:
            continue
        if any(len(one.args.args) > own or one.decorator_list for one, _, own in named):
            return []
        calls += [call for _, call, _ in named]
    return calls


def _declarations(info: Any) -> list[str]:
    """The declarations in `test_info`, which is one object or a list of them."""
    entries = info if isinstance(info, list) else [info] if isinstance(info, dict) else []
    declared = (entry.get("function_declaration") for entry in entries if isinstance(entry, dict))
    return [text for text in declared if isinstance(text, str) and text.strip()]
