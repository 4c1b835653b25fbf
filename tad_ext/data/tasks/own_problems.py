r"""A user's own problems: what the model is asked, a right response, and how another response is checked.

A record of the file holds

    prompt      what the model is asked, as it stands: a text, or a list of messages with role and content, the last
                one the user's (`messages` is another name for it)
    response    a right response: what the teacher is shown
    check       how a response is judged, by default as `_default_check` says
    answer      what it is judged against, by default taken from `response`
    tests       for code: the program that is run behind it
    id          a name of its own, by default a hash of the prompt

and `check` is one of

    number      the final number is the same (see `tad_ext.data.answers.numbers`)
    math        the expression in the last box is the same (see `tad_ext.data.answers.math_answers`)
    exact       the response is `answer`, blanks at the ends aside
    contains    the response contains `answer`
    code        the code passes the tests in the sandbox
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from tad_ext.data.answers.math_answers import extract_math_answer, same_math_answer
from tad_ext.data.answers.math_equivalence import check_math_verify
from tad_ext.data.answers.numbers import extract_number, normalize_number
from tad_ext.data.sandbox.run import check_sandbox, run_tests
from tad_ext.data.tasks.code_task import extract_code
from tad_ext.data.tasks.file_task import FileProblem, FileTask, hashed_id
from tad_ext.data.tasks.prompts import AS_IT_STANDS, Message
from tad_ext.data.tasks.records import Record, text_of
from tad_ext.data.tasks.task import Problem, Split


@dataclass(frozen=True)
class JsonlProblem(FileProblem):
    """A problem, and how responses to it are checked."""

    check: str = field(default="exact", kw_only=True)  #: a name in `CHECKS`


@dataclass(frozen=True)
class JsonlTask(FileTask):
    """The problems of a user's file, as this module describes them. Nothing is added to the student's prompt."""

    slow_to_judge = True
    name = "jsonl"
    wording = AS_IT_STANDS

    unprotected: bool = False  #: as for `CodeTask`

    def problems(self, split: Split, *, limit: int | None = None, seed: int = 0) -> list[Problem]:
        """As `FileTask.problems`; SandboxError if code is to be checked and would not be run here."""
        problems = super().problems(split, limit=limit, seed=seed)
        if any(cast("JsonlProblem", problem).check == "code" for problem in problems):
            check_sandbox(unprotected=self.unprotected)
        return problems

    def problem_of(self, place: str, record: Record) -> FileProblem:
        """The problem of a record."""
        asked = messages_of(place, record)
        response = text_of(place, record, "response").strip()
        check = record.get("check") or _default_check(record, response)
        if check not in (*CHECKS, "code"):
            raise ValueError(f"{place}: 'check' must be one of {', '.join(CHECKS)}, code, got {check!r}")
        if check == "code":
            answer = text_of(place, record, "tests")
        else:
            answer = _answer(place, check, _given_answer(place, record), response)
        own = record.get("id")
        if own is not None and (isinstance(own, bool) or not isinstance(own, str | int) or own == ""):
            raise ValueError(f"{place}: 'id' must be a text that is not empty, or a number, got {own!r}")
        return JsonlProblem(
            str(own) if own is not None else hashed_id(self.name, json.dumps(asked, sort_keys=True)),
            asked[-1]["content"],
            response,
            answer,
            before=tuple(asked[:-1]),
            check=check,
        )

    def extract_answer(self, text: str) -> str | None:
        """The response without blanks at its ends; what of it counts, the problem's check says."""
        return text.strip() or None

    def is_correct(self, problem: Problem, text: str) -> bool:
        """Whether the response passes the problem's check."""
        check = cast("JsonlProblem", problem).check
        if check == "code":
            return _passes(problem.answer, text, self.unprotected)
        return CHECKS[check](problem.answer, text)


def messages_of(place: str, record: Record) -> list[Message]:
    """The prompt of a record as messages. ValueError for anything else than the module describes."""
    key = "messages" if record.get("messages") is not None else "prompt"
    prompt = record.get(key)
    if not isinstance(prompt, list):
        return [{"role": "user", "content": text_of(place, record, key)}]
    for number, message in enumerate(prompt):
        roles = ("user", "assistant", "system") if number == 0 else ("user", "assistant")
        where = f"{place}: {key}[{number}]"
        if not isinstance(message, dict) or message.get("role") not in roles:
            raise ValueError(f"{where} must be a message of the role {' or '.join(roles)}, got {str(message)[:80]}")
        text_of(where, message, "content")
    if not prompt or prompt[-1]["role"] != "user":
        raise ValueError(f"{place}: {key!r} must end with a message of the user, got {str(prompt[-1:])[:80]}")
    return [{"role": message["role"], "content": message["content"]} for message in prompt]


def _default_check(record: Record, response: str) -> str:
    """code where there are tests; number and math where the answer, or the response's box, is such; else contains for
    an answer, and exact for a response alone.
    """
    if record.get("tests") is not None:
        return "code"
    if record.get("answer") is not None:
        return "number" if normalize_number(str(record["answer"])) is not None else "contains"
    if "\\boxed" in response:
        return "math" if extract_number(response) is None else "number"
    return "exact"


def _given_answer(place: str, record: Record) -> str | None:
    answer = record.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return str(answer)
    return None if answer is None else text_of(place, record, "answer").strip()


def _answer(place: str, check: str, given: str | None, response: str) -> str:
    """What responses are judged against. ValueError where neither a given answer nor the response has it."""
    found: str | None = given or response
    if check == "number":
        found = normalize_number(given) if given else extract_number(response)
    elif check == "math":
        check_math_verify()
        found = given or extract_math_answer(response)
    if found is None:
        key, text = ("answer", given) if given else ("response", response)
        raise ValueError(f"{place}: 'check' is {check}, but {key!r} has no such answer: {text[-80:]!r}")
    return found


def _same_math(answer: str, text: str) -> bool:
    given = extract_math_answer(text)
    return given is not None and same_math_answer(answer, given)


def _passes(tests: str, text: str, unprotected: bool) -> bool:
    code = extract_code(text)
    return code is not None and run_tests(code, tests, unprotected=unprotected).passed


CHECKS: dict[str, Callable[[str, str], Any]] = {
    "number": lambda answer, text: extract_number(text) == answer,
    "math": _same_math,
    "exact": lambda answer, text: text.strip() == answer,
    "contains": lambda answer, text: answer in text,
}
