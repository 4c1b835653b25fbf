"""The settings of the objectives, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tad_ext.settings import MAX_SCALE, Between, Index, NonNegative, Settings, setting


@dataclass(frozen=True)
class TADSettings(Settings):
    """The numbers of the TAD objective; the defaults are those published (arXiv 2605.09536)."""

    delta: Index = setting(8, help="entries revealed within this many steps are near (CE), later ones distant (KL)")
    ce_weight: NonNegative = setting(1.0, help="weight of the cross-entropy on near entries")
    kl_weight: NonNegative = setting(1.0, help="weight of the KL divergence on distant entries")
    temperature: Annotated[float, Between(1 / MAX_SCALE, MAX_SCALE)] = setting(
        1.0, help="temperature of both distributions in the KL divergence"
    )
    normalization: Literal["micro_batch", "tokens", "state"] = setting(
        "micro_batch",
        help="what a mean is taken over: each micro-batch's entries, then the mean of the micro-batches (micro_batch, "
        "as published); all entries of the global batch (tokens); each state's entries, then the mean of the states, "
        "where one without entries on a side counts as 0 there (state)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ce_weight == 0 and self.kl_weight == 0:
            raise ValueError("ce_weight and kl_weight are both 0: there is nothing to learn")
