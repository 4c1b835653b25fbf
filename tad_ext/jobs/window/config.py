"""The settings of `tad window`."""

from dataclasses import dataclass

from tad_ext.evaluation.settings import DecaySettings
from tad_ext.jobs.common import KeptTrajectorySettings, ModelSettings
from tad_ext.settings import PathText, group, setting


@dataclass(frozen=True, kw_only=True)
class WindowConfig(ModelSettings, KeptTrajectorySettings):
    """Measures how the model's confidence in a trajectory's token decays with the steps until the teacher revealed it,
    and reads delta off that curve: for quality where the mean has fallen to 0.5, for speed where it has fallen to 0.2.
    The 95 % intervals are a bootstrap's over problems. Writes window.json and confidence_decay.png; earlier ones
    stand until these are complete.
    """

    summary = "choose delta: confidence against steps until reveal"
    example = "tad window --model runs/base --trajectories runs/trajectories --output runs/window"

    output: PathText = setting(help="folder for window.json and confidence_decay.png")
    decay: DecaySettings = group(DecaySettings)
