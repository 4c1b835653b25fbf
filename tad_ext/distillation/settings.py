"""The objectives to train by, and the settings of TAD's and of the training loop, published defaults; without torch."""

from __future__ import annotations

import math
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tad_ext.settings import MAX_SCALE, Between, Count, Index, LearningRate, NonNegative, Seed, Settings, setting

if TYPE_CHECKING:
    from tad_ext.distillation.objective import Objective

# The objectives of `tad distill`, by the place of their class, which is imported when it is asked for.
OBJECTIVES = {"tad": "tad_ext.distillation.tad:TADObjective"}


def objective_class(name: str) -> type[Objective]:
    """The class of an objective; ValueError for an unknown name."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {name!r}")
    return pkgutil.resolve_name(OBJECTIVES[name])


@dataclass(frozen=True)
class TADSettings(Settings):
    """The numbers of the TAD objective (arXiv 2605.09536)."""

    delta: Index = setting(8, help="entries revealed within this many steps are near (CE), later ones distant (KL)")
    ce_weight: NonNegative = setting(1.0, help="weight of the cross-entropy on near entries")
    kl_weight: NonNegative = setting(1.0, help="weight of the KL divergence on distant entries")
    temperature: Annotated[float, Between(1 / MAX_SCALE, MAX_SCALE)] = setting(
        1.0, help="temperature of both distributions in the KL divergence"
    )
    delta_start: Index | None = setting(None, help="curriculum: delta grows evenly from this to delta; none: it stays")
    normalization: Literal["micro_batch", "tokens", "state"] = setting(
        "micro_batch",
        help="what a mean is taken over: the entries of so many states (group_size), then the mean of these groups "
        "(micro_batch, as published); all entries of the global batch (tokens); each state's entries, then the mean of "
        "the states (state). A group without entries on a side counts as 0 there",
    )
    group_size: Count = setting(4, help="states of a group under micro_batch: the published ones, whatever batch_size")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ce_weight == 0 and self.kl_weight == 0:
            raise ValueError("ce_weight and kl_weight are both 0: there is nothing to learn")
        if self.delta_start is not None and self.delta_start > self.delta:
            raise ValueError(f"delta_start is {self.delta_start}, expected at most delta, {self.delta}")

    def delta_at(self, progress: float) -> int:
        """Delta at a progress of the training from 0 to below 1."""
        if self.delta_start is None:
            return self.delta
        return self.delta_start + int(progress * (self.delta - self.delta_start + 1))


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """How the loop trains by any objective."""

    learning_rate: LearningRate = setting(2e-5, help="AdamW's learning rate")
    weight_decay: NonNegative = setting(0.01, help="AdamW's weight decay")
    warmup_steps: Index = setting(0, help="optimizer steps over which the learning rate rises linearly")
    lr_schedule: Literal["constant", "linear", "cosine"] = setting(
        "constant", help="after the warmup: constant, or falling to 0 at the end, linear or as a cosine's half period"
    )
    max_grad_norm: NonNegative = setting(1.0, help="gradients are scaled down to this norm; 0: they are left alone")
    epochs: Count = setting(1, help="passes over the states of all trajectories")
    max_steps: Count | None = setting(None, help="train for exactly this many optimizer steps instead of epochs")
    batch_size: Count = setting(4, help="states in a micro-batch, per device")
    accumulation: Count = setting(8, help="micro-batches per device in one optimizer step")
    log_every: Index = setting(
        50,
        help="optimizer steps between two looks at how sure the student is: confidence, probability of the "
        "trajectory's token, entropy; a look costs a forward; 0: none",
    )
    state_ratio: Annotated[float, Between(above=0, at_most=1)] = setting(
        1.0, help="share of each trajectory's states that an epoch takes, other ones in every epoch"
    )
    state_sampling: Literal["uniform", "stratified"] = setting(
        "uniform", help="which they are: any, or one of each of as many parts of the trajectory"
    )
    curriculum: Literal["none", "progress"] = setting(
        "none", help="progress: an epoch begins with nearly finished canvases and ends with nearly empty ones"
    )
    seed: Seed = setting(0, help="of the order of the states, the adapter's first weights and the dropout")

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """The rate of the 0-based optimizer step `step` of `total_steps`; no step is wasted on a rate of 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.lr_schedule == "constant":
            return self.learning_rate
        left = (total_steps - step) / max(total_steps - self.warmup_steps, 1)
        return self.learning_rate * (left if self.lr_schedule == "linear" else (1 - math.cos(math.pi * left)) / 2)
