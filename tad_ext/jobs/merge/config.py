"""The settings of `tad merge`."""

from dataclasses import dataclass

from tad_ext.jobs.common import ModelSettings
from tad_ext.settings import Device, PathText, setting


@dataclass(frozen=True, kw_only=True)
class MergeConfig(ModelSettings):
    """Adds the adapter to the base model's weights and saves a checkpoint that needs no adapter and decodes faster."""

    summary = "merge an adapter into its model: one plain checkpoint"
    example = "tad merge --model runs/base --adapter runs/distill/adapter --output runs/distilled"

    adapter: PathText = setting(help="folder of the LoRA adapter, as `tad distill` writes it, or its hub id")
    output: PathText = setting(help="new checkpoint folder; must not exist or be empty")
    device: Device = setting("cpu", help="where to merge: auto, cpu, cuda or cuda:N")
