"""`tad merge`: a model and its LoRA adapter become one plain checkpoint, which decodes faster."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tad_ext.files import rescued, tried_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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


def load_merged(
    model: str | Path,
    adapter: str | Path | None,
    *,
    dtype: str = "auto",
    device: str = "auto",
    allow_other_model: bool = False,
) -> PreTrainedModel:
    """A model ready to decode: with its adapter, if there is one, merged into the weights. Errors as load_model,
    load_adapter.
    """
    from tad_ext.models.loading import load_model
    from tad_ext.models.lora import load_adapter, merge_adapter

    loaded = load_model(model, dtype=dtype, device=device)
    return (
        loaded if adapter is None else merge_adapter(load_adapter(loaded, adapter, allow_other_model=allow_other_model))
    )
