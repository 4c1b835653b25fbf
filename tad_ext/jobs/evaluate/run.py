"""`tad evaluate`: a task's problems decoded one token per step and at a sweep of thresholds, and judged."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from tad_ext.evaluation.measure import evaluate_model
from tad_ext.evaluation.plots import plot_accuracy_curve
from tad_ext.evaluation.results import ONE_PER_STEP, Evaluation
from tad_ext.evaluation.sweep import sweep
from tad_ext.files import add_json_line, json_lines, output_folder, successor, tried_folder, write_json, write_text
from tad_ext.jobs.evaluate.config import EvaluateConfig
from tad_ext.models.hub import hub_note
from tad_ext.models.identity import model_fingerprint
from tad_ext.models.loading import load_tokenizer
from tad_ext.settings import values_of

RESPONSES, REPORT, CURVE = "responses.jsonl", "evaluation.json", "accuracy_curve.png"


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Writes evaluation.json, responses.jsonl and accuracy_curve.png; returns what evaluation.json holds.

    Raises ValueError and TypeError for a wrong setting, before the model is loaded, FileNotFoundError for no such
    problem file; what `load_merged` raises.
    """
    # 1. Everything that can be wrong, before the model is loaded.
    one_per_step = [ONE_PER_STEP] if config.one_per_step else []
    policies = list(dict.fromkeys(one_per_step + sweep(config.policy, config.thresholds)))
    if not policies:
        raise ValueError("thresholds is empty and one_per_step is false; expected at least one decoding run")
    task, problems, lengths = config.problems(config.decoding.seed)
    stops = task.stop_strings if config.stop_strings is None else config.stop_strings
    decoding = replace(config.decoding, **lengths, stop_strings=stops)
    if (Path(config.output) / "config.json").exists():
        raise ValueError(f"output is '{config.output}', a checkpoint's folder; expected another one")
    tried_folder(config.output)
    tokenizer = load_tokenizer(config.model)
    model = config.load()

    name = Path(config.adapter or config.model).resolve().name
    output = output_folder(config.output)
    own_files = (output / one for one in (RESPONSES, REPORT, CURVE))
    with successor(output, [file for file in own_files if file.exists()]) as folder:
        # 2. The responses, written as they come.
        evaluation = evaluate_model(
            model, tokenizer, task, problems, policies, decoding, name=name, prompt=config.prompt, progress=True,
            each=partial(add_json_line, folder / RESPONSES),
        )  # fmt: skip

        # 3. The numbers, and the responses in the order of the problems.
        evaluation.count = config.count
        report = evaluation.to_json(config.best_accuracy) | {
            "model_fingerprint": model_fingerprint(config.model),
            **hub_note(config.model),
            "settings": values_of(config) | lengths | {"stop_strings": list(stops)},
        }
        _print(evaluation, report)  # first: a terminal is never full
        write_json(folder / REPORT, report)
        write_text(folder / RESPONSES, json_lines(evaluation.responses))
        plot_accuracy_curve([evaluation], folder / CURVE, best_accuracy=config.best_accuracy)
    print(f"written to {output}")
    return report


def _print(evaluation: Evaluation, report: dict[str, Any]) -> None:
    headings = ("accuracy, %", "tokens / forward", "published count", "tokens / s")
    table = Table(
        Column("policy", no_wrap=True),
        *(Column(heading, justify="right") for heading in headings),
        title=f"{evaluation.name} on {evaluation.task}, {report['problems']} problems",
    )
    for point in evaluation.points:
        accuracy = f"{point.accuracy:.1f} ± {point.standard_error:.1f}"
        published = f"{point.published_tokens_per_forward:.2f}"
        speed = f"{point.tokens_per_second:.0f}"
        table.add_row(point.policy, accuracy, f"{point.tokens_per_forward:.2f}", published, speed)
    console = Console(markup=False)  # a path may hold brackets
    console.print(table)
    counted = "" if evaluation.count == "own" else f"{evaluation.count} count, "
    console.print(
        f"AUP {report['aup']:.1f} ({counted}y_max {report['best_accuracy']:.1f} %: {report['best_accuracy_from']})"
    )
    for name in ("tokens_per_forward", "published_tokens_per_forward"):
        console.print(f"{name}: {report['definitions'][name]}", style="dim", highlight=False)
