"""The settings of `tad collect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tad_ext.data.tasks import Split, TaskName
from tad_ext.data.trajectory_metadata import MAX_PART_RECORDS
from tad_ext.decoding.config import DecodeConfig
from tad_ext.jobs import JobSettings
from tad_ext.settings import Between, Count, Device, DType, PathText, group, setting

# seed * 2**32 + problem number is a sampling seed below 2**62
CollectionSeed = Annotated[int, Between(0, 2**30 - 1)]


@dataclass(frozen=True)
class CollectConfig(JobSettings):
    """Step 1 of the method. The model answers the training problems one token per step, with the reference answer in
    its prompt (the privileged teacher). Right answers are kept as trajectories: the tokens, and the step at which each
    was revealed. A run that was stopped goes on where it was when the same command is given again. The task gsm8k reads
    the original problem file (--data) and puts problems into the tokenizer's chat template.
    """

    summary = "record how the teacher decodes: trajectories"
    example = "tad collect --model LLaDA-8B-Instruct --task gsm8k --data gsm8k_train.jsonl --output runs/trajectories"
    shared = True

    model: PathText = setting(help="folder of the model's checkpoint; it is its own teacher")
    output: PathText = setting(help="folder for the trajectory files; give the same one again to continue")
    task: TaskName = setting("arithmetic", help="task whose problems are decoded")
    data: PathText | None = setting(
        None, help="the task's original problem file, for a task that reads one; it is the split"
    )
    split: Split = setting("train", help="problems of which split")
    limit: Count | None = setting(None, help="number of problems, may be raised later; none: all")
    teacher_prompt: Literal["user", "system"] | None = setting(
        None,
        help="where the teacher sees the reference, here and in distillation: user (in the user's message, as "
        "published for collection) or system (in a system message, as published for training); "
        "none: the task's default (gsm8k: user)",
    )
    keep: Literal["correct", "all"] = setting(
        "correct", help="which trajectories to write: correct, as published, or all, with right and wrong marked"
    )
    gen_length: Count | None = setting(None, help="tokens of the response canvas; none: the task's")
    block_length: Count | None = setting(None, help="tokens of a block; none: the task's")
    stop_at_eos: bool = setting(
        False, help="finish a response at its end-of-sequence token; false, as published: never"
    )
    decoding: DecodeConfig = group(DecodeConfig, only=("temperature", "batch_size"))
    seed: CollectionSeed = setting(0, help="of the choice of problems and of the sampling")
    unit_size: Annotated[int, Between(1, MAX_PART_RECORDS)] = setting(
        MAX_PART_RECORDS, help=f"problems per file, 1 to {MAX_PART_RECORDS}: the most a kill can lose"
    )
    device: Device = setting("auto", help="auto: this rank's GPU if there is one, else the CPU")
    dtype: DType = setting("auto", help="auto: the checkpoint's own; or float32, bfloat16")
    allow_other_model: bool = setting(
        False, help="continue a folder although it was begun with another model, which the new files then name, too"
    )
