"""What the confidence is measured on, how delta is read off it, the bootstrap's size, and how the harness is answered;
without torch.
"""

from dataclasses import dataclass
from typing import Annotated

from tad_ext.decoding.config import DecodeConfig
from tad_ext.settings import Between, Count, Seed, Settings, group, setting

BOOTSTRAP_SAMPLES = 1000
BootstrapSamples = Annotated[int, Between(100, 100_000)]
Level = Annotated[float, Between(above=0, below=1)]


@dataclass(frozen=True)
class DecaySettings(Settings):
    """How confidence is measured against the steps until reveal, and where it has fallen far enough."""

    max_distance: Count = setting(32, help="most steps until reveal to look at")
    states_per_trajectory: Count = setting(
        4, help="states drawn at random from each trajectory, without repetition; all, if it has fewer"
    )
    batch_size: Count = setting(8, help="states per forward")
    seed: Seed = setting(0, help="of the draw of states and of the bootstrap")
    bootstrap_samples: BootstrapSamples = setting(
        BOOTSTRAP_SAMPLES, help="resamples of the trajectories that the 95 % intervals are made of"
    )
    quality_level: Level = setting(0.5, help="mean confidence at which delta for quality is reached; published: 0.5")
    speed_level: Level = setting(0.2, help="mean confidence at which delta for speed is reached; published: 0.2")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.speed_level > self.quality_level:
            raise ValueError(
                f"speed_level must be at most quality_level ({self.quality_level}), got {self.speed_level}: confidence "
                f"falls with the distance, and delta for speed is the larger one"
            )


@dataclass(frozen=True, kw_only=True)
class HarnessSettings(Settings):
    """How the requests of lm-evaluation-harness are answered. Where a request samples, its temperature, top_k and top_p
    are taken; its `until` ends a response.
    """

    task_lengths: bool = setting(
        False,
        help="generate as many positions as a task asks for (max_gen_toks; gen_length where it does not say), in whole "
        "blocks; false: gen_length, as published, or fewer where a task allows fewer",
    )
    mc_num: Count = setting(
        128,
        help="masks drawn to estimate the log-likelihood of an answer; one with no more masks than so many gets all",
    )
    check_greedy: bool = setting(
        True,
        help="also say whether an answer is the greedy one, which takes a forward per token of it; false: it never is, "
        "and metrics that ask, such as LAMBADA's accuracy, are 0; so it is for models that attend block-causally",
    )
    decoding: DecodeConfig = group(
        DecodeConfig,
        without=("stop_strings", "infill", "sync_every"),
        presets="tad_ext.decoding.presets:preset",
    )
