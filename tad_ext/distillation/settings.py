"""The objectives to train by, and the settings of TAD's and of the training loop, published defaults; without torch."""

from __future__ import annotations

import math
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tad_ext.settings import (
    MAX_COUNT,
    MAX_SCALE,
    Between,
    Count,
    Index,
    LearningRate,
    NonNegative,
    Probability,
    Seed,
    Settings,
    fixed,
    setting,
)

if TYPE_CHECKING:
    from tad_ext.distillation.objective import Objective

# The objectives of `tad distill`, by the place of their class, which is imported when it is asked for.
OBJECTIVES = {
    "tad": "tad_ext.distillation.tad:TADObjective",
    "ce_all": "tad_ext.distillation.ablations:CEAllObjective",
    "kl_all": "tad_ext.distillation.ablations:KLAllObjective",
    "ce_near": "tad_ext.distillation.ablations:CENearObjective",
    "sft": "tad_ext.distillation.sft:SFTObjective",
    "dparallel": "tad_ext.distillation.dparallel:DParallelObjective",
    "d3llm": "tad_ext.distillation.d3llm:D3LLMObjective",
    "d2f": "tad_ext.distillation.d2f:D2FObjective",
    "oput": "tad_ext.distillation.oput:OPUTObjective",
    "d_opsd": "tad_ext.distillation.d_opsd:DOPSDObjective",
    "cd4lm": "tad_ext.distillation.cd4lm:CD4LMObjective",
}


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
        self.check_order("delta_start", "delta")

    def delta_at(self, progress: float) -> int:
        """Delta at a progress of the training from 0 to below 1."""
        if self.delta_start is None:
            return self.delta
        return self.delta_start + int(progress * (self.delta - self.delta_start + 1))


@dataclass(frozen=True)
class CEAllSettings(TADSettings):
    """TAD's numbers where every entry is near."""

    delta: Index = fixed(MAX_COUNT)
    ce_weight: NonNegative = fixed(1.0)
    kl_weight: NonNegative = fixed(0.0)
    temperature: float = fixed(1.0)
    delta_start: Index | None = fixed(None)


@dataclass(frozen=True)
class KLAllSettings(TADSettings):
    """TAD's numbers where every entry is distant."""

    delta: Index = fixed(0)
    ce_weight: NonNegative = fixed(0.0)
    kl_weight: NonNegative = fixed(1.0)
    delta_start: Index | None = fixed(None)


@dataclass(frozen=True)
class CENearSettings(TADSettings):
    """TAD's numbers without the divergence."""

    ce_weight: NonNegative = fixed(1.0)
    kl_weight: NonNegative = fixed(0.0)
    temperature: float = fixed(1.0)


@dataclass(frozen=True)
class SFTSettings(Settings):
    """The numbers of supervised fine-tuning (LLaDA, arXiv 2502.09992)."""

    min_mask_ratio: Annotated[float, Between(above=0, at_most=1)] = setting(
        1e-3, help="sft: smallest probability by which a response's tokens are masked; the largest is 1"
    )


@dataclass(frozen=True)
class CertaintySettings(Settings):
    """The numbers of certainty forcing (dParallel, arXiv 2509.26488), published for LLaDA."""

    entropy_weight: NonNegative = setting(
        2.0, help="dparallel, d3llm: weight of the entropy of right predictions; for Dream: 1"
    )
    entropy_temperature: Annotated[float, Between(1 / MAX_SCALE, MAX_SCALE)] = setting(
        0.5, help="dparallel, d3llm: temperature of that entropy"
    )


@dataclass(frozen=True)
class DParallelSettings(CertaintySettings):
    """The numbers of dParallel."""

    block_length: Count = setting(32, help="dparallel: positions of the half-masked block; for Dream: the whole canvas")


@dataclass(frozen=True)
class D3LLMSettings(CertaintySettings):
    """The numbers of d3LLM."""

    block_lengths: tuple[Count, ...] = setting(
        (16, 16, 24, 24, 32, 32),
        help="d3llm: positions of the masked block at the beginnings of so many equal parts of the training, between "
        "which they change evenly",
    )
    mask_ratio_start: Probability = setting(
        0.0, help="d3llm: smallest masked share of a block at first; it rises evenly"
    )
    mask_ratio: Probability = setting(0.8, help="d3llm: largest masked share of a block at all times")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.block_lengths:
            raise ValueError("block_lengths must hold at least one length, got an empty list")
        self.check_order("mask_ratio_start", "mask_ratio")

    def block_length_at(self, progress: float) -> int:
        """The length of blocks at a progress of the training from 0 to below 1."""
        part, within = divmod(progress * len(self.block_lengths), 1)
        now, *later = self.block_lengths[int(part) :]
        return now + int(within * (later[0] - now)) if later else now

    def mask_ratio_at(self, progress: float) -> float:
        """The smallest masked share at a progress of the training from 0 to below 1."""
        return self.mask_ratio_start + progress * (self.mask_ratio - self.mask_ratio_start)


@dataclass(frozen=True)
class D2FSettings(Settings):
    """The numbers of D2F (arXiv 2508.09192)."""

    causal_block_length: Count = setting(
        16, help="d2f: positions of a block of the student's attention, which sees no later block"
    )
    min_block_ratio: Annotated[float, Between(above=0, at_most=1)] = setting(
        0.2, help="d2f: smallest probability by which the tokens of a response's first block are masked"
    )
    max_block_ratio: Annotated[float, Between(above=0, at_most=1)] = setting(
        0.7, help="d2f: largest probability of any block; from block to block it does not fall"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_order("min_block_ratio", "max_block_ratio")


@dataclass(frozen=True)
class OPUTSettings(Settings):
    """The numbers of on-policy uniform training (DMax)."""

    noise_ratio: Annotated[float, Between(above=0, at_most=1)] = setting(
        0.75, help="oput: probability by which a response's tokens are masked, or replaced by the model's own"
    )


@dataclass(frozen=True)
class DOPSDSettings(Settings):
    """The numbers of d-OPSD (arXiv 2606.18195)."""

    hindsight: Annotated[float, Between(above=0, at_most=1)] = setting(
        0.25, help="d_opsd: share of the positions behind the current block whose final tokens the teacher sees"
    )
    hindsight_block_length: Count = setting(32, help="d_opsd: positions per block, as the trajectories were decoded")
    confident_positions: Count = setting(
        2, help="d_opsd: masks of the current block that are learnt, those of which the teacher is surest"
    )
    teacher_top_k: Annotated[int, Between(2, MAX_COUNT)] = setting(
        20, help="d_opsd: tokens that the distributions are compared on, the teacher's most probable ones"
    )
    entry_clip: Annotated[float, Between(above=0, at_most=MAX_SCALE)] = setting(
        0.05, help="d_opsd: what a token adds to the divergence at most, nats"
    )


@dataclass(frozen=True)
class CD4LMSettings(Settings):
    """The numbers of CD4LM (arXiv 2601.02236)."""

    min_student_share: Probability = setting(0.4, help="cd4lm: smallest share of a response that is masked")
    max_student_share: Probability = setting(0.9, help="cd4lm: largest share of a response that is masked")
    consistency_start: Probability = setting(
        0.9,
        help="cd4lm: share of the divergence in the loss, the rest being cross-entropy, in the first tenth of the "
        "training",
    )
    consistency_end: Probability = setting(0.5, help="cd4lm: the same at the end; between them it changes as a cosine")
    consistency_temperature: Annotated[float, Between(1 / MAX_SCALE, MAX_SCALE)] = setting(
        2.0, help="cd4lm: temperature of both distributions in the divergence"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_order("min_student_share", "max_student_share")

    def consistency_at(self, progress: float) -> float:
        """The divergence's share at a progress of the training from 0 to below 1."""
        falling = max(progress - 0.1, 0) / 0.9
        change = (1 - math.cos(math.pi * falling)) / 2
        return self.consistency_start + (self.consistency_end - self.consistency_start) * change


#: Those of `TrainingSettings` that choose among several states of a trajectory.
STATE_SETTINGS = ("state_ratio", "state_sampling", "curriculum")


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
    seed: Seed = setting(0, help="of the order of the states, their masks, the adapter's first weights and the dropout")

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """The rate of the 0-based optimizer step `step` of `total_steps`; no step is wasted on a rate of 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.lr_schedule == "constant":
            return self.learning_rate
        left = (total_steps - step) / max(total_steps - self.warmup_steps, 1)
        return self.learning_rate * (left if self.lr_schedule == "linear" else (1 - math.cos(math.pi * left)) / 2)
