"""Load and save masked diffusion checkpoints: safetensors and our own model classes, no pickle, no code from outside.

transformers replaces missing weights by random ones and says so in a warning; here every mismatch is an error, found
in config.json, the tokenizer's files and the headers of the weight files, before any memory is filled.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import logging

from tad_ext.files import atomic_folder, write_json
from tad_ext.models.checkpoint import (
    CONFIG_FILE,
    INDEX_FILE,
    WEIGHTS_FILE,
    read_config,
    shapes_in,
    stored_shapes,
    weight_differences,
    weight_files,
)
from tad_ext.models.device import resolve_device, resolve_dtype
from tad_ext.models.dream import DreamModel
from tad_ext.models.fast_dllm import Fast_dLLM_QwenForCausalLM
from tad_ext.models.hub import checkpoint_folder
from tad_ext.models.llada import LLaDAModelLM
from tad_ext.models.llada2 import LLaDA2MoeModelLM
from tad_ext.models.llada_moe import LLaDAMoEModelLM
from tad_ext.models.sdar import SDARForCausalLM, SDARMoeForCausalLM
from tad_ext.models.tiny import TinyDiffusionLM
from tad_ext.models.tokenizers import check_tokenizer, ids_without_token

# By their configurations. Of those with one model_type the first is meant where config.json names no architecture.
MODEL_CLASSES: dict[type[PreTrainedConfig], type[PreTrainedModel]] = {
    model_class.config_class: model_class
    for model_class in (
        DreamModel,
        Fast_dLLM_QwenForCausalLM,
        LLaDAModelLM,
        LLaDAMoEModelLM,
        LLaDA2MoeModelLM,
        SDARForCausalLM,
        SDARMoeForCausalLM,
        TinyDiffusionLM,
    )
}


class _ConfigOfSome:
    """What AutoConfig, which looks at model_type alone, takes for the configuration class of families that share it."""

    model_type: str

    def __new__(cls, **fields: Any) -> Any:
        return model_class_of({"model_type": cls.model_type, **fields}).config_class(**fields)

    @staticmethod
    def from_dict(fields: dict[str, Any], **options: Any) -> Any:
        return model_class_of(fields).config_class.from_dict(fields, **options)


_types = [config.model_type for config in MODEL_CLASSES]
for _config, _class in MODEL_CLASSES.items():
    _by_fields = type("ConfigOfSome", (_ConfigOfSome,), {"model_type": _config.model_type})
    _shared = _types.count(_config.model_type) > 1
    AutoConfig.register(_config.model_type, _by_fields if _shared else _config, exist_ok=True)
    AutoModelForMaskedLM.register(_config, _class, exist_ok=True)
    AutoModelForCausalLM.register(_config, _class, exist_ok=True)  # under which text is generated

_TOKENIZER_FILE = "tokenizer.json"
_BPE_FILES = ("vocab.json", "merges.txt")
_LARGE = 2**30  # bytes of weights from which loading and saving show progress


def model_class_of(fields: Mapping[str, Any], file: str | Path = CONFIG_FILE) -> type[PreTrainedModel]:
    """The class of the model that a config.json describes: by its model_type, and by the architecture that it names.

    ValueError, with the name of the `file`: it is not among `MODEL_CLASSES`.
    """
    model_type, architectures = fields.get("model_type"), fields.get("architectures")
    alike = [one for config, one in MODEL_CLASSES.items() if config.model_type == model_type]
    if not alike:
        known = sorted({config.model_type for config in MODEL_CLASSES})
        raise ValueError(f"{file} names model_type {model_type!r}; supported are {', '.join(known)}")
    for one in alike:
        if not architectures or architectures in [[name] for name in (one.__name__, *one.also_called)]:
            return one
    raise ValueError(
        f"{file} names model_type {model_type!r} with architectures {architectures!r}; supported with this "
        f"model_type is {' or '.join(one.__name__ for one in alike)}"
    )


def load_config(path: str | Path) -> PreTrainedConfig:
    """The configuration of a checkpoint, by its folder or hub id (see `hub`), as everywhere here.

    ValueError: no such folder or repository, no or broken config.json, a model without a class here, or a value that is
    not supported or out of range (named).
    """
    path = checkpoint_folder(path)
    file = path / CONFIG_FILE
    model_class = model_class_of(read_config(path), file)
    try:
        return model_class.config_class.from_pretrained(path, local_files_only=True)
    except Exception as error:  # transformers checks types by exceptions of its own
        raise ValueError(f"{file}: {error}") from error


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, with its chat template.

    Whatever class the files name, it is not looked for: a tokenizer.json describes itself, and Dream's vocab.json and
    merges.txt are a byte-level BPE with Qwen2's rules, whose special tokens are in tokenizer_config.json.

    ValueError: as `load_config` and `check_tokenizer`, no tokenizer in the folder, or damaged files.
    """
    path = checkpoint_folder(path)
    config = load_config(path)  # says what is wrong with a folder that is no checkpoint, before transformers guesses
    if not _has_tokenizer(path):
        raise ValueError(
            f"model must be a folder with a tokenizer ({_TOKENIZER_FILE}, or {' and '.join(_BPE_FILES)}), "
            f"got path {str(path)!r}"
        )
    try:
        tokenizer_class = MODEL_CLASSES[type(config)].tokenizer_class
        tokenizer = tokenizer_class.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain Exception for a file that it cannot read
        raise ValueError(f"the tokenizer files in {str(path)!r} are damaged: {error}") from error
    tokenizer.init_kwargs.pop("auto_map", None)  # names Python files that a saved copy would not have beside it
    check_tokenizer(config, tokenizer, path)
    return tokenizer


def load_model(
    path: str | Path, *, dtype: torch.dtype | str | None = None, device: torch.device | str | None = None
) -> PreTrainedModel:
    """Load the model of a checkpoint, in eval mode.

    Args:
        path: its folder, or the id of a hub repository, ``org/name`` or ``org/name@revision``.
        dtype: floating-point torch dtype or its name ("float32", "bfloat16"); None or "auto": the checkpoint's own.
        device: torch device or its name; None or "auto": a GPU if there is one, else the CPU.

    Returns:
        A MaskedDiffusionMixin: one of `MODEL_CLASSES`. Where the folder holds a tokenizer, the ids that none of its
        tokens has are in `config.suppress_token_ids`, so that they are never chosen.

    Raises:
        ValueError: as `load_config` and `load_tokenizer`, weights as pickle only, a damaged weights file, weights
            missing, unexpected or of the wrong shape (named), an unknown dtype or device.
    """
    # 1. The configuration, with the ids that no token has.
    dtype, device = resolve_dtype(dtype), resolve_device(device)
    path = checkpoint_folder(path)
    config = load_config(path)
    if _has_tokenizer(path):
        nameless = ids_without_token(load_tokenizer(path), config.vocab_size)
        config.suppress_token_ids = sorted({*(config.suppress_token_ids or []), *nameless})
    # 2. What the model would save, on the meta device, hence without memory, against what is stored.
    model_class = MODEL_CLASSES[type(config)]
    with torch.device("meta"):
        empty = model_class(config)
    tied = empty._tied_weights_keys if config.tie_word_embeddings else {}
    saved = {name: weight for name, weight in empty.state_dict().items() if name not in tied}  # a tied one only once
    shapes = {name: tuple(weight.shape) for name, weight in revert_weight_conversion(empty, saved).items()}
    differences = weight_differences(shapes, stored_shapes(path))
    if differences:
        raise ValueError(f"checkpoint {path} does not fit its {CONFIG_FILE}; {differences}")
    # 3. The weights, each from the mapped file to the device: host memory never holds the model as well. On a CPU the
    # mapped file is the memory, unless the dtype is another one.
    with _bars_for_large_models(sum(file.stat().st_size for file in weight_files(path))):
        model = model_class.from_pretrained(
            path,
            config=config,
            dtype="auto" if dtype is None else dtype,
            device_map=None if device.type == "cpu" else {"": device},
            use_safetensors=True,
            local_files_only=True,
        )
    return model.to(device).eval()


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | Path,
    *,
    reports: dict[str, Any] | None = None,
    overwrite: bool = False,
    like: str | Path | None = None,
) -> None:
    """Write a checkpoint folder that `load_model` and `load_tokenizer` read; it appears complete or not at all.

    Args:
        reports: JSON values to write beside the weights, by file name ({"training.json": ...}).
        overwrite: replace an existing checkpoint; otherwise a non-empty `path` is a FileExistsError.
        like: a checkpoint of the same weights: each goes into the file that it has there, and the authors'
            Python files, which config.json may name, are copied. None: one file, without these.
    """
    with atomic_folder(path, overwrite=overwrite) as folder:
        if like is not None:
            _save_like(model, folder, checkpoint_folder(like))
        else:
            with _bars_for_large_models(model.num_parameters() * model.dtype.itemsize):
                model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for name, value in (reports or {}).items():
            write_json(folder / name, value)


def _save_like(model: PreTrainedModel, folder: Path, like: Path) -> None:
    """Configuration and weights as `save_pretrained` writes them, in files as those of another checkpoint."""
    model.config.architectures = [type(model).__name__]
    model.config.dtype = model.dtype
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    weights = revert_weight_conversion(model, dict(model.state_dict()))
    places: dict[str, str] = {}
    size = 0
    for file in weight_files(like):
        part = {name: weights[name].cpu().contiguous() for name in shapes_in(file)}
        save_file(part, folder / file.name, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file.name)
        size += sum(weight.nbytes for weight in part.values())
    if not (like / WEIGHTS_FILE).is_file():
        write_json(folder / INDEX_FILE, {"metadata": {"total_size": size}, "weight_map": places})
    for file in like.glob("*.py"):
        shutil.copyfile(file, folder / file.name)


def _has_tokenizer(path: str | Path) -> bool:
    folder = Path(path)
    return (folder / _TOKENIZER_FILE).is_file() or all((folder / name).is_file() for name in _BPE_FILES)


@contextmanager
def _bars_for_large_models(size: int) -> Iterator[None]:
    """transformers' progress bars, only where `size` bytes take a while."""
    shown = logging.is_progress_bar_enabled()
    if size < _LARGE:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
