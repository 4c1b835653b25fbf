"""The settings of `tad collect`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tad_ext.data.trajectory_metadata import MAX_PART_RECORDS
from tad_ext.decoding.config import DecodeConfig
from tad_ext.jobs.common import TaskSettings
from tad_ext.settings import Between, Device, DType, PathText, group, setting

# seed * 2**32 + problem number is a sampling seed below 2**62
CollectionSeed = Annotated[int, Between(0, 2**30 - 1)]


@dataclass(frozen=True, kw_only=True)
class CollectConfig(TaskSettings):
    """Step 1 of the method. The model answers the training problems one token per step, with the reference answer in
    its prompt (the privileged teacher). Right answers are kept as trajectories: the tokens, and the step at which each
    was revealed. A run that was stopped goes on where it was when the same command is given again, also with a higher
    --limit. The task gsm8k puts the problems of its original file (--data) into the tokenizer's chat template.
    """

    summary = "record how the teacher decodes: trajectories"
    example = "tad collect --model LLaDA-8B-Instruct --task gsm8k --data gsm8k_train.jsonl --output runs/trajectories"
    shared = True

    output: PathText = setting(help="folder for the trajectory files; give the same one again to continue")
    keep: Literal["correct", "all"] = setting("correct", help="which to write: correct (as published) or all, marked")
    stop_at_eos: bool = setting(False, help="finish a response at its end-of-sequence token; as published: never")
    decoding: DecodeConfig = group(DecodeConfig, only=("temperature", "batch_size"))
    seed: CollectionSeed = setting(0, help="of the choice of problems and of the sampling")
    unit_size: Annotated[int, Between(1, MAX_PART_RECORDS)] = setting(
        MAX_PART_RECORDS, help=f"problems per file, 1 to {MAX_PART_RECORDS}: the most a kill can lose"
    )
    device: Device = setting("auto", help="auto: this rank's GPU if there is one, else the CPU")
    dtype: DType = setting("auto", help="auto: the checkpoint's own; or float32, bfloat16")
    allow_other_model: bool = setting(False, help="continue a folder that another model began, under that one's name")
