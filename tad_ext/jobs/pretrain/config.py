"""The settings of `tad pretrain`."""

from dataclasses import dataclass
from typing import Annotated

from tad_ext.jobs import JobSettings
from tad_ext.settings import (
    Between,
    Count,
    Device,
    Index,
    LearningRate,
    NonNegative,
    PathText,
    Positive,
    Probability,
    Seed,
    setting,
)


@dataclass(frozen=True)
class PretrainConfig(JobSettings):
    """Trains a masked diffusion language model small enough for a CPU on the embedded arithmetic task, and saves it as
    a checkpoint with its tokenizer. It is the base model of the demo and a quick subject for experiments.
    """

    summary = "train a tiny masked diffusion model from scratch"
    example = "tad pretrain --output runs/base"

    output: PathText = setting(help="folder for the checkpoint; it must not exist yet, or be empty")
    steps: Count = setting(2000, help="training steps")
    batch_size: Count = setting(64, help="sequences per step")
    learning_rate: LearningRate = setting(3e-3, help="peak learning rate; it falls to 5 % along a cosine")
    warmup_steps: Index = setting(50, help="steps in which the learning rate rises to its peak")
    weight_decay: NonNegative = setting(0.01, help="AdamW's weight decay")
    max_grad_norm: Positive = setting(1.0, help="gradients longer than this are shortened to it")
    min_mask_ratio: Annotated[float, Between(above=0, at_most=1)] = setting(0.03, help="smallest masking probability t")
    reference_share: Probability = setting(0.3, help="part of the texts with the reference in the prompt")
    rare_weight: Probability = setting(0.05, help="frequency of the rare operation, relative to the others")
    short_share: Probability = setting(
        0.0, help="part of the steps that leave out their input: what stands far away is less certain then"
    )
    causal_block_length: Count | None = setting(
        None, help="positions of a block of attention that sees no later block; none: attention to all"
    )
    hidden_size: Count = setting(96, help="width of the model")
    layers: Count = setting(3, help="transformer layers")
    heads: Count = setting(3, help="attention heads")
    seed: Seed = setting(0, help="of the weights, the texts and the masks")
    device: Device = setting("auto", help="auto, cpu or cuda")
    log_every: Count = setting(20, help="steps between points of the loss curve")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.heads or self.hidden_size // self.heads % 2:
            raise ValueError(f"hidden_size must be an even multiple of heads ({self.heads}), got {self.hidden_size}")
