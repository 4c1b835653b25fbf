"""The rivals of `bench.train`: each takes one optimizer step after the other, on the same states."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch
from accelerate import Accelerator

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation import tad
from tad_ext.distillation.lora_settings import LoRASettings
from tad_ext.distillation.settings import TADSettings, TrainingSettings
from tad_ext.distillation.trainer import Trainer
from tad_ext.models import last_layer
from tad_ext.models.cpu_dropout import CPUDropout
from tad_ext.models.lora import add_lora, base_model

from ..decode.shapes import random_model
from ..stopwatch import Implementation, Stopwatch
from .clock import PartClock
from .published_step import PublishedStep
from .work import BareProducts, Sizes, random_trajectories


@dataclass(frozen=True)
class Subject:
    """What is trained, and how."""

    shape: dict[str, Any]
    device: str
    dtype: torch.dtype
    training: TrainingSettings
    sizes: Sizes

    def model(self) -> Any:
        """Of the same random weights every time."""
        torch.manual_seed(0)
        return random_model(self.shape, self.device, self.dtype)

    def adapted(self) -> Any:
        """It with the adapter of `tad distill`."""
        return add_lora(self.model(), **asdict(LoRASettings(rank=self.sizes.rank)))

    def states(self) -> TrajectoryStates:
        """Of random trajectories."""
        trajectories = random_trajectories(self.shape, self.sizes)
        return TrajectoryStates(trajectories, mask_token_id=self.shape["mask_token_id"])


class Sample(NamedTuple):
    """One step: seconds, milliseconds of its parts, and its loss."""

    seconds: float
    parts_ms: dict[str, float]
    loss: float | None


@dataclass(frozen=True)
class Rival:
    """`step` takes one and returns its loss, None where there is none."""

    step: Callable[[], float | None]
    clock: PartClock
    weights_bytes: int = 0

    def timed_step(self) -> Sample:
        """The next one; "other" is what is none of its parts."""
        began = self.clock.now()
        loss = self.step()
        seconds, parts = self.clock.now() - began, self.clock.parts_ms()
        return Sample(seconds, parts | {"other": 1e3 * seconds - sum(parts.values())}, loss)

    def peak_bytes(self) -> int:
        """The most memory that the next step has at a time beyond what was there before it."""
        return Stopwatch("cuda" if self.clock.on_gpu else "cpu").peak_bytes(Implementation(self.step))


def own(subject: Subject) -> tuple[Rival, Trainer]:
    """`tad distill`'s trainer, with its parts timed."""
    clock, adapted = PartClock(subject.device), subject.adapted()
    accelerator = Accelerator(cpu=not clock.on_gpu, mixed_precision="no")
    trainer = Trainer(tad.TADObjective(adapted, TADSettings()), subject.states(), subject.training, accelerator)
    model: Any = base_model(adapted)
    hidden_rows = model.hidden_rows
    teacher, student = (clock.timed(part, hidden_rows) for part in ("teacher", "student"))
    model.hidden_rows = lambda *rows, **options: (student if torch.is_grad_enabled() else teacher)(*rows, **options)
    accelerator.backward = clock.timed("backward", accelerator.backward)
    trainer.optimizer.step = clock.timed("AdamW", trainer.optimizer.step)
    loss, records = clock.timed("head + loss", tad.fused_linear_tad_loss), trainer.run()

    def step() -> float:
        with mock.patch.object(tad, "fused_linear_tad_loss", loss):
            return next(records).loss

    return Rival(step, clock, _bytes(adapted)), trainer


def published(subject: Subject, trainer: Trainer) -> Rival:
    """The published step on the states of the trainer's steps, in their order."""
    clock, student, teacher = PartClock(subject.device), subject.adapted(), subject.model()
    steps = PublishedStep(student, teacher, subject.training, TADSettings.delta, clock)
    numbers, states = map(trainer.order.numbers, range(trainer.total_steps)), trainer.states
    for module in student.modules():
        if isinstance(module, CPUDropout):
            module.__class__ = torch.nn.Dropout

    def step() -> float:
        with clock.part("states"):
            chosen = [states.at(number, 0.0) for number in next(numbers).tolist()]
        with mock.patch.object(last_layer, "cpu_attention_fits", return_value=False):
            return steps.run(chosen)

    return Rival(step, clock, _bytes(student) + _bytes(teacher))


def bare_products(subject: Subject, trainer: Trainer) -> Rival:
    """The matrix products of a step with as many entries as the trainer's have on average."""
    steps = trainer.total_steps
    numbers = [number for step in range(steps) for number in trainer.order.numbers(step).tolist()]
    samples = trainer.objective.samples([trainer.states.at(number, 0.0) for number in numbers], 0.0)
    near, distant = (sum(int((one.side == side).sum()) for one in samples) for side in (tad.NEAR, tad.DISTANT))
    products = BareProducts(
        base_model(trainer.objective.model),
        subject.sizes,
        rows=subject.training.batch_size,
        micro_batches=subject.training.accumulation,
        near=round(near / steps),
        distant=round(distant / steps),
    )
    clock = PartClock(subject.device)
    return Rival(partial(products.run, clock), clock)


def _bytes(model: torch.nn.Module) -> int:
    return sum(weights.nbytes for weights in model.parameters())
