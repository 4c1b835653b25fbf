r"""MBPP (Austin et al., arXiv 2108.07732): what a function is to do, and three tests that the model is shown.

A record of ``mbpp.jsonl`` holds ``task_id``, ``text`` (``prompt`` in the sanitized version), ``code``, ``test_list``
and ``test_setup_code`` (``test_imports``). The splits are the published ones, told by the id: 1 to 10 are for examples,
11 to 510 are "test", and all others "train". Plain text is written, and ended, as published (3 examples there).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from tad_ext.data.tasks.code_task import CodeTask
from tad_ext.data.tasks.file_task import FileProblem
from tad_ext.data.tasks.records import HubDataset, Record, text_of
from tad_ext.data.tasks.task import Problem, Split

_EXAMPLES, _TEST = range(1, 11), range(11, 511)
_EVERY_SPLIT = "prompt+test+validation+train"


@dataclass(frozen=True)
class MbppTask(CodeTask):
    """MBPP. The student sees the tests, as published, else it would have to guess the function's name."""

    name = "mbpp"
    hub = HubDataset("google-research-datasets/mbpp", ("full",), {"train": _EVERY_SPLIT, "test": _EVERY_SPLIT})
    text_form = "{question}\n[BEGIN]\n{response}\n[DONE]"
    text_stops = ("[DONE]",)

    def problem_of(self, place: str, record: Record) -> FileProblem:
        """The problem; the tests of `challenge_test_list` are not asked for, as published."""
        number = record.get("task_id")
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"{place}: 'task_id' must be an integer, got {number!r}")
        text, code = (_lines(text_of(place, record, *keys)) for keys in (("text", "prompt"), ("code",)))
        tests = _texts(place, record, "test_list")
        if not tests:
            raise ValueError(f"{place}: 'test_list' must hold at least one test, got []")
        setup = _texts(place, record, "test_imports")
        if record.get("test_setup_code"):
            setup.append(_lines(text_of(place, record, "test_setup_code")))
        question = f"{text.strip()} It has to pass these tests:\n\n" + "\n".join(tests)
        return FileProblem(f"mbpp-{number}", question, code.rstrip(), "\n".join([*setup, *tests, ""]))

    def program(self, problem: Problem, code: str) -> str:
        """The code, behind what its tests import: the published ones run in one namespace with it."""
        imports = takewhile(lambda line: line.startswith(("import ", "from ")), problem.answer.splitlines())
        return "\n".join([*imports, code])

    def asked(self, problems: Sequence[FileProblem], split: Split) -> Sequence[FileProblem]:
        """The problems of a published split."""

        def is_asked(problem: FileProblem) -> bool:
            number = int(problem.id.removeprefix("mbpp-"))
            return number in _TEST if split == "test" else number not in _TEST and number not in _EXAMPLES

        return [problem for problem in problems if is_asked(problem)]


def _texts(place: str, record: Record, key: str) -> list[str]:
    """A list of texts, which may be missing."""
    value = record.get(key) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{place}: {key!r} must be a list of texts, got {value!r}")
    return [_lines(one) for one in value]


def _lines(text: str) -> str:
    """The text with one kind of line ends: the original file has two, and prompts and programs none of it."""
    return text.replace("\r\n", "\n")
