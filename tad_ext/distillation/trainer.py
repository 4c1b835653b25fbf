"""The distillation loop: an objective and states in, one record of every optimizer step out; the model is trained.

Every rank makes the same samples of the same global batches and takes its share of their micro-batches: what means are
taken over is thus known to all, and only gradients (DDP) and reported losses are exchanged. All chance follows from the
seed and the number of the step, so a training that goes on from a saved step is the one that never stopped.
"""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from tad_ext.data.trajectories.states import States
from tad_ext.distillation.objective import Objective
from tad_ext.distillation.order import Order
from tad_ext.distillation.samples import MicroBatch, Sample
from tad_ext.distillation.settings import TrainingSettings
from tad_ext.distillation.speed import Speed
from tad_ext.distillation.watching import watched_means, watched_sums
from tad_ext.interrupts import shielded

OPTIMIZER_FILE = "optimizer.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step, over all ranks; an entry of `steps` in training.json."""

    step: int  #: 1-based
    epoch: float  #: passes over the data after this step
    loss: float
    parts: dict[str, float]  #: of the loss, by the names of `Objective.parts`: {"ce": 1.9, "kl": 0.4}
    totals: dict[str, int]  #: states, and entries by `Objective.sides`: {"states": 32, "near": 250, "distant": 3846}
    learning_rate: float
    grad_norm: float  #: before clipping
    #: Of every `log_every`-th step, see `watching`: {"near": {"confidence": 0.8, ...}, "distant": {...}}.
    watched: dict[str, dict[str, float]] = field(default_factory=dict)


class NotFiniteError(FloatingPointError):
    """Loss or gradients became NaN or infinite; nothing was learnt from it."""

    def __init__(self, message: str, samples: Sequence[Sample]) -> None:
        super().__init__(message)
        self.samples = samples  #: of the global batch


class Trainer:
    """Trains the objective's model in place.

    Attributes:
        step: optimizer steps that are complete.
        total_steps: of the whole training.
        record: of the latest step, None before the first one here.
        speed: of the latest step.
        whole: whether weights and moments are those of that step: not if the optimizer failed within one.
    """

    def __init__(
        self, objective: Objective, states: States, config: TrainingSettings, accelerator: Accelerator
    ) -> None:
        self.objective, self.states, self.config, self.accelerator = objective, states, config, accelerator
        self.named = {name: one for name, one in objective.model.named_parameters() if one.requires_grad}
        optimizer = torch.optim.AdamW(self.named.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.module, self.optimizer = accelerator.prepare(objective, optimizer)
        self.order = Order(states.counts, config, config.batch_size * config.accumulation * accelerator.num_processes)
        self.step, self.total_steps, self.whole = 0, self.order.total_steps, True
        self.record: StepRecord | None = None
        self.speed: Speed | None = None

    def run(self) -> Iterator[StepRecord]:
        """The records of the steps that are left, each after its step.

        NotFiniteError if loss or gradients are not finite: weights and moments are those of the step before.
        """
        self.objective.model.train()
        progress = tqdm(
            initial=self.step,
            total=self.total_steps,
            desc="distilling",
            unit="step",
            disable=not self.accelerator.is_main_process,
        )
        with progress, ThreadPoolExecutor(1) as ahead:
            prepared = ahead.submit(self._prepared, self.step)
            while self.step < self.total_steps:
                started = time.perf_counter()
                samples, own = prepared.result()
                if self.step + 1 < self.total_steps:
                    prepared = ahead.submit(self._prepared, self.step + 1)
                record = self._one_step(samples, own)
                self.speed = Speed.of(samples, time.perf_counter() - started, self.accelerator.device)
                parts = {name: f"{value:.4f}" for name, value in {"loss": record.loss, **record.parts}.items()}
                progress.set_postfix(parts | self.speed.shown(), refresh=False)
                progress.update()
                yield record
        self.objective.model.eval()

    def save(self, folder: Path) -> None:
        """Writes what the optimizer remembers, beside an adapter of the same step."""
        state = self.optimizer.state
        moments = {
            f"{name}.{moment}": state[one][moment].contiguous()
            for name, one in self.named.items()
            if one in state
            for moment in _MOMENTS
        }
        save_file(moments, folder / OPTIMIZER_FILE, metadata={"step": str(self.step)})

    def load(self, folder: Path) -> None:
        """Goes on from there; the adapter's weights are in the model already."""
        with safe_open(folder / OPTIMIZER_FILE, framework="pt") as file:
            self.step = int(file.metadata()["step"])
            for name, parameter in self.named.items():
                moments = {moment: file.get_tensor(f"{name}.{moment}").to(parameter.device) for moment in _MOMENTS}
                self.optimizer.state[parameter] = {"step": torch.tensor(float(self.step)), **moments}

    def _prepared(self, step: int) -> tuple[list[Sample], list[tuple[int, MicroBatch]]]:
        """The samples of a step, and of their micro-batches this rank's, by number, on the CPU.

        Every rank has as many as any other, since DDP waits: one without entries where none is left. And the teacher
        runs on all or on none: a model that is spread over the ranks (`models.sharding`) can only run on all.
        """
        objective, world, asked = self.objective, self.accelerator.num_processes, self.objective.asks_teacher
        progress = step / self.total_steps
        states = [self.states.at(number, progress) for number in self.order.numbers(step).tolist()]
        samples = objective.samples(states, progress)
        alike = sorted(samples, key=lambda sample: sample.length)  # less padding
        size = self.config.batch_size
        cut = [alike[first : first + size] for first in range(0, len(alike), size)]
        own = []
        for first in range(0, len(cut), world):
            number = first + self.accelerator.process_index
            at_once = [sample for one in cut[first : first + world] for sample in one]
            batch = objective.micro_batch(cut[min(number, len(cut) - 1)])
            if number >= len(cut):
                batch = batch.without_entries()
            if any(np.isin(sample.side, asked).any() for sample in at_once):
                batch = batch.with_teacher()
            own.append((number, batch))
        return samples, own

    def _one_step(self, samples: Sequence[Sample], own: Sequence[tuple[int, MicroBatch]]) -> StepRecord:
        config, parameters = self.config, list(self.named.values())
        rate = config.learning_rate_at(self.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = self._accumulate(own)
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm or math.inf)
        loss, *values, grad_norm = torch.cat((losses, norm.to(losses)[None])).tolist()  # the step's only host sync
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            raise NotFiniteError(
                f"step {self.step + 1}: loss is {loss}, gradient norm {grad_norm}; try a lower learning_rate", samples
            )
        entries = np.bincount(np.concatenate([one.side for one in samples]), minlength=len(self.objective.sides))
        record = StepRecord(
            step=self.step + 1,
            epoch=self.order.epochs_after(self.step),
            loss=loss,
            parts=dict(zip(self.objective.parts, values, strict=True)),
            totals={"states": len(samples), **dict(zip(self.objective.sides, entries.tolist(), strict=True))},
            learning_rate=rate,
            grad_norm=grad_norm,
            watched=self._watched(own),
        )
        with shielded():  # a signal waits
            self.whole = False
            self.optimizer.step()
            self.step, self.record, self.whole = record.step, record, True
        self.optimizer.zero_grad()
        return record

    def _watched(self, own: Sequence[tuple[int, MicroBatch]]) -> dict[str, dict[str, float]]:
        """What `StepRecord.watched` says, on every rank."""
        if not self.config.log_every or (self.step + 1) % self.config.log_every:
            return {}
        with self._autocast():
            sums = watched_sums(self.objective, (batch for _, batch in own), self.accelerator.device)
        return watched_means(self.objective.sides, self.accelerator.reduce(sums, reduction="sum"))

    def _accumulate(self, own: Sequence[tuple[int, MicroBatch]]) -> Tensor:
        """Adds up the gradients of micro-batches; the sums over all ranks of the loss and its parts, float32."""
        accelerator, names = self.accelerator, list(self.objective.parts)
        sums: Any = 0.0
        for number, batch in own:
            # Dropout by the micro-batch, not by the rank that computes it.
            seed = np.random.SeedSequence((self.config.seed, self.step, number)).generate_state(1, np.uint64)[0]
            torch.manual_seed(int(seed) >> 1)
            with nullcontext() if number == own[-1][0] else accelerator.no_sync(self.module):
                with self._autocast():
                    loss, values = self.module(batch.to(accelerator.device))
                # Contributions are meant to be summed over ranks, and DDP takes the mean.
                accelerator.backward(loss * accelerator.num_processes)
            sums = sums + torch.stack([value.detach().float() for value in (loss, *(values[name] for name in names))])
        return accelerator.reduce(sums, reduction="sum")

    def _autocast(self) -> torch.autocast:
        """Mixed precision by the frozen model's dtype, and by nothing else."""
        half = next(self.objective.parameters()).dtype == torch.bfloat16
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=half)
