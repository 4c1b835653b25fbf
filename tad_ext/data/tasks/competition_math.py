r"""MATH (Hendrycks et al., arXiv 2103.03874): competition problems whose answer is an expression in a box.

A record is of one of three kinds:

    problem, solution              the original ones; the answer is what the solution's last ``\boxed{...}`` holds
    problem, answer[, solution]    MATH-500 and others, with the answer apart
    question, answer, target       PRM12K as published in MixChain-Z-PRM12K: ``answer`` is the solution

The reference is the solution, or the answer where there is none. Plain text is written, and ended, as the
minerva_math task of lm-evaluation-harness does it (4 examples there).
"""

import re
from dataclasses import dataclass

from tad_ext.data.answers.math_answers import extract_math_answer, same_math_answer
from tad_ext.data.answers.math_equivalence import check_math_verify
from tad_ext.data.tasks.file_task import FileProblem, FileTask, hashed_id
from tad_ext.data.tasks.records import HubDataset, Record, text_of
from tad_ext.data.tasks.task import Problem, Split

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BARE_BOX = re.compile(r"\\boxed\s+(\w+)")  # a few solutions have a box without braces
_SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip


@dataclass(frozen=True)
class MathTask(FileTask):
    """MATH, checked by math-verify, an extra (see `tad_ext.data.answers.math_answers`)."""

    slow_to_judge = True
    name = "math"
    hub = HubDataset("EleutherAI/hendrycks_math", _SUBJECTS)
    text_form = "Problem:\n{question}\n\nSolution: {response}"
    text_stops = ("Problem:",)

    def problems(self, split: Split, *, limit: int | None = None, seed: int = 0) -> list[Problem]:
        """As `FileTask.problems`; what `check_math_verify` raises, before the file is read."""
        check_math_verify()
        return super().problems(split, limit=limit, seed=seed)

    def problem_of(self, place: str, record: Record) -> FileProblem:
        """The problem of a record of one of the three kinds; its id is `unique_id`, or a hash of the problem."""
        question = text_of(place, record, "problem", "question").strip()
        keys = ("solution", "answer") if record.get("problem") is not None else ("answer", "target")
        solution = text_of(place, record, keys[0]) if record.get(keys[0]) is not None else None
        if record.get(keys[1]) is not None or solution is None:
            answer = text_of(place, record, keys[1]).strip()
        else:
            answer = _boxed(place, keys[0], solution)
        own = record.get("unique_id")
        name = str(own) if own else hashed_id(self.name, question)
        return FileProblem(name, question, (solution or answer).strip(), answer)

    def extract_answer(self, text: str) -> str | None:
        """What the last box of a response holds, as it stands there."""
        return extract_math_answer(text)

    def is_correct(self, problem: Problem, text: str) -> bool:
        """Whether the answer in the box is the same mathematical object as the right one."""
        given = self.extract_answer(text)
        return given is not None and same_math_answer(problem.answer, given)

    def text_response(self, example: Problem) -> str:
        """The solution; an answer without one in a box, where answers are looked for."""
        return (
            example.reference if "\\boxed" in example.reference else f"The final answer is \\boxed{{{example.answer}}}."
        )

    def chat_response(self, example: Problem) -> str:
        """As `text_response`."""
        return self.text_response(example)


def _boxed(place: str, key: str, solution: str) -> str:
    """What a solution's last box holds. ValueError if it has none."""
    braced = _BARE_BOX.sub(r"\\boxed{\1}", solution)
    answer = extract_math_answer(braced) if _BOX.search(braced) else None  # which finds answers without a box, too
    if answer is None:
        raise ValueError(f"{place}: {key!r} must hold the answer within \\boxed{{}}, got {solution[-80:]!r}")
    return answer
