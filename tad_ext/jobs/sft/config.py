"""The settings of `tad sft`."""

from dataclasses import dataclass
from typing import Literal

from tad_ext.distillation.run_settings import AdapterRunSettings
from tad_ext.distillation.settings import STATE_SETTINGS, SFTSettings, TrainingSettings
from tad_ext.jobs import JobSettings
from tad_ext.settings import Count, PathText, fixed, group, setting


@dataclass(frozen=True, kw_only=True)
class SFTConfig(AdapterRunSettings, JobSettings):
    """Supervised fine-tuning on your own prompts and responses, as LLaDA was fine-tuned: every token of a response is
    masked with one probability, drawn anew each time, and learnt by cross-entropy over that probability. There is no
    teacher. What comes out is an adapter, as that of tad distill.
    """

    summary = "train a LoRA adapter on your own prompts and responses"
    example = "tad sft --model runs/base --data responses.jsonl --prompt-format text --output runs/sft"
    shared = True

    model: PathText = setting(help="folder or hub id of the model to train")
    teacher: PathText | None = fixed(None)
    objective: str = fixed("sft")
    training: TrainingSettings = group(TrainingSettings, without=STATE_SETTINGS)

    data: PathText = setting(
        help="file of prompts and responses, one JSON object a line: .jsonl, .jsonl.gz or .parquet; or hub:NAME, read "
        "by the package datasets"
    )
    prompt_format: Literal["chat", "text"] = setting(
        "chat", help="chat (the tokenizer's template) or text (prompt and response as they stand)"
    )
    gen_length: Count | None = setting(None, help="positions of the canvas; none: those of the longest response")
    sft: SFTSettings = group(SFTSettings)
