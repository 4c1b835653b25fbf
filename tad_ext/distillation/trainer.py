"""The distillation loop: an objective and states in, one record of every optimizer step out; the model is trained.

Every rank draws the same order of states, cuts it into the same global batches and takes its share of their
micro-batches. What means are taken over is thus known to all; only gradients (DDP) and reported losses are exchanged.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from tad_ext.data.trajectories.states import TrajectoryStates, collate
from tad_ext.distillation.objective import Objective
from tad_ext.distillation.settings import TrainingSettings


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


def train(
    objective: Objective, states: TrajectoryStates, config: TrainingSettings, accelerator: Accelerator
) -> Iterator[StepRecord]:
    """Trains the objective's model in place, step by step. FloatingPointError if loss or gradients are not finite."""
    model = objective.model
    torch.manual_seed(config.seed + 1 + accelerator.process_index)  # dropout: each rank its own
    model.train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    module, optimizer = accelerator.prepare(objective, optimizer)

    global_size = config.batch_size * config.accumulation * accelerator.num_processes
    steps_per_epoch = math.ceil(len(states) / global_size)
    total_steps = config.max_steps or config.epochs * steps_per_epoch
    progress = tqdm(range(total_steps), desc="distilling", unit="step", disable=not accelerator.is_main_process)
    for step, indices in zip(progress, _global_batches(len(states), global_size, seed=config.seed), strict=False):
        rate = config.learning_rate_at(step, total_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        micro_batches = [indices[at : at + config.batch_size] for at in range(0, len(indices), config.batch_size)]
        totals = objective.totals(states, micro_batches)

        losses = _accumulate(accelerator, module, states, micro_batches, totals, list(objective.parts))
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


def shuffled(num_states: int, *, seed: int, epoch: int) -> np.ndarray:
    """(num_states,) int64: an order that depends on the seed and the epoch alone, the same on every rank."""
    return np.random.default_rng((seed, epoch)).permutation(num_states)


def _global_batches(num_states: int, size: int, *, seed: int) -> Iterator[list[int]]:
    """The states of each optimizer step, epoch after epoch; an epoch's last may be fewer."""
    for epoch in itertools.count():
        order = shuffled(num_states, seed=seed, epoch=epoch).tolist()
        for at in range(0, num_states, size):
            yield order[at : at + size]


def _accumulate(
    accelerator: Accelerator,
    objective: nn.Module,
    states: TrajectoryStates,
    micro_batches: list[list[int]],
    totals: Mapping[str, int],
    parts: list[str],
) -> torch.Tensor:
    """Add up the gradients of this rank's micro-batches; the sums over all ranks of the loss and its parts, float32."""
    world, rank = accelerator.num_processes, accelerator.process_index
    sums = torch.zeros((), device=accelerator.device)
    half = next(objective.parameters()).dtype == torch.bfloat16
    for first in range(0, len(micro_batches), world):
        # Every rank has as many as any other, since DDP waits: one without entries where none is left.
        own = first + rank < len(micro_batches)
        chosen = micro_batches[first + rank if own else first]
        batch = collate([states[index] for index in chosen]).to(accelerator.device)
        batch = batch if own else batch.without_entries()
        is_last = first + world >= len(micro_batches)
        with nullcontext() if is_last else accelerator.no_sync(objective):
            with torch.autocast(accelerator.device.type, dtype=torch.bfloat16, enabled=half):
                loss, values = objective(batch, totals)
            # Contributions are meant to be summed over ranks, and DDP takes the mean.
            accelerator.backward(loss * world)
        sums = sums + torch.stack([value.detach().float() for value in (loss, *(values[name] for name in parts))])
    return accelerator.reduce(sums, reduction="sum")
