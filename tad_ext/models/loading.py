"""Load and save masked diffusion checkpoints: safetensors and our own model classes, no pickle, no code from outside.

transformers replaces missing weights by random ones and says so in a warning; here every mismatch is an error, found
in config.json, the tokenizer's files and the headers of the weight files, before any memory is filled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from tad_ext.files import atomic_folder
from tad_ext.models.checkpoint import CONFIG_FILE, stored_shapes, weight_differences, weight_files
from tad_ext.models.device import resolve_device, resolve_dtype
from tad_ext.models.families import MODEL_CLASSES, load_config, model_class_of
from tad_ext.models.identity import model_fingerprint
from tad_ext.models.tokenizers import has_tokenizer, ids_without_token, load_tokenizer

__all__ = [
    "MODEL_CLASSES",
    "load_config",
    "load_model",
    "load_tokenizer",
    "model_fingerprint",
    "save_model",
]

_LARGE = 2**30  # bytes of weights from which loading and saving show progress


def load_model(
    path: str | Path, *, dtype: torch.dtype | str | None = None, device: torch.device | str | None = None
) -> PreTrainedModel:
    """Load a masked diffusion model, in eval mode.

    Args:
        path: folder of the checkpoint.
        dtype: floating-point torch dtype or its name ("float32", "bfloat16"); None or "auto": the checkpoint's own.
        device: torch device or its name; None or "auto": a GPU if there is one, else the CPU.

    Returns:
        A MaskedDiffusionMixin: one of `MODEL_CLASSES`. Where the folder holds a tokenizer, the ids that none of its
        tokens has are in `config.suppress_token_ids`, so that they are never chosen.

    Raises:
        ValueError: no such folder, no or broken config.json, a model or an option that is not supported, a tokenizer
            that disagrees with the model, weights as pickle only, a damaged weights file, weights missing, unexpected
            or of the wrong shape (named), an unknown dtype or device.
    """
    dtype, device = resolve_dtype(dtype), resolve_device(device)
    path = Path(path)
    model_class, config = model_class_of(path), load_config(path)
    if has_tokenizer(path):
        nameless = ids_without_token(load_tokenizer(path), config.vocab_size)
        config.suppress_token_ids = sorted({*(config.suppress_token_ids or []), *nameless})
    differences = weight_differences(_expected_shapes(model_class, config), stored_shapes(path))
    if differences:
        raise ValueError(f"checkpoint {path} does not fit its {CONFIG_FILE}; {differences}")
    size = sum(file.stat().st_size for file in weight_files(path))
    with _bars_for_large_models(size):
        model = model_class.from_pretrained(
            path, config=config, dtype="auto" if dtype is None else dtype, use_safetensors=True, local_files_only=True
        )
    return model.to(device).eval()


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | Path,
    *,
    reports: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint folder that `load_model` and `load_tokenizer` read; it appears complete or not at all.

    Args:
        reports: JSON values to write beside the weights, by file name ({"training.json": ...}).
        overwrite: replace an existing checkpoint; otherwise a non-empty `path` is a FileExistsError.
    """
    with atomic_folder(path, overwrite=overwrite) as folder:
        with _bars_for_large_models(model.num_parameters() * model.dtype.itemsize):
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for name, value in (reports or {}).items():
            (folder / name).write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def _bars_for_large_models(size: int) -> Iterator[None]:
    """transformers' progress bars where `size` bytes take a while; below, they would only clutter the terminal."""
    shown = logging.is_progress_bar_enabled()
    if size < _LARGE:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _expected_shapes(model_class: type[PreTrainedModel], config: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what the model saves, on the meta device, hence without memory; a tied weight is saved once.

    Names are those in the file, which a model class may call otherwise (`original_name`).
    """
    with torch.device("meta"):
        model = model_class(config)
    shared = set(model._tied_weights_keys or {}) if config.tie_word_embeddings else set()
    weights = {name: weight for name, weight in nn.Module.state_dict(model).items() if name not in shared}
    return {model.original_name(name): tuple(weight.shape) for name, weight in weights.items()}
