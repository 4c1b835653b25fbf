"""The settings of `tad distill`; the defaults are those published for TAD (arXiv 2605.09536)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tad_ext.distillation.settings import TADSettings
from tad_ext.jobs import JobSettings
from tad_ext.settings import (
    Between,
    Count,
    DType,
    Index,
    LearningRate,
    NonNegative,
    PathText,
    Positive,
    Seed,
    group,
    setting,
)


@dataclass(frozen=True)
class DistillConfig(JobSettings):
    """Step 2 of the method. At random states of the trajectories, tokens that the teacher reveals within the next delta
    steps are learned by cross-entropy, later ones by the divergence from the teacher's own distribution. The teacher is
    the same model with its adapter switched off. A small delta favours accuracy, a large one speed. The defaults are
    the published ones, made for models of billions of parameters.
    """

    summary = "train a LoRA adapter on trajectories with the TAD loss"
    example = "tad distill --model runs/base --trajectories runs/trajectories --output runs/distill --delta 8"
    shared = True

    model: PathText = setting(help="folder of the model to train; with its adapter off it is also the teacher")
    trajectories: PathText = setting(help="folder of trajectory files written by tad collect")
    output: PathText = setting(help="folder to write the adapter, the checkpoints and the loss curve into")
    keep: Literal["correct", "all"] = setting(
        "correct", help="which trajectories to train on: correct, as published, or all that the folder holds"
    )

    loss: TADSettings = group(TADSettings)

    rank: Count = setting(128, help="rank of the LoRA adapter")
    alpha: Positive = setting(128.0, help="scale of the adapter; its output is multiplied by alpha / rank")
    dropout: Annotated[float, Between(0, below=1)] = setting(0.05, help="dropout on the adapter's input")
    target_modules: tuple[str, ...] = setting(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        help="names of the linear layers to adapt; each must exist in the model",
    )

    learning_rate: LearningRate = setting(2e-5, help="AdamW's learning rate")
    weight_decay: NonNegative = setting(0.01, help="AdamW's weight decay")
    warmup_steps: Index = setting(0, help="optimizer steps over which the learning rate rises linearly")
    lr_schedule: Literal["constant", "linear"] = setting(
        "constant", help="after the warmup: constant, or linear (falls to 0 at the end)"
    )
    max_grad_norm: NonNegative = setting(1.0, help="gradients are scaled down to this norm; 0: they are left alone")
    epochs: Count = setting(1, help="passes over all states of all trajectories")
    max_steps: Count | None = setting(None, help="train for exactly this many optimizer steps instead of epochs")
    batch_size: Count = setting(4, help="states in a micro-batch, per device")
    accumulation: Count = setting(8, help="micro-batches per device in one optimizer step")

    seed: Seed = setting(0, help="of the order of the states, the adapter's first weights and the dropout")
    save_every: Index = setting(0, help="also save the adapter every so many optimizer steps; 0: at the end only")
    overwrite: bool = setting(
        False, help="replace the adapter and checkpoints that output holds, once this run is complete"
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", help="where to train; of several GPUs, accelerate chooses")
    dtype: DType = setting(
        "auto", help="of the frozen model: auto (the checkpoint's), float32 or bfloat16; the adapter is float32"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.target_modules:
            raise ValueError("target_modules must name at least one linear layer, got an empty list")

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """The rate of the 0-based optimizer step `step` of `total_steps`; no step is wasted on a rate of 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.lr_schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (total_steps - step) / max(total_steps - self.warmup_steps, 1)
