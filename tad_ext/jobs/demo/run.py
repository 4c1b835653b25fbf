"""`tad demo`: the whole method on a tiny model, from random weights to one table, in minutes on a CPU.

Nothing is precomputed: every number in the table was measured in the run that prints it. Each stage is the same job
that its own command runs, so this file also shows how the jobs fit together.
"""

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tad_ext.data.tasks.prompts import UNPRIVILEGED
from tad_ext.data.tasks.task import get_task
from tad_ext.data.trajectories.files import read_trajectories
from tad_ext.decoding import DecodeConfig
from tad_ext.distillation.adapter_run import ADAPTER_FOLDER
from tad_ext.distillation.lora_settings import LoRASettings
from tad_ext.distillation.settings import TADSettings, TrainingSettings
from tad_ext.evaluation import (
    DecaySettings,
    Evaluation,
    accuracy_at,
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
from tad_ext.models.loading import load_model, load_tokenizer
from tad_ext.models.lora import load_merged
from tad_ext.ops import backend_info
from tad_ext.settings import values_of

TASK = "arithmetic"
ONE_PER_STEP, COMPARED = "topk:1", "entropy:0.5"
SWEEP = (ONE_PER_STEP, "entropy:0.1", "entropy:0.3", COMPARED, "entropy:0.65", "entropy:0.8", "entropy:1.2")
SPEEDS = (2.0, 3.0)  # tokens per forward at which accuracies are compared
STAGES = (
    "pretrain", "evaluate the base", "collect", "distill", "merge", "evaluate the distilled model",
    "the same without references", "compare",
)  # fmt: skip
PLAIN = "without references"
OWN_FILES = (
    "base", "trajectories", "distill", "distilled", "trajectories-plain", "distill-plain", "curve.png",
    "confidence_decay.png", "demo.json",
)  # fmt: skip
MARKER = "settings.json"  # stands in every folder that a demo wrote, and allows the next one to start afresh in it


def demo(config: DemoConfig) -> dict[str, Any]:
    """Runs the chain, prints the table, writes demo.json, curve.png and confidence_decay.png; returns what demo.json
    holds. An earlier demo's files come back if this one does not reach its end.

    Raises ValueError/TypeError for wrong settings, ValueError for an output that holds anything but an earlier demo.
    """
    config = config.with_smoke()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    resolve_device(config.device)
    job_settings(config)  # their checks come before the stages, too
    output = output_folder(config.output)
    if any(output.iterdir()) and not (output / MARKER).is_file():
        raise ValueError(
            f"output is '{output}', which holds other files; expected a new or empty folder, or an earlier demo's"
        )
    with set_aside([output / name for name in (*OWN_FILES, MARKER)]):
        return _run_stages(config, output)


@dataclass(frozen=True)
class Jobs:
    """The settings of the demo's jobs."""

    pretraining: PretrainConfig
    collection: CollectConfig
    distillation: DistillConfig
    merging: MergeConfig
    plain_collection: CollectConfig  #: the same without references: of the base's own right answers,
    plain_distillation: DistillConfig  #: and with a teacher that sees what its student sees


def job_settings(config: DemoConfig) -> Jobs:
    """A base model, its trajectories, an adapter, and the model that it is merged into; and again without references.

    Raises ValueError/TypeError for wrong settings.
    """

    def folder(name: str) -> str:
        return str(Path(config.output) / name)

    base, trajectories, adapter = folder("base"), folder("trajectories"), folder("distill")
    shared: dict[str, Any] = {"seed": config.seed, "device": config.device}
    of_base = {name: value for name, value in values_of(config).items() if name.startswith("pretrain_")}
    named = {name.removeprefix("pretrain_"): value for name, value in of_base.items()}
    collection = CollectConfig(
        model=base,
        output=trajectories,
        task=TASK,
        limit=config.collect_problems,
        decoding=DecodeConfig(batch_size=config.decode_batch_size),
        **shared,
    )
    distillation = DistillConfig(
        model=base,
        trajectories=(trajectories,),
        output=adapter,
        loss=TADSettings(delta=config.delta, normalization="tokens"),
        lora=LoRASettings(rank=config.lora_rank, alpha=float(config.lora_rank)),
        training=TrainingSettings(
            learning_rate=config.distill_learning_rate,
            lr_schedule="cosine",
            max_steps=config.distill_steps,
            batch_size=config.distill_batch_size,
            accumulation=1,
            seed=config.seed,
        ),
        device=config.device,
    )
    plain = folder("trajectories-plain")
    return Jobs(
        pretraining=PretrainConfig(output=base, **named, **shared),
        collection=collection,
        distillation=distillation,
        merging=MergeConfig(model=base, adapter=str(Path(adapter) / ADAPTER_FOLDER), output=folder("distilled")),
        plain_collection=replace(collection, output=plain, teacher_prompt=UNPRIVILEGED),
        plain_distillation=replace(distillation, trajectories=(plain,), output=folder("distill-plain")),
    )


def _run_stages(config: DemoConfig, output: Path) -> dict[str, Any]:
    jobs = job_settings(config)
    console = Console(highlight=False, markup=False)  # a path may hold brackets
    smoke = "smoke run: the whole chain with too little training to show the effect"
    console.print(smoke if config.smoke else __doc__.split("\n")[0])
    write_json(output / MARKER, values_of(config))
    task = get_task(TASK)
    problems = task.problems("test", limit=config.evaluate_problems, seed=config.seed)
    decoding = DecodeConfig(  # block by block, greedy
        task.gen_length, task.block_length, batch_size=config.decode_batch_size, seed=config.seed
    )
    seconds: dict[str, float] = {}
    stage = partial(_stage, console, seconds)

    def measured(model: Any, name: str, policies: Sequence[str], prompt: str = "student") -> Evaluation:
        return evaluate_model(
            model, tokenizer, task, problems, policies, decoding, name=name, prompt=prompt, progress=True
        )

    with stage():
        pretrain(jobs.pretraining)
    tokenizer = load_tokenizer(jobs.merging.model)
    base = load_model(jobs.merging.model, device=config.device)
    with stage():
        before = measured(base, "base", SWEEP)
        teacher = measured(base, "teacher", [ONE_PER_STEP], "teacher")
    with stage():
        collect(jobs.collection)
    with stage():
        distill(jobs.distillation)
    with stage():
        merge(jobs.merging)
    distilled = load_model(jobs.merging.output, device=config.device)
    with stage():
        after = measured(distilled, "distilled", SWEEP)
    with stage():
        if collect(jobs.plain_collection).kept:
            adapter = distill(jobs.plain_distillation).adapter
            plain = measured(load_merged(jobs.merging.model, adapter, device=config.device), PLAIN, SWEEP)
        else:
            console.print("the base alone gave no right answer: without references there is nothing to learn from")
            plain = replace(before, name=PLAIN)
    with stage():
        trajectories = read_trajectories(jobs.collection.output)[1][: config.decay_trajectories]
        drawn = DecaySettings(batch_size=config.decode_batch_size, seed=config.seed)
        models = {"base": base, "distilled": distilled}
        decays = {
            name: confidence_by_distance(model, trajectories, drawn, progress=True) for name, model in models.items()
        }

    # One y_max for all, without which their AUPs could not be compared. Where nothing was right, any value gives 0.
    sides = {"base": before, "distilled": after, PLAIN: plain, "teacher": teacher}
    best = max(side.best_accuracy() for side in (before, after, plain)) or 100.0
    report = {
        "settings": values_of(config),
        **{name: _measurements(side, best) for name, side in sides.items()},
        "confidence_decay": {name: decay.to_json() for name, decay in decays.items()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "transformers", "peft")},
        "kernels": backend_info(),
        "stage_seconds": seconds,
    }
    _print(console, config, report, output)
    write_json(output / "demo.json", report)
    plot_accuracy_curve([before, after, plain], output / "curve.png")
    plot_confidence_decay(decays, output / "confidence_decay.png")
    return report


def _measurements(side: Evaluation, best: float) -> dict[str, Any]:
    """What demo.json holds of a model; `accuracy_at`: percent by tokens per forward, null if it is never so fast."""
    at = {f"{speed:g}": accuracy_at(side.curve(), speed) for speed in SPEEDS}
    return side.to_json(best, best_accuracy_from="the best point of all but the teacher") | {"accuracy_at": at}


@contextmanager
def _stage(console: Console, seconds: dict[str, float]) -> Iterator[None]:
    """Says what begins, so that one always sees where the demo is, and notes how many seconds it took."""
    number, title = len(seconds), STAGES[len(seconds)]
    heading = Text(f"{number + 1}/{len(STAGES)} {title}", "bold")
    console.rule(heading.append(f"  ({sum(seconds.values()):.0f} s)", "default"), align="left")
    begun = time.perf_counter()
    yield
    seconds[title] = time.perf_counter() - begun
    console.print(f"{title}: {seconds[title]:.1f} s")


def _print(console: Console, config: DemoConfig, report: dict[str, Any], output: Path) -> None:
    base, teacher = report["base"], report["teacher"]
    speeds = [f"at {speed:g}" for speed in SPEEDS]
    headings = ("one per step", "TPF", COMPARED.replace(":", " < "), "TPF", *speeds, "AUP")
    table = Table(
        Column(),
        *(Column(heading, justify="right") for heading in headings),
        title=f"{TASK}, {base['problems']} test problems: accuracy in %, tokens per forward (TPF)",
    )
    for name in ("base", "distilled", PLAIN):
        side = report[name]
        points = {point["policy"]: point for point in side["points"]}
        at = ("-" if one is None else f"{one:.1f}" for one in side["accuracy_at"].values())
        table.add_row(name, *_cells(points[ONE_PER_STEP]), *_cells(points[COMPARED]), *at, f"{side['aup']:.1f}")
    table.add_row("teacher + reference", *_cells(teacher["points"][0]), *[""] * (len(headings) - 2), style="dim")
    console.print()
    console.print(table)
    console.print(f"TPF: {base['definitions']['tokens_per_forward']}", style="dim")
    told = "best accuracy at so many tokens per forward or more, linear between the thresholds of the sweep"
    console.print(f"{', '.join(speeds)}: {told}", style="dim")
    console.print(f"AUP: y_max = {base['best_accuracy']:.1f} %, {base['best_accuracy_from']}", style="dim")
    if config.smoke:
        console.print("Smoke run: these numbers show that the chain works, not what the method does.")
    seconds = sum(report["stage_seconds"].values())
    console.print(f"{seconds:.0f} s in all; pictures, numbers and checkpoints are in {output}")


def _cells(point: dict[str, Any]) -> tuple[str, str]:
    return f"{point['accuracy']:.1f} ± {point['standard_error']:.1f}", f"{point['tokens_per_forward']:.2f}"
