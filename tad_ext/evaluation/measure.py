"""A model measured: a task's problems decoded by each of several runs, the responses judged and counted."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from tad_ext.data.tasks.judging import judged
from tad_ext.data.tasks.task import Problem, Task
from tad_ext.decoding import DecodeConfig, DecodedSequence, decode_stream
from tad_ext.decoding.stopping import cut_at
from tad_ext.evaluation.results import Evaluation, Point, Response, problems_digest
from tad_ext.evaluation.runs import policy_runs

PROMPTS = ("student", "teacher")


def evaluate_model(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    problems: Sequence[Problem],
    policies: Sequence[str],
    decoding: DecodeConfig,
    *,
    name: str = "model",
    prompt: str = "student",
    progress: bool = False,
    each: Callable[[Response], None] | None = None,
) -> Evaluation:
    """Decodes all problems once per policy and checks the responses.

    Args:
        model: a masked diffusion model, ready to decode; merge an adapter first, it is faster.
        tokenizer: the model's.
        task: gives the prompts and judges the responses.
        problems: at least one.
        policies: as `parse_policy` reads them, e.g. ["topk:1", "entropy:0.5"].
        decoding: every setting but the policy. "topk:1" always decodes block by block: with several blocks at a time,
            forced progress in the first one could add a second token.
        name: of the model, in tables and legends.
        prompt: "student", or "teacher": with the privileged reference.
        each: is given each response as soon as it is finished, as it then stands in the evaluation's `responses`.

    Raises:
        ValueError: no problems, no policies or one named twice, a policy that does not parse, an unknown prompt.
    """
    if not problems:
        raise ValueError("problems is empty; expected at least one")
    runs = policy_runs(policies, decoding)
    prompts = prompts_of(task, problems, tokenizer, prompt)
    found: list[Response] = []
    for run, config in runs.items():
        by_problem: dict[int, Response] = {}
        for number, response in responses(
            model, tokenizer, task, problems, prompts, run, config, progress=progress, each=each
        ):
            by_problem[number] = response
        found += [by_problem[number] for number in range(len(problems))]
    return evaluation_of(name, task, problems, runs, found)


def prompts_of(task: Task, problems: Sequence[Problem], tokenizer: Any, prompt: str) -> list[list[int]]:
    """The token ids that a model is given: the problems as the "student" sees them, or the "teacher"."""
    if prompt not in PROMPTS:
        raise ValueError(f"prompt is '{prompt}'; expected one of {', '.join(PROMPTS)}")
    build = task.student_prompt if prompt == "student" else task.teacher_prompt
    return [build(problem, tokenizer) for problem in problems]


def responses(
    model: Any,
    tokenizer: Any,
    task: Task,
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    run: str,
    config: DecodeConfig,
    *,
    numbers: Sequence[int] | None = None,
    threads: int = 0,
    progress: bool = False,
    each: Callable[[Response], None] | None = None,
) -> Iterator[tuple[int, Response]]:
    """The responses of one decoding run, as they are finished: the problem's number, and what is counted of it.

    Args:
        prompts: of all problems.
        run: its name, see `Point`.
        numbers: which problems to answer; None: all. Each has the random numbers of its place in the list.
        threads: in which responses are judged while others are decoded; 0: the clock stands while one is judged.
        each: is given each response when it is judged, in the thread that did.
    """
    asked = range(len(prompts)) if numbers is None else numbers

    def judge(finished: tuple[DecodedSequence, float]) -> tuple[int, Response]:
        sequence, seconds = finished
        problem = problems[sequence.number]
        text, text_tokens = texts.pop(sequence.number)
        response = Response(
            id=problem.id,
            policy=run,
            correct=bool(task.is_correct(problem, text)),
            tokens=sequence.response_length,
            text_tokens=text_tokens,
            forwards=sequence.forwards,
            latency=sequence.seconds,
            seconds=seconds,
            response=text,
        )
        if each is not None:
            each(response)
        return sequence.number, response

    texts: dict[int, tuple[str, int]] = {}

    def decoded() -> Iterator[tuple[DecodedSequence, float]]:
        started = time.perf_counter()
        for sequence in decode_stream(
            model, [prompts[number] for number in asked], config, tokenizer=tokenizer, progress=progress, numbers=asked
        ):
            seconds = time.perf_counter() - started
            text = response_text(sequence, tokenizer, config)
            # Here, because a tokenizer is not made for several threads.
            texts[sequence.number] = text, len(tokenizer.encode(text, add_special_tokens=False))
            yield sequence, seconds
            started = time.perf_counter()

    return judged(decoded(), judge, threads=threads) if threads else map(judge, decoded())


def response_text(sequence: DecodedSequence, tokenizer: Any, config: DecodeConfig) -> str:
    """A response as it is judged: without special tokens, and up to a stop string."""
    return cut_at(tokenizer.decode(sequence.response(), skip_special_tokens=True), config.stop_strings)


def evaluation_of(
    name: str, task: Task, problems: Sequence[Problem], runs: Mapping[str, DecodeConfig], found: Sequence[Response]
) -> Evaluation:
    """What all responses of some runs come to."""
    points = [Point.of(run, [one for one in found if one["policy"] == run]) for run in runs]
    return Evaluation(name, task.name, points, responses=list(found), problems_digest=problems_digest(problems))
