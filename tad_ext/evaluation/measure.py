"""A model measured: a task's problems decoded by each policy of a sweep, the responses judged and counted."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from tad_ext.data.tasks.task import Problem, Task
from tad_ext.decoding import DecodeConfig, decode_stream, parse_policy
from tad_ext.decoding.stopping import cut_at
from tad_ext.evaluation.results import ONE_PER_STEP, Evaluation, Point

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
    each: Callable[[dict[str, Any]], None] | None = None,
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
    # 1. All decoding runs, read before any decoding.
    if not problems:
        raise ValueError("problems is empty; expected at least one")
    if prompt not in PROMPTS:
        raise ValueError(f"prompt is '{prompt}'; expected one of {', '.join(PROMPTS)}")
    configs = {str(policy): dataclasses.replace(decoding, policy=policy) for policy in map(parse_policy, policies)}
    if ONE_PER_STEP in configs:
        configs[ONE_PER_STEP] = dataclasses.replace(
            configs[ONE_PER_STEP], block_add_threshold=1.0, decoded_token_threshold=1.0
        )
    if not configs or len(configs) != len(policies):
        raise ValueError(f"policies is {list(policies)}; expected at least one, and none twice")
    build_prompt = task.student_prompt if prompt == "student" else task.teacher_prompt
    prompts = [build_prompt(problem, tokenizer) for problem in problems]

    evaluation = Evaluation(name=name, task=task.name, points=[])
    for policy, config in configs.items():
        # 2. The responses of one run, in the order of finishing; the clock stands while they are judged.
        by_problem: dict[int, dict[str, Any]] = {}
        text_tokens, seconds, started = 0, 0.0, time.perf_counter()
        for sequence in decode_stream(model, prompts, config, tokenizer=tokenizer, progress=progress):
            seconds += time.perf_counter() - started
            problem = problems[sequence.number]
            text = cut_at(tokenizer.decode(sequence.response(), skip_special_tokens=True), config.stop_strings)
            by_problem[sequence.number] = response = {
                "id": problem.id,
                "policy": policy,
                "correct": task.is_correct(problem, text),
                "tokens": sequence.response_length,
                "forwards": sequence.forwards,
                "response": text,
            }
            text_tokens += len(tokenizer.encode(text, add_special_tokens=False))
            if each is not None:
                each(response)
            started = time.perf_counter()
        seconds += time.perf_counter() - started

        # 3. What they come to.
        responses = [by_problem[number] for number in range(len(problems))]
        evaluation.responses += responses
        correct, tokens, forwards = (sum(one[key] for one in responses) for key in ("correct", "tokens", "forwards"))
        evaluation.points.append(Point(policy, len(problems), correct, tokens, text_tokens, forwards, seconds))
    return evaluation
