"""The settings of `tad collect`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tad_ext.data.trajectories.metadata import MAX_PART_RECORDS
from tad_ext.decoding.config import DecodeConfig
from tad_ext.jobs.common import TaskSettings
from tad_ext.settings import Between, Device, DType, PathText, Seed, group, setting

MAX_SAMPLES = 1_000


@dataclass(frozen=True, kw_only=True)
class CollectConfig(TaskSettings):
    """Step 1 of the method. The model answers the training problems one token per step, with the reference answer in
    its prompt (the privileged teacher). Right answers are kept as trajectories: the tokens, and the step at which each
    was revealed. A run that was stopped goes on where it was when the same command is given again, also with more
    problems or samples. Processes that are given the same command, on one machine or on many that share the folder,
    share the work. The task gsm8k puts the problems of its original file (--data) into the tokenizer's chat template.
    """

    summary = "record how the teacher decodes: trajectories"
    example = "tad collect --model LLaDA-8B-Instruct --task gsm8k --data gsm8k_train.jsonl --output runs/trajectories"
    shared = True

    output: PathText = setting(help="folder for the trajectory files; give the same one again to continue")
    samples: Annotated[int, Between(1, MAX_SAMPLES)] = setting(
        1, help="answers to each problem, each with random numbers of its own; needs a temperature above 0"
    )
    keep: Literal["correct", "all"] = setting("correct", help="which to write: correct (as published) or all, marked")
    stop_at_eos: bool = setting(False, help="finish a response at its end-of-sequence token; as published: never")
    decoding: DecodeConfig = group(
        DecodeConfig,
        only=(
            "policy",
            "block_add_threshold",
            "decoded_token_threshold",
            "temperature",
            "top_k",
            "top_p",
            "cache",
            "cuda_graphs",
            "sync_every",
            "batch_size",
        ),
        presets="tad_ext.decoding.presets:preset",
    )
    seed: Seed = setting(0, help="of the choice of problems and of the sampling")
    unit_size: Annotated[int, Between(1, MAX_PART_RECORDS)] = setting(
        MAX_PART_RECORDS, help=f"answers per file, 1 to {MAX_PART_RECORDS}, and per piece of work of a process"
    )
    device: Device = setting("auto", help="auto: this rank's GPU if there is one, else the CPU")
    dtype: DType = setting("auto", help="auto: the checkpoint's own; or float32, bfloat16")
    allow_other_model: bool = setting(False, help="continue a folder that another model began, under that one's name")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples > 1 and self.decoding.temperature == 0:
            raise ValueError(f"samples is {self.samples} and temperature is 0, which gives the same answer every time")
