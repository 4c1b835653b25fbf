"""The settings of `tad inspect`."""

from dataclasses import dataclass

from tad_ext.jobs.common import TrajectorySettings
from tad_ext.settings import Index, PathText, setting


@dataclass(frozen=True, kw_only=True)
class InspectConfig(TrajectorySettings):
    """Tells what folders of trajectory files hold, run by run: how many answers were decoded, right and kept, their
    lengths, and in which order positions were revealed, as a map of shades. Also of a collection that is still running.
    With --replay it shows how one of them was decoded, step by step.
    """

    summary = "show what trajectory files hold, or replay one trajectory"
    example = "tad inspect --trajectories runs/trajectories --model runs/base --output runs/inspection"

    model: PathText | None = setting(
        None, help="checkpoint folder, of which the end-of-sequence ids and the tokenizer are read; none: left out"
    )
    output: PathText | None = setting(
        None, help="folder to write inspect.json and reveal_order.png into; none: neither"
    )
    replay: str | None = setting(None, help="id of a problem whose trajectory to replay; needs --model")
    sample: Index = setting(0, help="which of the answers to that problem")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replay is not None and self.model is None:
            raise ValueError(f"replay is {self.replay!r} and needs model: the folder of the tokenizer, for the text")
