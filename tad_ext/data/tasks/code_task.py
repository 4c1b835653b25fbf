"""What the tasks have in common whose answer is code: it is taken out of a response and run against tests."""

import builtins
import re
from dataclasses import dataclass

from tad_ext.data.sandbox.run import check_sandbox, run_tests
from tad_ext.data.tasks.file_task import FileTask
from tad_ext.data.tasks.prompts import CODE
from tad_ext.data.tasks.task import Problem, Split

# An opened block that is not closed ends with the text: a canvas may be too short for it.
_BLOCK = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)
_BODY = re.compile(r"\n*(?: {2,}|\t)(?!```)\S")  # what goes on where a function's beginning stops
_DEFINES = re.compile(r"^(?:async )?(?:def|class) ", re.MULTILINE)
_DEFINED = re.compile(r"^def (\w+)", re.MULTILINE)
_BUILTINS = frozenset(dir(builtins))
_PYTHON = ("", "python", "python3", "py")


@dataclass(frozen=True)
class CodeTask(FileTask):
    """A problem's `answer` is the program of tests, which is run behind the code in one namespace, in the sandbox."""

    slow_to_judge = True

    wording = CODE

    unprotected: bool = False  #: runs code although not all protections can be had (`tad_ext.data.sandbox.run`)

    def problems(self, split: Split, *, limit: int | None = None, seed: int = 0) -> list[Problem]:
        """As `FileTask.problems`; SandboxError, before the file is read, if code would not be run here."""
        check_sandbox(unprotected=self.unprotected)
        return super().problems(split, limit=limit, seed=seed)

    def extract_answer(self, text: str) -> str | None:
        """The code in a response. None if there is none."""
        return extract_code(text)

    def is_correct(self, problem: Problem, text: str) -> bool:
        """Whether the code passes the tests in the sandbox."""
        code = self.extract_answer(text)
        if code is None:
            return False
        asked = _BUILTINS.intersection(_DEFINED.findall(problem.reference))  # `sum`, in one problem of MBPP
        program, tests = self.program(problem, code), self.tests(problem)
        return run_tests(program, tests, builtins=asked, unprotected=self.unprotected).passed

    def program(self, problem: Problem, code: str) -> str:
        """What stands before the tests: the code of a response."""
        return code

    def tests(self, problem: Problem) -> str:
        """The program that is run behind it."""
        return problem.answer

    def chat_response(self, example: Problem) -> str:
        """The reference in a block, as it is asked for."""
        return f"```python\n{example.reference}\n```"


def extract_code(text: str) -> str | None:
    """The first block fenced by ``` that defines a function or a class, else the first one, else the whole text.

    Blocks that are marked as another language than Python are passed over. An indented text is the body of a function
    whose beginning the prompt has, up to a fence. None for a blank text.
    """
    blocks = [code for language, code in _BLOCK.findall(text) if language.lower() in _PYTHON and code.strip()]
    defining = [code for code in blocks if _DEFINES.search(code)]
    unfenced = _FENCE.split(text, maxsplit=1)[0]
    code = unfenced if _BODY.match(text) else (defining or blocks or [unfenced])[0]
    return code if code.strip() else None
