"""`tad merge`: a model and its LoRA adapter become one plain checkpoint, which decodes faster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tad_ext.files import rescued, tried_folder


@dataclass
class MergeConfig:
    """Which adapter to merge into which model, and where to."""

    model: str = field(metadata={"help": "checkpoint folder of the base model"})
    adapter: str = field(metadata={"help": "folder of the LoRA adapter, as `tad distill` writes it"})
    output: str = field(metadata={"help": "new checkpoint folder; must not exist or be empty"})
    dtype: str = field(
        default="auto", metadata={"help": "of the merged weights: auto (as stored), float32 or bfloat16"}
    )
    device: str = field(default="cpu", metadata={"help": "where to merge: auto, cpu, cuda or cuda:N"})
    allow_other_model: bool = field(
        default=False, metadata={"help": "merge the adapter although it was trained on another base model"}
    )


def merge(config: MergeConfig) -> dict[str, Any]:
    """Writes the merged checkpoint, complete or not at all, with the tokenizer and a record of where it came from.

    Raises ValueError for an output that cannot be written to and FileExistsError for one that holds files, both before
    the model is loaded; what `load_merged` raises; OSError if the checkpoint could not be written, saying where it is.
    """
    from tad_ext.models.loading import load_tokenizer, model_fingerprint, save_model
    from tad_ext.models.lora import load_merged

    output = tried_folder(config.output, empty=True)
    tokenizer = load_tokenizer(config.model)
    model = load_merged(
        config.model,
        config.adapter,
        dtype=config.dtype,
        device=config.device,
        allow_other_model=config.allow_other_model,
    )
    origin = {"model": config.model, "model_fingerprint": model_fingerprint(config.model), "adapter": config.adapter}
    rescued(lambda path: save_model(model, tokenizer, path, reports={"merged_from.json": origin}), output)
    print(f"merged checkpoint written to {output}")
    return origin | {"output": str(output)}
