"""A model measured: a task's problems decoded by each policy of a sweep, the responses judged and counted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from torch import nn

from tad_ext.data.tasks import Problem, Task
from tad_ext.decoding import DecodeConfig, decode_stream, parse_policy
from tad_ext.evaluation.results import ONE_PER_STEP, Evaluation, Point

PROMPTS = ("student", "teacher")

T = TypeVar("T")


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
    each: Callable[[dict[str, Any]], None] | None = None,
) -> Evaluation:
    """Decodes all problems once per policy and checks the responses.

    Args:
        model: a masked diffusion model, ready to decode; merge an adapter first, it is faster.
        tokenizer: the model's.
        task: gives the prompts and judges the responses.
        problems: at least one.
        policies: as `parse_policy` reads them, e.g. ["topk:1", "entropy:0.5"]; all are read before any decoding.
        decoding: every setting but the policy, which is replaced by each of `policies`. "topk:1" always decodes block
            by block: with several blocks at a time, forced progress in the first one could add a second token.
        name: of the model, in tables and legends.
        prompt: "student", or "teacher": with the privileged reference.
        each: is given each response as soon as it is finished, as it then stands in the evaluation's `responses`.

    Raises:
        ValueError: no problems, no policies or one named twice, a policy that does not parse, an unknown prompt.
    """
    if not problems:
        raise ValueError("problems is empty; expected at least one")
    if prompt not in PROMPTS:
        raise ValueError(f"prompt is '{prompt}'; expected one of {', '.join(PROMPTS)}")
    configs = {str(policy): dataclasses.replace(decoding, policy=policy) for policy in map(parse_policy, policies)}
    if ONE_PER_STEP in configs:
        one_block = {"block_add_threshold": 1.0, "decoded_token_threshold": 1.0}
        configs[ONE_PER_STEP] = dataclasses.replace(configs[ONE_PER_STEP], **one_block)  # type: ignore[arg-type]
    if not configs or len(configs) != len(policies):
        raise ValueError(f"policies is {list(policies)}; expected at least one, and none twice")
    build_prompt = task.student_prompt if prompt == "student" else task.teacher_prompt
    prompts = [build_prompt(problem, tokenizer) for problem in problems]
    evaluation = Evaluation(name=name, task=task.name, points=[])
    for policy, config in configs.items():
        rows: dict[int, tuple[dict[str, Any], int]] = {}  # by number of the problem: the response, its text's tokens
        watch = Stopwatch()
        for row in watch.timed(decode_stream(model, prompts, config, progress=progress)):
            text = tokenizer.decode(row.response(), skip_special_tokens=True)
            response = {
                "id": problems[row.number].id,
                "policy": policy,
                "correct": task.is_correct(problems[row.number], text),
                "tokens": row.response_length,
                "forwards": row.forwards,
                "response": text,
            }
            rows[row.number] = response, len(tokenizer.encode(text, add_special_tokens=False))
            if each is not None:
                each(response)
        responses = [rows[number][0] for number in range(len(problems))]
        evaluation.responses += responses
        evaluation.points.append(
            Point(
                policy=policy,
                problems=len(problems),
                correct=sum(one["correct"] for one in responses),
                response_tokens=sum(one["tokens"] for one in responses),
                text_tokens=sum(tokens for _, tokens in rows.values()),
                forwards=sum(one["forwards"] for one in responses),
                seconds=watch.seconds,
            )
        )
    return evaluation


class Stopwatch:
    """Seconds spent waiting for what an iterator gives: decoding, without what is done with the responses."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, values: Iterator[T]) -> Iterator[T]:
        """The same values."""
        started = time.perf_counter()
        for value in values:
            self.seconds += time.perf_counter() - started
            yield value
            started = time.perf_counter()
        self.seconds += time.perf_counter() - started
