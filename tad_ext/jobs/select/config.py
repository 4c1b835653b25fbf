"""The settings of `tad select`."""

from dataclasses import dataclass
from typing import Annotated

from tad_ext.jobs.common import TrajectorySettings
from tad_ext.settings import Between, Count, PathText, Seed, setting


@dataclass(frozen=True, kw_only=True)
class SelectConfig(TrajectorySettings):
    """Writes some trajectories of one or several folders into a new one. Those are kept that are as every option asks;
    of these --samples of each problem, and of these --limit by chance. Every file keeps what it says of its run. A run
    of which something was left out is no collection any more: tad collect does not continue it.
    """

    summary = "merge folders of trajectories, filter, draw from them, split them"
    example = "tad select --trajectories runs/math,runs/code --output runs/training --samples 2 --holdout 0.05"

    output: PathText = setting(help="new folder for the trajectory files; with --holdout for train and holdout in it")
    correct: bool = setting(False, help="only right answers")
    task: tuple[str, ...] = setting((), help="only of these tasks; none: of all")
    ids: PathText | None = setting(None, help="only of the problems whose ids stand in this text file, one a line")
    min_length: Count | None = setting(
        None, help="only responses of at least so many tokens, up to and including the end of sequence; needs --model"
    )
    max_length: Count | None = setting(None, help="only responses of at most so many tokens; needs --model")
    max_steps: Count | None = setting(None, help="only those decoded in at most so many forwards")
    model: PathText | None = setting(None, help="checkpoint folder, of which the end-of-sequence ids are read")
    samples: Count | None = setting(None, help="at most so many of each problem, the first ones; none: all")
    limit: Count | None = setting(None, help="at most so many in all, by chance; none: all")
    shuffle: bool = setting(False, help="put those of a run into a random order")
    holdout: Annotated[float, Between(above=0, below=1)] | None = setting(
        None, help="share of the problems that go into output/holdout, with all their answers; the rest: output/train"
    )
    seed: Seed = setting(0, help="of limit, shuffle and holdout")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_length", "max_length"):
            if getattr(self, name) is not None and self.model is None:
                raise ValueError(f"{name} is {getattr(self, name)} and needs model, for its end-of-sequence ids")
        self.check_order("min_length", "max_length")
