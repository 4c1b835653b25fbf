"""The settings of `tad validate`."""

from dataclasses import dataclass

from tad_ext.jobs.common import TrajectorySettings
from tad_ext.settings import PathText, setting


@dataclass(frozen=True, kw_only=True)
class ValidateConfig(TrajectorySettings):
    """Reads every trajectory file to its end and names whatever is wrong with it: damage, another schema, values that
    cannot be, trajectories that are there twice, files that do not belong together. With --model also what does not fit
    that model. Exit code 1 if there is anything.
    """

    summary = "check trajectory files, also against a model"
    example = "tad validate --trajectories runs/trajectories --model runs/base"

    model: PathText | None = setting(
        None, help="checkpoint folder whose tokenizer, mask id, vocabulary and positions are to fit; none: not compared"
    )
