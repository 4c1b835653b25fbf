"""The settings of `tad convert`."""

from dataclasses import dataclass
from typing import Annotated

from tad_ext.data.tasks.task import Split
from tad_ext.decoding.config import PolicyText
from tad_ext.jobs import JobSettings
from tad_ext.settings import Between, Count, NonNegative, PathText, Seed, setting

_NOT_SAID = "for published files, which do not say it: "


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(JobSettings):
    """Turns the JSON lines that TAD's published code collects into trajectory files (--jsonl), or trajectory files into
    such lines (--trajectories), which the published training reads. There every state of a canvas is written out; here
    the step at which each token was revealed stands for them. Lines of this command say all of their run; those of the
    published code do not: --temperature must be given for them.
    """

    summary = "turn the published JSON lines into trajectory files, and back"
    example = "tad convert --jsonl llada_math_traj.jsonl --model LLaDA-8B-Instruct --temperature 0.7 --output runs/math"

    jsonl: tuple[PathText, ...] = setting((), help="files to read, one JSON object a line")
    trajectories: tuple[PathText, ...] = setting((), help="folders of trajectory files to read")
    model: PathText = setting(help="checkpoint folder whose tokens the ids are")
    output: PathText = setting(help="new folder for trajectory files, with --jsonl; with --trajectories the JSONL file")
    temperature: NonNegative | None = setting(None, help=f"{_NOT_SAID}LLaDA 0.7 for math, 0 for code; Dream 0.2")
    task: str | None = setting(None, help=f"{_NOT_SAID}their task; none: their dataset_name, which those of code lack")
    split: Split | None = setting(None, help=f"{_NOT_SAID}their split; none: their dataset_split, or train")
    top_p: Annotated[float, Between(above=0, at_most=1)] = setting(1.0, help=f"{_NOT_SAID}Dream 0.95")
    policy: PolicyText = setting("topk:1", help=f"{_NOT_SAID}how positions were chosen; Dream dream:order=entropy")
    block_length: Count = setting(32, help=f"{_NOT_SAID}positions per block")
    seed: Seed = setting(42, help=f"{_NOT_SAID}of the sampling")

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.jsonl) == bool(self.trajectories):
            raise ValueError("expected one of jsonl, files to read, and trajectories, folders to read")
