"""A model measured while it is trained: accuracy and tokens per forward on problems that it is not trained on.

It answers as `tad evaluate` has it answer, with the adapter beside the weights instead of merged into them. Greedy
decoding draws no random number, and leaves modules in the mode that they were in: the training goes on as if nothing
had been.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tad_ext.data.tasks.task import Problem, Task
from tad_ext.decoding import DecodeConfig
from tad_ext.distillation.trainer import StepRecord, Trainer
from tad_ext.evaluation.measure import evaluate_model
from tad_ext.evaluation.results import Point
from tad_ext.models.lora import base_model
from tad_ext.models.sharding import each_by_itself

_COUNTS = ("problems", "correct", "response_tokens", "text_tokens", "forwards")


@dataclass(frozen=True)
class HeldOut:
    """Problems, how they are decoded, and when."""

    every: int  #: optimizer steps
    task: Task
    problems: Sequence[Problem]
    decoding: DecodeConfig
    tokenizer: Any

    def due(self, trainer: Trainer) -> bool:
        """Whether the model is measured after this step."""
        step = trainer.step
        return step > 0 and (step % self.every == 0 or step == trainer.total_steps)

    def measured(self, trainer: Trainer) -> dict[str, Any]:
        """Accuracy in percent, tokens per forward and their counts. Each rank answers its share; all get the whole."""
        accelerator = trainer.accelerator
        own = self.problems[accelerator.process_index :: accelerator.num_processes]
        policy, counts = str(self.decoding.policy), [0] * len(_COUNTS)
        model: Any = base_model(trainer.objective.model)
        with each_by_itself(trainer.objective.model):
            if own:
                (point,) = evaluate_model(model, self.tokenizer, self.task, own, [policy], self.decoding).points
                counts = [getattr(point, name) for name in _COUNTS]
        summed = accelerator.reduce(torch.tensor(counts, device=accelerator.device), reduction="sum").tolist()
        whole = Point(policy=policy, **dict(zip(_COUNTS, summed, strict=True)), seconds=0.0).to_json()
        timed = ("seconds", "tokens_per_second")  # which differ from run to run
        return {"step": trainer.step, **{name: value for name, value in whole.items() if name not in timed}}


def records(
    trainer: Trainer, held_out: HeldOut | None, found: Callable[[dict[str, Any]], None]
) -> Iterator[StepRecord]:
    """The records of a training, on every rank; what is measured after some of its steps is given to `found`.

    A step is recorded, and may be saved, before its model is measured, which takes time. A training that goes on from
    such a step measures it first.
    """
    if held_out is not None and held_out.due(trainer):
        found(held_out.measured(trainer))
    for record in trainer.run():
        yield record
        if held_out is not None and held_out.due(trainer):
            found(held_out.measured(trainer))
