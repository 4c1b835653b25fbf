r"""HumanEval (Chen et al., arXiv 2107.03374): the beginning of a function, its docstring, and tests.

A record of ``HumanEval.jsonl.gz`` holds ``task_id``, ``prompt``, ``canonical_solution``, ``entry_point`` and ``test``.
The file is the split, as there is one only. A plain text is the beginning itself, which the model completes; it ends,
as published, at what begins another statement of the module (no examples there).
"""

from dataclasses import dataclass

from tad_ext.data.tasks.code_task import CodeTask
from tad_ext.data.tasks.file_task import FileProblem
from tad_ext.data.tasks.records import HubDataset, Record, text_of
from tad_ext.data.tasks.task import Problem


@dataclass(frozen=True)
class HumanEvalTask(CodeTask):
    """HumanEval. The reference is the whole function: its beginning and the canonical solution."""

    name = "humaneval"
    hub = HubDataset("openai/openai_humaneval", splits={"test": "test"})
    text_form = "{question}{response}"
    text_stops = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")

    def problem_of(self, place: str, record: Record) -> FileProblem:
        """The problem, whose id is its `task_id`, such as HumanEval/0."""
        name, prompt, solution, entry_point, test = (
            text_of(place, record, key) for key in ("task_id", "prompt", "canonical_solution", "entry_point", "test")
        )
        return FileProblem(name, prompt, f"{prompt}{solution.rstrip()}", f"{test}\ncheck({entry_point})\n")

    def chat_question(self, problem: Problem) -> str:
        """The beginning in a block."""
        return f"Complete this Python function:\n\n```python\n{problem.question.rstrip()}\n```"

    def text_response(self, example: Problem) -> str:
        """The function's body."""
        return example.reference.removeprefix(example.question)

    def program(self, problem: Problem, code: str) -> str:
        """The beginning, whose imports and helpers the code may rely on, and the code: the body, or all of it again."""
        completes = code.lstrip("\n").startswith((" ", "\t"))
        return f"{problem.question}{code}" if completes else f"{problem.question}\n{code}"
