"""The settings of `tad demo`."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from tad_ext.jobs import JobSettings
from tad_ext.settings import Count, Device, Index, LearningRate, PathText, Probability, Seed, setting

# What --smoke puts in the place of values that were left at their defaults. So short a training has to make a teacher
# that is often right, from texts with references, and a base that sometimes is, from texts without: without right
# answers there would be nothing to distill.
SMOKE: dict[str, Any] = {
    "pretrain_steps": 300,
    "pretrain_batch_size": 32,
    "pretrain_learning_rate": 4e-3,
    "pretrain_reference_share": 0.6,
    "collect_problems": 32,
    "distill_steps": 8,
    "distill_batch_size": 16,
    "evaluate_problems": 16,
    "decay_trajectories": 4,
}


@dataclass(frozen=True)
class DemoConfig(JobSettings):
    """Runs the whole chain on a tiny model: pretrain, evaluate, collect, distill with LoRA, merge, evaluate again; and
    once more without references, which shows what they are worth. Prints one table, and writes demo.json, curve.png and
    confidence_decay.png. Nothing in it is precomputed. --smoke runs the same chain in about a minute, too short to show
    the effect.
    """

    summary = "watch the whole method work, in minutes, on a CPU"
    example = "tad demo --output runs/demo"

    output: PathText = setting("runs/demo", help="folder for everything; an earlier demo's files in it are replaced")
    smoke: bool = setting(False, help="the same chain in about a minute: too little of everything to show the effect")
    seed: Seed = setting(0, help="of everything random")
    threads: Count | None = setting(None, help="CPU threads; none: as PyTorch chooses")
    device: Device = setting("auto", help="where to run everything: auto, cpu, cuda or cuda:N")

    pretrain_steps: Count = setting(2000, help="training steps of the base model")
    pretrain_batch_size: Count = setting(64, help="sequences per training step of the base model")
    pretrain_learning_rate: LearningRate = setting(3e-3, help="peak learning rate of the base model")
    pretrain_reference_share: Probability = setting(0.3, help="part of its training texts with the reference")
    pretrain_rare_weight: Probability = setting(
        0.0, help="frequency of the rare operation in its other texts; 0: references alone tell what it does"
    )
    collect_problems: Count = setting(800, help="training problems that the teacher decodes")
    delta: Index = setting(4, help="distilling: tokens revealed within this many steps are near")
    lora_rank: Count = setting(32, help="distilling: rank, and alpha, of the LoRA adapter")
    distill_steps: Count = setting(300, help="distilling: optimizer steps")
    distill_batch_size: Count = setting(64, help="distilling: states per step")
    distill_learning_rate: LearningRate = setting(4e-3, help="distilling: learning rate")
    evaluate_problems: Count = setting(400, help="test problems of each evaluation")
    decode_batch_size: Count = setting(128, help="problems decoded at a time")
    decay_trajectories: Count = setting(100, help="trajectories of the confidence-decay curve")

    def with_smoke(self) -> "DemoConfig":
        """The settings with --smoke applied."""
        if not self.smoke:
            return self
        changes = {name: value for name, value in SMOKE.items() if getattr(self, name) == getattr(DemoConfig, name)}
        return dataclasses.replace(self, **changes)
