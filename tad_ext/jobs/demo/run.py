"""`tad demo`: the whole method on a tiny model, from random weights to one table, in minutes on a CPU.

Nothing is precomputed: every number in the table was measured in the run that prints it. Each stage is the same job
that its own command runs, so this file also shows how the jobs fit together.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tad_ext.data.tasks import get_task
from tad_ext.data.trajectories import read_trajectories
from tad_ext.decoding import DecodeConfig
from tad_ext.distillation.settings import TADSettings, TrainingSettings
from tad_ext.evaluation import (
    ConfidenceDecay,
    Evaluation,
    confidence_by_distance,
    evaluate_model,
    plot_accuracy_curve,
    plot_confidence_decay,
)
from tad_ext.files import output_folder, set_aside, write_json
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.jobs.collect.run import collect
from tad_ext.jobs.demo.config import DemoConfig
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.jobs.merge.config import MergeConfig
from tad_ext.jobs.merge.run import merge
from tad_ext.jobs.pretrain.config import PretrainConfig
from tad_ext.jobs.pretrain.run import pretrain
from tad_ext.models.device import resolve_device
from tad_ext.models.loading import load_tokenizer
from tad_ext.models.lora import load_merged
from tad_ext.ops import backend_info
from tad_ext.settings import values_of

TASK = "arithmetic"
ONE_PER_STEP, COMPARED = "topk:1", "entropy:0.5"
SWEEP = (ONE_PER_STEP, "entropy:0.1", "entropy:0.3", COMPARED, "entropy:0.65", "entropy:0.8", "entropy:1.2")
STAGES = ("pretrain", "evaluate the base", "collect", "distill", "merge", "evaluate the distilled model", "compare")
OWN_FILES = ("base", "trajectories", "distill", "distilled", "curve.png", "confidence_decay.png", "demo.json")
MARKER = "settings.json"  # stands in every folder that a demo wrote, and allows the next one to start afresh in it


def pretrain_settings(config: DemoConfig, output: Path) -> PretrainConfig:
    """The base model."""
    return PretrainConfig(
        output=str(output / "base"),
        steps=config.pretrain_steps,
        batch_size=config.pretrain_batch_size,
        learning_rate=config.pretrain_learning_rate,
        reference_share=config.pretrain_reference_share,
        seed=config.seed,
        device=config.device,
    )


def collect_settings(config: DemoConfig, output: Path) -> CollectConfig:
    """The teacher's trajectories: one token per step, with the privileged prompt."""
    return CollectConfig(
        model=str(output / "base"),
        output=str(output / "trajectories"),
        task=TASK,
        limit=config.collect_problems,
        decoding=DecodeConfig(batch_size=config.decode_batch_size),
        seed=config.seed,
        device=config.device,
    )


def distill_settings(config: DemoConfig, output: Path) -> DistillConfig:
    """The adapter."""
    return DistillConfig(
        model=str(output / "base"),
        trajectories=str(output / "trajectories"),
        output=str(output / "distill"),
        loss=TADSettings(delta=config.delta),
        rank=config.lora_rank,
        alpha=float(config.lora_rank),
        training=TrainingSettings(
            learning_rate=config.distill_learning_rate,
            max_steps=config.distill_steps,
            batch_size=config.distill_batch_size,
            accumulation=1,
            seed=config.seed,
        ),
        device=config.device,
    )


def decode_settings(config: DemoConfig) -> DecodeConfig:
    """How every evaluation of the demo decodes, but for the policy: block by block, greedy."""

    task = get_task(TASK)
    return DecodeConfig(
        gen_length=task.gen_length,
        block_length=task.block_length,
        batch_size=config.decode_batch_size,
        seed=config.seed,
    )


def demo(config: DemoConfig) -> dict[str, Any]:
    """Runs the chain, prints the table, writes demo.json, curve.png and confidence_decay.png; returns what demo.json
    holds. An earlier demo's files come back if this one does not reach its end.

    Raises ValueError/TypeError for settings that are wrong, and for an output folder that holds anything but an
    earlier demo.
    """
    config = config.with_smoke()

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    output = Path(config.output)
    resolve_device(config.device)
    distill_settings(config, output)  # its checks come before the stages, too
    _check_folder(config)
    with set_aside([output / name for name in (*OWN_FILES, MARKER)]):
        return _run_stages(config, output)


def _run_stages(config: DemoConfig, output: Path) -> dict[str, Any]:

    task, decoding = get_task(TASK), decode_settings(config)
    problems = task.problems("test", limit=config.evaluate_problems, seed=config.seed)
    write_json(output / MARKER, values_of(config))
    stages = _Stages(config)

    with stages.next():
        pretrain(pretrain_settings(config, output))
    tokenizer = load_tokenizer(output / "base")
    base = load_merged(output / "base", None, device=config.device)

    with stages.next():
        before = evaluate_model(base, tokenizer, task, problems, SWEEP, decoding, name="base", progress=True)
        teacher = evaluate_model(
            base, tokenizer, task, problems, [ONE_PER_STEP], decoding, name="teacher", prompt="teacher", progress=True
        )
    with stages.next():
        collect(collect_settings(config, output))
    with stages.next():
        adapter = distill(distill_settings(config, output)).adapter
    with stages.next():
        merge(MergeConfig(model=str(output / "base"), adapter=str(adapter), output=str(output / "distilled")))
    distilled = load_merged(output / "distilled", None, device=config.device)
    with stages.next():
        after = evaluate_model(distilled, tokenizer, task, problems, SWEEP, decoding, name="distilled", progress=True)
    with stages.next():
        _, trajectories = read_trajectories(output / "trajectories")
        decays = {
            name: confidence_by_distance(
                model,
                trajectories[: config.decay_trajectories],
                batch_size=config.decode_batch_size,
                seed=config.seed,
                progress=True,
            )
            for name, model in (("base", base), ("distilled", distilled))
        }
    report = _report(config, before, after, teacher, decays) | {"stage_seconds": stages.seconds}
    _print(stages.console, config, report, output)
    write_json(output / "demo.json", report)
    plot_accuracy_curve([before, after], output / "curve.png")
    plot_confidence_decay(decays, output / "confidence_decay.png")
    return report


class _Stages:
    """Numbers, titles and times of the stages, so that one always sees where the demo is."""

    def __init__(self, config: DemoConfig) -> None:
        self.console = Console(highlight=False, markup=False)  # a path may hold brackets
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()
        self.say(
            "smoke run: the whole chain with too little training to show the effect"
            if config.smoke
            else __doc__.split("\n")[0]
        )

    def say(self, text: object) -> None:
        self.console.print(str(text))

    @contextmanager
    def next(self) -> Iterator[None]:
        number = len(self.seconds)
        title = STAGES[number]
        begun = time.perf_counter()
        heading = Text(f"{number + 1}/{len(STAGES)} {title}", "bold").append(
            f"  ({begun - self._start:.0f} s)", "default"
        )
        self.console.rule(heading, align="left")
        yield
        self.seconds[title] = time.perf_counter() - begun
        self.say(f"{title}: {self.seconds[title]:.1f} s")


def _check_folder(config: DemoConfig) -> None:
    """Makes the output folder; one that no demo wrote is refused unless it is empty."""

    output = output_folder(config.output)
    if any(output.iterdir()) and not (output / MARKER).is_file():
        raise ValueError(
            f"output is '{output}', which holds other files; expected a new or empty folder, or an earlier demo's"
        )


def _report(
    config: DemoConfig, before: Evaluation, after: Evaluation, teacher: Evaluation, decays: dict[str, ConfidenceDecay]
) -> dict[str, Any]:

    # One y_max for both, without which their AUPs could not be compared. Where nothing was right, any value gives 0.
    best = max(before.best_accuracy(), after.best_accuracy()) or 100.0
    origin = "the best point of base and distilled"
    return {
        "settings": values_of(config),
        "base": before.to_json(best, best_accuracy_from=origin),
        "distilled": after.to_json(best, best_accuracy_from=origin),
        "teacher": teacher.to_json(best, best_accuracy_from=origin),
        "confidence_decay": {name: decay.to_json() for name, decay in decays.items()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "transformers", "peft")},
        "kernels": backend_info(),
    }


def _print(console: Console, config: DemoConfig, report: dict[str, Any], output: Path) -> None:
    table = Table(title=f"{TASK}, {report['base']['problems']} test problems: accuracy in %, tokens per forward (TPF)")
    table.add_column("")
    for heading in ("one per step", "TPF", COMPARED.replace(":", " < "), "TPF", "AUP"):
        table.add_column(heading, justify="right")
    for name in ("base", "distilled"):
        points = {point["policy"]: point for point in report[name]["points"]}
        cells = [_cells(points[policy]) for policy in (ONE_PER_STEP, COMPARED)]
        table.add_row(name, *cells[0], *cells[1], f"{report[name]['aup']:.1f}")
    table.add_row("teacher + reference", *_cells(report["teacher"]["points"][0]), "", "", "", style="dim")
    console.print()
    console.print(table)
    console.print(f"TPF: {report['base']['definitions']['tokens_per_forward']}", style="dim")
    console.print(
        f"AUP: y_max = {report['base']['best_accuracy']:.1f} %, {report['base']['best_accuracy_from']}", style="dim"
    )
    if config.smoke:
        console.print("Smoke run: these numbers show that the chain works, not what the method does.")
    console.print(
        f"{sum(report['stage_seconds'].values()):.0f} s in all; pictures, numbers and checkpoints are in {output}"
    )


def _cells(point: dict[str, Any]) -> tuple[str, str]:
    return f"{point['accuracy']:.1f} ± {point['standard_error']:.1f}", f"{point['tokens_per_forward']:.2f}"
