"""`tad evaluate`: a task's problems decoded one token per step and at a sweep of thresholds, and judged."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tad_ext.data.tasks import get_task
from tad_ext.data.trajectories import read_trajectories
from tad_ext.decoding.policies import policies_by_name
from tad_ext.evaluation.confidence import confidence_by_distance
from tad_ext.evaluation.measure import evaluate_model
from tad_ext.evaluation.plots import plot_accuracy_curve, plot_confidence_decay
from tad_ext.evaluation.results import ONE_PER_STEP, Evaluation
from tad_ext.evaluation.sweep import sweep
from tad_ext.files import add_json_line, json_lines, output_folder, successor, tried_folder, write_json, write_text
from tad_ext.jobs.evaluate.config import EvaluateConfig
from tad_ext.models.identity import model_fingerprint
from tad_ext.models.loading import load_tokenizer
from tad_ext.models.lora import load_merged
from tad_ext.settings import values_of

RESPONSES, REPORT = "responses.jsonl", "evaluation.json"
ACCURACY_CURVE, DECAY_CURVE = "accuracy_curve.png", "confidence_decay.png"
OWN_FILES = (RESPONSES, REPORT, ACCURACY_CURVE, DECAY_CURVE)


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
    task = get_task(config.task, data=config.data, teacher_prompt_form=config.teacher_prompt)
    lengths = {
        "gen_length": config.gen_length or task.gen_length,
        "block_length": config.block_length or task.block_length,
    }
    decoding = replace(config.decoding, **lengths)  # type: ignore[arg-type]
    problems = task.problems(config.split, limit=config.limit, seed=decoding.seed)
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
        evaluation = evaluate_model(
            model, tokenizer, task, problems, policies, decoding, name=name, prompt=config.prompt, progress=True,
            each=partial(add_json_line, folder / RESPONSES),
        )  # fmt: skip
        evaluation.count = config.count
        report = evaluation.to_json(config.best_accuracy) | {
            "model_fingerprint": model_fingerprint(config.model),
            "settings": values_of(config) | lengths,
        }
        _print(evaluation, report)  # first: a terminal is never full
        write_json(folder / REPORT, report)
        write_text(folder / RESPONSES, json_lines(evaluation.responses))  # now in the order of the problems
        if trajectories:
            decay = confidence_by_distance(model, trajectories, seed=decoding.seed, progress=True)
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
    return policies


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
