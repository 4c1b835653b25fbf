"""The settings of `tad merge`."""

from __future__ import annotations

from dataclasses import dataclass

from tad_ext.jobs import JobSettings
from tad_ext.settings import Device, DType, PathText, setting


@dataclass(frozen=True)
class MergeConfig(JobSettings):
    """Adds the adapter to the base model's weights and saves the result as a checkpoint that needs no adapter and
    decodes faster.
    """

    summary = "merge an adapter into its model: one plain checkpoint"
    example = "tad merge --model runs/base --adapter runs/distill/adapter --output runs/distilled"

    model: PathText = setting(help="checkpoint folder of the base model")
    adapter: PathText = setting(help="folder of the LoRA adapter, as `tad distill` writes it")
    output: PathText = setting(help="new checkpoint folder; must not exist or be empty")
    dtype: DType = setting("auto", help="of the merged weights: auto (as stored), float32 or bfloat16")
    device: Device = setting("cpu", help="where to merge: auto, cpu, cuda or cuda:N")
    allow_other_model: bool = setting(False, help="merge the adapter although it was trained on another base model")
