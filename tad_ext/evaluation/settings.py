"""What the confidence is measured on, how delta is read off it, and the bootstrap's size; without torch."""

from dataclasses import dataclass
from typing import Annotated

from tad_ext.settings import Between, Count, Seed, Settings, setting

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
