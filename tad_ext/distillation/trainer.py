"""The distillation loop: trajectories and a model in, a LoRA adapter and its loss curve out.

Every rank draws the same order of states, cuts it into the same global batches and takes its share of their
micro-batches, so that what a mean is taken over is known everywhere without communication. Only gradients (DDP) and
reported losses are exchanged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from matplotlib.figure import Figure
from peft import PeftModel
from torch import nn
from tqdm import tqdm

from tad_ext.data.states import StateBatch, TrajectoryStates, collate
from tad_ext.data.trajectories import read_trajectories
from tad_ext.distillation.config import DistillConfig
from tad_ext.distillation.dataset import check_fits, shuffled
from tad_ext.distillation.registry import objective_class
from tad_ext.files import atomic_path, output_folder, rescued, successor, tried_folder, write_json
from tad_ext.models.device import resolve_device
from tad_ext.models.identity import described, identity_differences, model_identity
from tad_ext.models.loading import load_model, load_tokenizer
from tad_ext.models.lora import add_lora, save_adapter

ADAPTER_FOLDER = "adapter"
CHECKPOINT_FOLDER = "checkpoint-{step:06d}"
HISTORY_FILE = "training.json"
CURVE_FILE = "loss.png"


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step, over all ranks; an entry of `steps` in training.json."""

    step: int  #: 1-based
    epoch: float  #: passes over the data after this step
    loss: float
    parts: dict[str, float]  #: of the loss, by the names of `Objective.parts`: {"ce": 1.9, "kl": 0.4}
    totals: dict[str, int]  #: of `Objective.totals`: {"micro_batches": 8, "states": 32, "near": 250, "distant": 3846}
    learning_rate: float
    grad_norm: float  #: before clipping


@dataclass(frozen=True)
class DistillResult:
    """What `distill` made."""

    adapter: Path  #: folder of the trained adapter, for `load_adapter`
    history: list[StepRecord]
    seconds: float  #: of training, without loading


def distill(config: DistillConfig) -> DistillResult:
    """Train a LoRA adapter on trajectories by an objective (`tad_ext.distillation.registry`).

    Writes into `config.output`: `adapter/` (and `checkpoint-<step>/` every `save_every` steps), `training.json` with
    `settings` and `steps`, a `StepRecord` each, and `loss.png`. With `overwrite` an earlier run's files stand until
    this one is complete. Runs on one device, or on several through `accelerate launch` or `torchrun`. In float32 on a
    CPU the same settings give the same adapter bit for bit.

    Raises:
        ValueError: a setting out of range, an output that cannot be written to, trajectories that do not fit the model,
            target names that match nothing.
        FileExistsError: `output` holds an adapter or checkpoints already and `overwrite` is off.
        FloatingPointError: loss or gradients became NaN or infinite; the adapter of the last checkpoint stays.
        OSError: the adapter could not be written; it says where it is instead.
    """
    config.validate()
    device = resolve_device(config.device)
    output = Path(config.output)
    if (output / "config.json").exists():
        raise FileExistsError(f"output {config.output!r} is a checkpoint's folder; choose another one")
    earlier = _earlier_files(output)
    if earlier and not config.overwrite:
        raise FileExistsError(
            f"output {config.output!r} holds {earlier[0].name} already; choose another folder, or set overwrite"
        )
    metadata, trajectories = read_trajectories(config.trajectories)
    chosen = [trajectory for trajectory in trajectories if trajectory.correct or config.keep == "all"]
    if not chosen:
        wanted = "trajectory" if config.keep == "all" else "trajectory with a correct answer"
        raise ValueError(f"trajectories {config.trajectories!r} hold no {wanted}")
    tokenizer = load_tokenizer(config.model)

    # Mixed precision is autocast around the objective, so that it depends on the model's dtype and on nothing else.
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    if accelerator.is_main_process:
        tried_folder(output)
    model = load_model(config.model, dtype=config.dtype, device=accelerator.device)
    if model.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype {config.dtype!r} gives a model in {model.dtype}; expected float32 or bfloat16")
    check_fits(metadata, chosen, model.config, tokenizer)
    differing = identity_differences(metadata.model_revision, model_identity(config.model), config.model)
    if differing:
        accelerator.print(
            f"note: the trajectories were collected with another model ({metadata.model}): {described(differing)}"
        )
    states = TrajectoryStates(chosen, mask_token_id=metadata.mask_token_id)
    adapted = add_lora(
        model,
        rank=config.rank,
        alpha=config.alpha,
        dropout=config.dropout,
        target_modules=config.target_modules,
        seed=config.seed,
    )
    dropped = len(trajectories) - len(chosen)
    accelerator.print(f"distilling {len(states)} states of {len(chosen)} trajectories ({dropped} wrong ones left out)")

    records = _train(config, accelerator, adapted, states)
    started = time.perf_counter()
    history = _write_down(records, adapted, output, config) if accelerator.is_main_process else list(records)
    seconds = time.perf_counter() - started
    accelerator.wait_for_everyone()
    accelerator.print(f"adapter written to {output / ADAPTER_FOLDER} ({len(history)} steps, {seconds:.0f} s)")
    return DistillResult(output / ADAPTER_FOLDER, history, seconds)


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


def _train(
    config: DistillConfig, accelerator: Accelerator, model: PeftModel, states: TrajectoryStates
) -> Iterator[StepRecord]:
    """Train `model` in place, yielding after every optimizer step."""
    torch.manual_seed(config.seed + 1 + accelerator.process_index)  # dropout: each rank its own
    model.train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    objective = objective_class(config.objective)(model, config.settings)
    module, optimizer = accelerator.prepare(objective, optimizer)

    global_size = config.batch_size * config.accumulation * accelerator.num_processes
    steps_per_epoch = math.ceil(len(states) / global_size)
    total_steps = config.max_steps or config.epochs * steps_per_epoch
    batches = _global_batches(len(states), global_size, seed=config.seed)
    progress = tqdm(range(total_steps), desc="distilling", unit="step", disable=not accelerator.is_main_process)
    for step in progress:
        indices = next(batches)
        rate = config.learning_rate_at(step, total_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        micro_batches = [indices[at : at + config.batch_size] for at in range(0, len(indices), config.batch_size)]
        totals = objective.totals(states, micro_batches)

        mine = _share_of_rank(accelerator, states, micro_batches)
        losses = accelerator.reduce(_accumulate(accelerator, module, mine, totals, objective.parts), reduction="sum")
        norm = torch.nn.utils.clip_grad_norm_(trainable, config.max_grad_norm or math.inf)
        loss, *values, grad_norm = torch.cat((losses, norm.to(losses)[None])).tolist()  # the step's only host sync
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            raise FloatingPointError(
                f"step {step + 1}: loss is {loss}, gradient norm {grad_norm}; try a lower learning_rate"
            )
        optimizer.step()
        optimizer.zero_grad()

        parts = dict(zip(objective.parts, values, strict=True))
        progress.set_postfix({name: f"{value:.4f}" for name, value in {"loss": loss, **parts}.items()})
        epoch = step // steps_per_epoch + min((step % steps_per_epoch + 1) * global_size / len(states), 1.0)
        yield StepRecord(step + 1, epoch, loss, parts, totals, rate, grad_norm)
    model.eval()


def _global_batches(num_states: int, size: int, *, seed: int) -> Iterator[list[int]]:
    """The states of one optimizer step after the other, epoch after epoch; an epoch's last may be smaller."""
    epoch = 0
    while True:
        order = shuffled(num_states, seed=seed, epoch=epoch).tolist()
        for at in range(0, num_states, size):
            yield order[at : at + size]
        epoch += 1


def _share_of_rank(
    accelerator: Accelerator, states: TrajectoryStates, micro_batches: list[list[int]]
) -> list[StateBatch]:
    """This rank's micro-batches, as many as any other's since DDP waits; without entries where none is left."""
    world, rank = accelerator.num_processes, accelerator.process_index
    share = []
    for first in range(0, len(micro_batches), world):
        own = first + rank < len(micro_batches)
        chosen = micro_batches[first + rank] if own else micro_batches[first]
        batch = collate([states[index] for index in chosen]).to(accelerator.device)
        share.append(batch if own else batch.without_entries())
    return share


def _accumulate(
    accelerator: Accelerator,
    objective: nn.Module,
    batches: list[StateBatch],
    totals: Mapping[str, int],
    names: Iterable[str],
) -> torch.Tensor:
    """Add up the gradients of this rank's contributions; returns the sums of the loss and of its parts, in float32."""
    sums = torch.zeros((), device=accelerator.device)
    half = next(objective.parameters()).dtype == torch.bfloat16
    for number, batch in enumerate(batches):
        with accelerator.no_sync(objective) if number < len(batches) - 1 else nullcontext():
            with torch.autocast(accelerator.device.type, dtype=torch.bfloat16, enabled=half):
                loss, parts = objective(batch, totals)
            # Contributions are meant to be summed over ranks, and DDP takes the mean.
            accelerator.backward(loss * accelerator.num_processes)
        values = [loss, *(parts[name] for name in names)]
        sums = sums + torch.stack([value.detach().float() for value in values])
    return sums


def _earlier_files(output: Path) -> list[Path]:
    """What an earlier run left in the folder."""
    folders = [output / ADAPTER_FOLDER, *sorted(output.glob("checkpoint-*"))]
    return [path for path in [*folders, output / HISTORY_FILE, output / CURVE_FILE] if path.exists()]


def _write_history(output: Path, config: DistillConfig, history: list[StepRecord]) -> None:
    write_json(output / HISTORY_FILE, {"settings": asdict(config), "steps": [asdict(record) for record in history]})


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
