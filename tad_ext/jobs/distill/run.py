"""`tad distill`: trajectories and a model in, a LoRA adapter and its loss curve out."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from matplotlib.figure import Figure
from peft import PeftModel

from tad_ext.data.tasks.prompts import with_system_reference
from tad_ext.data.trajectories.files import Trajectory, read_trajectories
from tad_ext.data.trajectories.fits import check_fits
from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation.settings import objective_class
from tad_ext.distillation.trainer import StepRecord, train
from tad_ext.files import atomic_path, output_folder, rescued, successor, tried_folder, write_json
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.models.device import device_of_process
from tad_ext.models.gradient_checkpointing import enable_gradient_checkpointing
from tad_ext.models.identity import described, identity_differences, model_identity
from tad_ext.models.loading import load_config, load_model, load_tokenizer
from tad_ext.models.lora import add_lora, load_adapter, save_adapter
from tad_ext.settings import options_of, values_of

ADAPTER_FOLDER = "adapter"
CHECKPOINT_FOLDER = "checkpoint-{step:06d}"
HISTORY_FILE = "training.json"
CURVE_FILE = "loss.png"


@dataclass(frozen=True)
class DistillResult:
    """What `distill` made."""

    adapter: Path  #: folder of the trained adapter, for `load_adapter`
    history: list[StepRecord]
    seconds: float  #: of training, without loading


def distill(config: DistillConfig) -> DistillResult:
    """Train a LoRA adapter on trajectories by an objective (`tad_ext.distillation.settings`).

    Writes into `config.output`: `adapter/` (and `checkpoint-<step>/` every `save_every` steps), `training.json` with
    `settings` and `steps`, a `StepRecord` each, and `loss.png`. With `overwrite` an earlier run's files stand until
    this one is complete. Runs on one device, or on several through `accelerate launch` or `torchrun`. In float32 on a
    CPU the same settings give the same adapter bit for bit.

    Raises:
        ValueError: a setting out of range or that the objective does not have, an adapter to start from that does not
            fit (see `load_adapter`), an output that cannot be written to,
            trajectories that do not fit the model, target names that match nothing.
        FileExistsError: `output` holds an adapter or checkpoints already and `overwrite` is off.
        FloatingPointError: loss or gradients became NaN or infinite; the adapter of the last checkpoint stays.
        OSError: the adapter could not be written; it says where it is instead.
    """
    # 1. The settings, the output and the trajectories, before any work.
    objective, values = objective_class(config.objective), used_settings(config)
    names = {field.name for field in fields(objective.Settings)}
    settings = objective.Settings(**{name: value for name, value in values.items() if name in names})
    device = device_of_process(config.device)
    output = Path(config.output)
    if (output / "config.json").exists():
        raise FileExistsError(f"output {config.output!r} is a checkpoint's folder; choose another one")
    earlier = _earlier_files(output)
    if earlier and not config.overwrite:
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

    # 2. The model. Mixed precision is autocast around the objective: it depends on the model's dtype, on nothing else.
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the GPU that accelerate means by "cuda"
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    if accelerator.is_main_process:
        tried_folder(output)
    model = load_model(config.model, dtype=config.dtype, device=accelerator.device)
    if model.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype {config.dtype!r} gives a model in {model.dtype}; expected float32 or bfloat16")
    own = model_identity(config.model)
    for revision, name in {run.model_revision: run.model for run in runs}.items():
        if differing := identity_differences(revision, own, config.model):
            accelerator.print(f"note: trajectories were collected with another model ({name}): {described(differing)}")
    if config.adapter is None:
        adapted = add_lora(model, **asdict(config.lora), seed=config.training.seed)
    else:
        adapted = load_adapter(model, config.adapter, allow_other_model=config.allow_other_model, trainable=True)
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(adapted)

    # 3. The training, of which the first process writes everything down.
    mask, ends = model.config.mask_token_id, model.config.eos_token_ids or ()
    states = TrajectoryStates(chosen, mask_token_id=mask, eos_token_ids=ends, tail=config.eos_tail)
    dropped = len(trajectories) - len(chosen)
    accelerator.print(f"distilling {len(states)} states of {len(chosen)} trajectories ({dropped} wrong ones left out)")
    records = train(objective(adapted, settings), states, config.training, accelerator)
    started = time.perf_counter()
    history = _write_down(records, adapted, output, config) if accelerator.is_main_process else list(records)
    seconds = time.perf_counter() - started
    accelerator.wait_for_everyone()
    accelerator.print(f"adapter written to {output / ADAPTER_FOLDER} ({len(history)} steps, {seconds:.0f} s)")
    return DistillResult(output / ADAPTER_FOLDER, history, seconds)


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
    for option in options_of(DistillConfig):
        is_of_adapter = option.group == "lora"
        if option.group in ("", "training") or option.name in own or (is_of_adapter and config.adapter is None):
            continue
        value = values.pop(option.name)
        if option.name in config.given or value != option.default:
            reason = f"objective {config.objective!r} has no such setting"
            if is_of_adapter:
                reason = f"the adapter to start from, {config.adapter!r}, has its own, so leave it out"
            raise ValueError(f"{option.name} is {value!r}; {reason}")
    return values


def _write_down(
    records: Iterator[StepRecord], adapted: PeftModel, output: Path, config: DistillConfig
) -> list[StepRecord]:
    """All records of the training, during and after which its files are written."""
    history: list[StepRecord] = []
    save = partial(save_adapter, adapted)
    with successor(output_folder(output), _earlier_files(output)) as folder:
        for record in records:
            history.append(record)
            if config.save_every and record.step % config.save_every == 0:
                rescued(save, folder / CHECKPOINT_FOLDER.format(step=record.step))
                _write_history(folder, config, history)
        rescued(save, folder / ADAPTER_FOLDER)  # what the training was for comes first
        _write_history(folder, config, history)
        _write_curve(folder / CURVE_FILE, history, objective_class(config.objective).parts)
    return history


def _earlier_files(output: Path) -> list[Path]:
    """What an earlier run left in the folder."""
    folders = [output / ADAPTER_FOLDER, *sorted(output.glob("checkpoint-*"))]
    return [path for path in [*folders, output / HISTORY_FILE, output / CURVE_FILE] if path.exists()]


def _write_history(output: Path, config: DistillConfig, history: list[StepRecord]) -> None:
    report = {"settings": used_settings(config), "steps": [asdict(record) for record in history]}
    write_json(output / HISTORY_FILE, report)


def _write_curve(path: Path, history: list[StepRecord], labels: Mapping[str, str]) -> None:
    """Loss against optimizer steps, with its parts, which may be in different units."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = [record.step for record in history]
    axes.plot(steps, [record.loss for record in history], label="loss", color="black")
    for name, label in labels.items():
        axes.plot(steps, [record.parts[name] for record in history], label=label, alpha=0.7)
    axes.set(xlabel="optimizer step", ylabel="loss and its parts", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
