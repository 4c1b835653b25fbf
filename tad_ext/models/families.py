"""Which model classes there are, and which of them a checkpoint folder is for."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel

from tad_ext.models.checkpoint import CONFIG_FILE, read_config
from tad_ext.models.dream import DreamModel
from tad_ext.models.llada import LLaDAModelLM
from tad_ext.models.tiny import TinyDiffusionLM

MODEL_CLASSES: dict[str, type[PreTrainedModel]] = {
    model_class.config_class.model_type: model_class for model_class in (DreamModel, LLaDAModelLM, TinyDiffusionLM)
}


def model_class_of(path: str | Path) -> type[PreTrainedModel]:
    """The class for the model in a checkpoint folder, by config.json's model_type and architectures.

    Both are compared, because other families share a model_type: LLaDA-MoE calls itself ``llada``.

    Raises:
        ValueError: no such folder, no or broken config.json, or a model we have no class for.
    """
    fields = read_config(path)
    file, model_type = Path(path) / CONFIG_FILE, fields.get("model_type")
    # A list or another JSON value for model_type is no key of a dictionary.
    model_class = MODEL_CLASSES.get(model_type) if isinstance(model_type, str) else None
    if model_class is None:
        raise ValueError(f"{file} names model_type {model_type!r}; supported are {', '.join(sorted(MODEL_CLASSES))}")
    architectures = fields.get("architectures")
    if architectures and architectures != [model_class.__name__]:
        raise ValueError(
            f"{file} names model_type {model_type!r} with architectures {architectures!r}; supported with this "
            f"model_type is {model_class.__name__}"
        )
    return model_class


def load_config(path: str | Path) -> PreTrainedConfig:
    """The configuration of a checkpoint folder.

    Raises:
        ValueError: as `model_class_of`, or a field with a value that is not supported or out of range (named).
    """
    config_class = model_class_of(path).config_class
    try:
        return config_class.from_pretrained(path, local_files_only=True)
    except Exception as error:  # transformers checks types by exceptions of its own
        raise ValueError(f"{Path(path) / CONFIG_FILE}: {error}") from error
