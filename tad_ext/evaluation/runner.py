"""Evaluation: a task's problems decoded one token per step and at a sweep of thresholds, checked, counted and written
down.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from rich.console import Console
from rich.table import Table
from torch import nn

from tad_ext.data.tasks import Problem, Split, Task, check_split, get_task
from tad_ext.data.trajectories import read_trajectories
from tad_ext.decoding import DecodeConfig, decode_stream, parse_cache, parse_policy
from tad_ext.decoding.checks import check_choice
from tad_ext.decoding.policies import policies_by_name
from tad_ext.evaluation.confidence import confidence_by_distance
from tad_ext.evaluation.config import EvaluateConfig
from tad_ext.evaluation.plots import plot_accuracy_curve, plot_confidence_decay
from tad_ext.evaluation.results import COUNTS, ONE_PER_STEP, Evaluation, Point
from tad_ext.evaluation.sweep import sweep
from tad_ext.files import JsonLinesWriter, json_lines, output_folder, successor, tried_folder, write_json, write_text
from tad_ext.models.loading import load_tokenizer, model_fingerprint
from tad_ext.models.lora import load_merged

PROMPTS = ("student", "teacher")
RESPONSES, REPORT = "responses.jsonl", "evaluation.json"
ACCURACY_CURVE, DECAY_CURVE = "accuracy_curve.png", "confidence_decay.png"
OWN_FILES = (RESPONSES, REPORT, ACCURACY_CURVE, DECAY_CURVE)

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


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Runs `tad evaluate`: evaluation.json, responses.jsonl and accuracy_curve.png in ``config.output``; returns what
    evaluation.json holds.

    With ``config.trajectories`` also confidence_decay.png, and its numbers under "confidence_decay". Responses are
    written as they come, numbers when they are known, and pictures last; an earlier evaluation's files stand until all
    of this one's are written.

    Raises:
        ValueError, TypeError: a setting that is wrong, before the model is loaded; what `load_model` and the others
            raise.
        FileNotFoundError: no such problem file.
    """
    policies = _policies(config)
    task = get_task(config.task, data=config.data)
    decoding = _decode_config(config, task)
    check_split(config.split, config.limit)
    problems = task.problems(cast("Split", config.split), limit=config.limit, seed=config.seed)
    if not problems:
        raise ValueError(f"split '{config.split}' of task '{config.task}' gives no problems with limit {config.limit}")
    metadata, trajectories = (None, []) if config.trajectories is None else read_trajectories(config.trajectories)
    if metadata is not None and metadata.task != config.task:
        raise ValueError(
            f"trajectories in '{config.trajectories}' are of task '{metadata.task}'; expected '{config.task}'"
        )
    if metadata is not None and not trajectories:
        raise ValueError(f"trajectories in '{config.trajectories}' hold no trajectory; expected at least one")
    if (Path(config.output) / "config.json").exists():
        raise ValueError(f"output is '{config.output}', a checkpoint's folder; expected another one")
    tried_folder(config.output)

    tokenizer = load_tokenizer(config.model)
    model = load_merged(
        config.model,
        config.adapter,
        dtype=config.dtype,
        device=config.device,
        allow_other_model=config.allow_other_model,
    )
    name = Path(config.model if config.adapter is None else config.adapter).resolve().name
    output = output_folder(config.output)
    with successor(output, [output / one for one in OWN_FILES if (output / one).exists()]) as folder:
        with JsonLinesWriter(folder / RESPONSES) as responses:
            evaluation = evaluate_model(
                model, tokenizer, task, problems, policies, decoding, name=name, prompt=config.prompt, progress=True,
                each=responses.add,
            )  # fmt: skip
        evaluation.count = config.count
        report = evaluation.to_json(config.best_accuracy) | {
            "model_fingerprint": model_fingerprint(config.model),
            "settings": dataclasses.asdict(config)
            | {"gen_length": decoding.gen_length, "block_length": decoding.block_length},
        }
        _print(evaluation, report)  # first: a terminal is never full
        write_json(folder / REPORT, report)
        write_text(folder / RESPONSES, json_lines(evaluation.responses))  # now in the order of the problems
        if trajectories:
            decay = confidence_by_distance(model, trajectories, seed=config.seed, progress=True)
            report["confidence_decay"] = decay.to_json()
            write_json(folder / REPORT, report)
            plot_confidence_decay({name: decay}, folder / DECAY_CURVE)
        plot_accuracy_curve([evaluation], folder / ACCURACY_CURVE, best_accuracy=config.best_accuracy)
    print(f"written to {output}")
    return report


def _policies(config: EvaluateConfig) -> list[str]:
    """The policies to run; checks what only the sweep knows."""
    if config.policy not in policies_by_name:
        known = ", ".join(sorted(policies_by_name))
        raise ValueError(f"policy is '{config.policy}'; expected one of {known} (its values are thresholds)")
    policies = [ONE_PER_STEP] if config.one_per_step else []
    policies = list(dict.fromkeys(policies + sweep(config.policy, config.thresholds)))
    if not policies:
        raise ValueError("thresholds is empty and one_per_step is false; expected at least one decoding run")
    if config.prompt not in PROMPTS:
        raise ValueError(f"prompt is '{config.prompt}'; expected one of {', '.join(PROMPTS)}")
    check_choice("count", config.count, COUNTS)
    if config.best_accuracy is not None and not 0 < config.best_accuracy <= 100:
        raise ValueError(f"best_accuracy is {config.best_accuracy}; expected percent, above 0 and at most 100")
    return policies


def _decode_config(config: EvaluateConfig, task: Task) -> DecodeConfig:
    return DecodeConfig(
        gen_length=task.gen_length if config.gen_length is None else config.gen_length,
        block_length=task.block_length if config.block_length is None else config.block_length,
        block_add_threshold=config.block_add_threshold,
        decoded_token_threshold=config.decoded_token_threshold,
        forced_progress=config.forced_progress,  # type: ignore[arg-type]
        cache=parse_cache(config.cache),
        stop_at_eos=config.stop_at_eos,
        temperature=config.temperature,
        seed=config.seed,
        batch_size=config.batch_size,
    )


def _print(evaluation: Evaluation, report: dict[str, Any]) -> None:
    table = Table(title=f"{evaluation.name} on {evaluation.task}, {report['problems']} problems")
    for heading in ("policy", "accuracy, %", "tokens / forward", "published count", "tokens / s"):
        table.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=heading == "policy")
    for point in evaluation.points:
        table.add_row(
            point.policy,
            f"{point.accuracy:.1f} ± {point.standard_error:.1f}",
            f"{point.tokens_per_forward:.2f}",
            f"{point.published_tokens_per_forward:.2f}",
            f"{point.tokens_per_second:.0f}",
        )
    console = Console(markup=False)  # a path may hold brackets
    console.print(table)
    counted = "" if evaluation.count == "own" else f"{evaluation.count} count, "
    console.print(
        f"AUP {report['aup']:.1f} ({counted}y_max {report['best_accuracy']:.1f} %: {report['best_accuracy_from']})"
    )
    for name in ("tokens_per_forward", "published_tokens_per_forward"):
        console.print(f"{name}: {report['definitions'][name]}", style="dim", highlight=False)
