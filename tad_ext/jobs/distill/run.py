"""`tad distill`: trajectories and a model in, a LoRA adapter and its loss curve out."""

import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from tad_ext.data.tasks.prompts import with_system_reference
from tad_ext.data.trajectories.files import Trajectory, read_trajectories
from tad_ext.data.trajectories.fits import check_fits
from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation.samples import Sample
from tad_ext.distillation.settings import objective_class
from tad_ext.distillation.trainer import NotFiniteError, StepRecord, Trainer
from tad_ext.files import output_folder, rescued, successor, tried_folder, write_json
from tad_ext.interrupts import shielded
from tad_ext.jobs.distill.card import Card
from tad_ext.jobs.distill.checkpoints import (
    BEST_FOLDER,
    EVALUATIONS_FILE,
    SPEED_FILE,
    STEPS_FILE,
    Progress,
    checkpoints,
    latest,
    restore,
    run_values,
)
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.curve import write_curve
from tad_ext.jobs.distill.held_out import HeldOut, records
from tad_ext.jobs.distill.tracking import tracked, tracker_options
from tad_ext.models.device import device_of_process
from tad_ext.models.gradient_checkpointing import enable_gradient_checkpointing
from tad_ext.models.identity import described, identity_differences, model_identity
from tad_ext.models.loading import load_config, load_model, load_tokenizer
from tad_ext.models.lora import add_lora, load_adapter, save_adapter
from tad_ext.models.sharding import keep_out_of_ddp, shard_frozen_layers
from tad_ext.settings import options_of, values_of

ADAPTER_FOLDER = "adapter"
HISTORY_FILE = "training.json"
CURVE_FILE = "loss.svg"
NOT_FINITE_FILE = "not_finite.json"


@dataclass(frozen=True)
class DistillResult:
    """What `distill` made."""

    adapter: Path  #: folder of the trained adapter, for `load_adapter`
    history: list[StepRecord]
    seconds: float  #: of training, without loading


def distill(config: DistillConfig) -> DistillResult:
    """Train a LoRA adapter on trajectories by an objective (`tad_ext.distillation.settings`).

    Writes into `config.output`: `adapter/`, `training.json` with `settings` and `steps`, a `StepRecord` each, and
    `loss.svg`; `speed.jsonl`; with `evaluate_every` also `evaluations.jsonl` and `best/`, the adapter of the highest
    accuracy, then tokens per forward; meanwhile `steps.jsonl`, and `checkpoint-<step>/` every `save_every` steps and
    when something stops it. Called again it goes on from the last of these, and ends with the weights of a run that
    was not stopped. With `overwrite` an earlier run's files stand until this one is complete. Runs on one device, or on
    several through `accelerate launch` or `torchrun`. In float32 on a CPU the same settings give the same adapter bit
    for bit.

    Raises:
        ValueError: a setting out of range or that the objective does not have, an output that cannot be written to or
            holds checkpoints of other settings, trajectories that do not fit the model, target names that match
            nothing, an adapter to start from that does not fit (see `load_adapter`), a tracker that is not installed,
            problems of the evaluation that are trained on, a way to distribute the model that is not supported.
        FileExistsError: `output` holds an adapter already and `overwrite` is off.
        FloatingPointError: loss or gradients became NaN or infinite; the last checkpoint stays, and `not_finite.json`
            names the states of the step.
        OSError: the adapter could not be written; it says where it is instead.
    """
    # 1. The settings, the output and the trajectories, before any work.
    objective, values = objective_class(config.objective), used_settings(config)
    names = {field.name for field in fields(objective.Settings)}
    settings = objective.Settings(**{name: value for name, value in values.items() if name in names})
    trackers = tracker_options(config.tracker or (), config.output)
    device = device_of_process(config.device)
    output = Path(config.output)
    if (output / "config.json").exists():
        raise FileExistsError(f"output {config.output!r} is a checkpoint's folder; choose another one")
    earlier = _earlier_files(output)
    if earlier and not config.overwrite and not (output / STEPS_FILE).exists():  # which the end of a run removes
        raise FileExistsError(
            f"output {config.output!r} holds {earlier[0].name} already; choose another folder, or set overwrite"
        )
    runs, trajectories = read_trajectories(*config.trajectories)
    chosen = [trajectory for trajectory in trajectories if trajectory.correct or config.keep == "all"]
    if not chosen:
        wanted = "trajectory" if config.keep == "all" else "trajectory with a correct answer"
        raise ValueError(f"trajectories in {', '.join(config.trajectories)} hold no {wanted}")
    tokenizer, model_config = load_tokenizer(config.model), load_config(config.model)
    if config.eos_tail != "all" and not model_config.eos_token_ids:
        raise ValueError(f"eos_tail is {config.eos_tail!r}, and the model has no end-of-sequence tokens; expected all")
    if config.teacher_prompt != "collected":
        chosen = [replace(one, teacher_prompt_ids=_teacher_prompt(one, config, tokenizer)) for one in chosen]
    check_fits(", ".join(config.trajectories), runs[0], chosen, model_config, tokenizer)
    held_out = HeldOut.of(config, chosen, model_config, tokenizer)
    mask, ends = model_config.mask_token_id, model_config.eos_token_ids or ()
    states = TrajectoryStates(chosen, mask_token_id=mask, eos_token_ids=ends, tail=config.eos_tail)

    # 2. The processes, and what an earlier one has left to go on from.
    accelerator = _accelerator(device, trackers)
    own = model_identity(config.model)
    size = config.training.batch_size * config.training.accumulation * accelerator.num_processes
    run = run_values(values, chosen, own, size)
    checkpoint = None if config.overwrite else latest(output, run)
    if accelerator.is_main_process:
        tried_folder(output)

    # 3. The model. Mixed precision is autocast around the objective: it depends on the model's dtype, on nothing else.
    sharded = config.shard_model and accelerator.num_processes > 1
    model = load_model(config.model, dtype=config.dtype, device="cpu" if sharded else accelerator.device)
    if model.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype {config.dtype!r} gives a model in {model.dtype}; expected float32 or bfloat16")
    for revision, name in {run.model_revision: run.model for run in runs}.items():
        if differing := identity_differences(revision, own, config.model):
            accelerator.print(f"note: trajectories were collected with another model ({name}): {described(differing)}")
    if config.adapter is None:
        adapted = add_lora(model, **asdict(config.lora), seed=config.training.seed)
    else:
        adapted = load_adapter(model, config.adapter, allow_other_model=config.allow_other_model, trainable=True)
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(adapted)
    trained = objective(adapted, settings)
    if sharded:
        shard_frozen_layers(adapted, accelerator.device)
        keep_out_of_ddp(trained)

    # 4. The training, of which the first process writes everything down.
    trainer = Trainer(trained, states, config.training, accelerator)
    dropped = len(trajectories) - len(chosen)
    accelerator.print(f"distilling {len(states)} states of {len(chosen)} trajectories ({dropped} wrong ones left out)")
    if checkpoint is not None:
        restore(trainer, checkpoint)
        accelerator.print(f"going on from {checkpoint}")
    card = Card(
        settings=values,
        objective=sorted(names),
        identity=own,
        runs=runs,
        data=run["trajectories"],
        trajectories=len(chosen),
        states=sum(states.counts),
    )
    started = time.perf_counter()
    with tracked(accelerator, values):
        if accelerator.is_main_process:
            history = _write_down(trainer, held_out, run, card, config)
        else:
            history = list(records(trainer, held_out, lambda _: None))
    seconds = time.perf_counter() - started
    accelerator.wait_for_everyone()
    accelerator.print(f"adapter written to {output / ADAPTER_FOLDER} ({len(history)} steps, {seconds:.0f} s)")
    return DistillResult(output / ADAPTER_FOLDER, history, seconds)


def _accelerator(device: torch.device, trackers: dict[str, Any]) -> Accelerator:
    """Of this process; ValueError for plugins under which the loop would train something else, or nothing."""
    for plugin in ("DeepSpeed", "FSDP", "Megatron_LM"):
        if os.environ.get(f"ACCELERATE_USE_{plugin.upper()}", "").lower() in ("1", "true", "yes"):
            raise ValueError(
                f"accelerate's {plugin} plugin is on: expected processes without a plugin, as torchrun starts them, "
                f"or accelerate by tad_ext/configs/accelerate/8-gpus.yaml; shard_model spreads the model over them"
            )
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the GPU that accelerate means by "cuda"
    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True)  # no second copy of the gradients
    return Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[ddp], **trackers)


def _teacher_prompt(trajectory: Trajectory, config: DistillConfig, tokenizer: Any) -> np.ndarray:
    """What the teacher sees of a trajectory instead of the prompt that it was collected with."""
    own = trajectory.prompt_ids
    if config.teacher_prompt == "none":
        return own
    return np.array(with_system_reference(tokenizer, own.tolist(), trajectory.reference))


def used_settings(config: DistillConfig) -> dict[str, Any]:
    """All settings but those that other objectives have and the chosen one has not, or that an adapter to start from
    has itself; ValueError if one of these was given."""
    own = {field.name for field in fields(objective_class(config.objective).Settings)}
    values = values_of(config)
    groups = ("", "training", "evaluation", *(["lora"] if config.adapter is None else []))
    for option in options_of(DistillConfig):
        if option.group in groups or option.name in own:
            continue
        value = values.pop(option.name)
        if option.name in config.given or value != option.default:
            reason = f"objective {config.objective!r} has no such setting"
            if option.group == "lora":
                reason = f"the adapter to start from, {config.adapter!r}, has its own, so leave it out"
            raise ValueError(f"{option.name} is {value!r}; {reason}")
    return values


def _write_down(
    trainer: Trainer, held_out: HeldOut | None, run: dict[str, Any], card: Card, config: DistillConfig
) -> list[StepRecord]:
    """All records of the training, during and after which its files are written."""
    output, objective = output_folder(config.output), trainer.objective
    with successor(output, _earlier_files(output) if config.overwrite else ()) as folder:
        progress = Progress(folder, trainer, run, card, keep=config.keep_checkpoints)
        try:
            for record in records(trainer, held_out, progress.measured):
                progress.add(record)
                if config.save_every and record.step % config.save_every == 0 and record.step < trainer.total_steps:
                    progress.save()
        except NotFiniteError as error:
            write_json(folder / NOT_FINITE_FILE, [_described(sample) for sample in error.samples])
            error.add_note(f"the states of this step are named in {folder / NOT_FINITE_FILE}")
            raise
        except BaseException:  # a signal, another rank that is gone, a device that fails
            with shielded(), suppress(Exception):
                progress.save()
            raise
        history = progress.history
        save = partial(save_adapter, objective.model, also=progress.write_card)
        rescued(save, folder / ADAPTER_FOLDER)  # what it was for comes first
        report = {"settings": used_settings(config), "steps": [asdict(record) for record in history]}
        write_json(folder / HISTORY_FILE, report)
        write_curve(folder / CURVE_FILE, history, objective.parts)
        (folder / STEPS_FILE).unlink()
    return history


def _described(sample: Sample) -> dict[str, Any]:
    """Which state it is."""
    state = sample.state
    entries = int((state.steps_to_reveal > 0).sum())
    name = {name: getattr(state.trajectory, name) for name in ("task", "id", "sample")}
    return {**name, "entries": entries, "canvas": state.canvas.tolist()}


def _earlier_files(output: Path) -> list[Path]:
    """What an earlier run left in the folder."""
    names = (HISTORY_FILE, CURVE_FILE, STEPS_FILE, SPEED_FILE, EVALUATIONS_FILE, BEST_FOLDER, NOT_FINITE_FILE)
    files = [output / name for name in names]
    return [path for path in [output / ADAPTER_FOLDER, *checkpoints(output), *files] if path.exists()]
