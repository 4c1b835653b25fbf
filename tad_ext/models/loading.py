"""Load and save masked diffusion checkpoints: safetensors and our own model classes, no pickle, no code from outside.

A checkpoint is a folder with ``config.json``, ``model.safetensors`` (or shards and ``model.safetensors.index.json``)
and the tokenizer's files. transformers replaces missing weights by random ones and says so in a warning; here every
mismatch is an error, found in the headers of the weight files, before any memory is filled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from tad_ext.files import atomic_folder
from tad_ext.models.tiny import TinyDiffusionLM

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

MODEL_CLASSES: dict[str, type[PreTrainedModel]] = {
    model_class.config_class.model_type: model_class for model_class in (TinyDiffusionLM,)
}
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SAMPLES, _SAMPLE_BYTES = 64, 65536
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
        A MaskedDiffusionMixin: one of `MODEL_CLASSES`.

    Raises:
        ValueError: no such folder, no or broken config.json, a model type we have no class for, weights as pickle
            only, a damaged weights file, weights missing, unexpected or of the wrong shape (named), an unknown dtype
            or device.
    """
    dtype, device = resolve_dtype(dtype), resolve_device(device)
    path = Path(path)
    model_class, config = _model_class(path), load_config(path)
    _compare(_expected_shapes(model_class, config), stored_shapes(path), path)
    size = sum(file.stat().st_size for file in weight_files(path))
    with _bars_for_large_models(size):
        model = model_class.from_pretrained(
            path, config=config, dtype="auto" if dtype is None else dtype, use_safetensors=True, local_files_only=True
        )
    return model.to(device).eval()


def load_config(path: str | Path) -> PreTrainedConfig:
    """The configuration of a checkpoint folder. ValueError if it is none, or of a model type we have no class for."""
    return _model_class(Path(path)).config_class.from_pretrained(path, local_files_only=True)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint folder (never running code from it). ValueError if there is none."""
    load_config(path)  # says what is wrong with a folder that is no checkpoint, before transformers guesses
    path = Path(path)
    if not (path / "tokenizer_config.json").is_file() and not (path / "tokenizer.json").is_file():
        raise ValueError(f"model must be a folder with a tokenizer (tokenizer.json), got path {str(path)!r}")
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (json.JSONDecodeError, KeyError, OSError) as error:
        raise ValueError(f"the tokenizer files in {str(path)!r} are damaged: {error}") from error


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


def model_fingerprint(path: str | Path) -> str:
    """16 hexadecimal digits that tell checkpoints apart: SHA-256 over config.json and the weight files.

    Of a weight file: its name, its size and 64 evenly spaced samples of 64 KiB (files up to 4 MiB are read whole), so
    that 16 GB take milliseconds. Fit to recognise a checkpoint, not to protect against forgery.
    """
    path = Path(path)
    digest = hashlib.sha256(_read_config_bytes(path))
    for file in weight_files(path):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            for sample in range(_SAMPLES):
                stream.seek(max(size - _SAMPLE_BYTES, 0) * sample // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def weight_files(path: str | Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order of name; ValueError if there are none or one is missing."""
    path = Path(path)
    index = path / INDEX_FILE
    if (path / WEIGHTS_FILE).is_file():
        return [path / WEIGHTS_FILE]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{index} is not a safetensors index: {error!r}") from error
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise ValueError(f"{index} names weight files outside the checkpoint's folder: {_listed(outside)}")
        absent = [name for name in names if not (path / name).is_file()]
        if absent:
            raise ValueError(f"checkpoint {path} is incomplete: {INDEX_FILE} names missing files {_listed(absent)}")
        return [path / name for name in names]
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLE_SUFFIXES)
    if pickles:
        raise ValueError(
            f"checkpoint {path} holds its weights as pickle only ({_listed(pickles)}), which can run code and is "
            f"never loaded; expected {WEIGHTS_FILE} (convert it with safetensors)"
        )
    raise ValueError(f"checkpoint {path} holds no weights; expected {WEIGHTS_FILE} or {INDEX_FILE}")


def stored_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight stored in a checkpoint folder, from the file headers alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(path):
        try:
            with safe_open(file, framework="pt") as weights:
                stored = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file} is damaged or not a safetensors file: {error}") from error
        twice = sorted(shapes.keys() & stored.keys())
        if twice:
            raise ValueError(f"{file} holds weights that an earlier shard holds, too: {_listed(twice)}")
        shapes |= stored
    return shapes


def resolve_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A dtype by name; None for None and "auto": the checkpoint's own. ValueError for anything but floating point."""
    if dtype is None or dtype == "auto":
        return None
    resolved = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if resolved not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise ValueError(f"dtype must be auto, float32, bfloat16, float16 or float64, got {dtype!r}")
    return resolved


def resolve_device(device: torch.device | str | None) -> torch.device:
    """A device by name; None and "auto": a GPU if there is one, else the CPU. ValueError if the machine lacks it."""
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'auto' or a torch device such as 'cuda:0', got {device!r}") from error
    if resolved.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")
    count = torch.cuda.device_count()
    if resolved.type == "cuda" and (resolved.index or 0) >= count:
        raise ValueError(f"device must be a device of this machine, got {device!r} ({count} GPU(s) found)")
    return resolved


def _read_config_bytes(path: Path) -> bytes:
    if not path.is_dir():
        raise ValueError(f"model must be a checkpoint folder, got path {str(path)!r}, which is no folder")
    if not (path / CONFIG_FILE).is_file():
        raise ValueError(f"model must be a checkpoint folder, got path {str(path)!r}, which holds no {CONFIG_FILE}")
    return (path / CONFIG_FILE).read_bytes()


def _model_class(path: Path) -> type[PreTrainedModel]:
    content = _read_config_bytes(path)
    try:
        model_type = json.loads(content).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path / CONFIG_FILE} is not a JSON object: {error}") from error
    if model_type not in MODEL_CLASSES:
        supported = _listed(sorted(MODEL_CLASSES))
        raise ValueError(f"{path / CONFIG_FILE} names model_type {model_type!r}; supported are {supported}")
    return MODEL_CLASSES[model_type]


def _expected_shapes(model_class: type[PreTrainedModel], config: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what the model saves, on the meta device, hence without memory; a tied weight is saved once."""
    with torch.device("meta"):
        model = model_class(config)
    shared = set(model._tied_weights_keys or {}) if config.tie_word_embeddings else set()
    return {name: tuple(weight.shape) for name, weight in nn.Module.state_dict(model).items() if name not in shared}


def _compare(expected: dict[str, tuple[int, ...]], stored: dict[str, tuple[int, ...]], path: Path) -> None:
    shared = expected.keys() & stored.keys()
    wrong = [f"{key} {stored[key]} instead of {expected[key]}" for key in shared if stored[key] != expected[key]]
    problems = {
        "missing weights": expected.keys() - stored.keys(),
        "unexpected weights": stored.keys() - expected.keys(),
        "weights of the wrong shape": wrong,
    }
    found = [f"{what}: {_listed(sorted(keys))}" for what, keys in problems.items() if keys]
    if found:
        raise ValueError(f"checkpoint {path} does not fit its {CONFIG_FILE}; {'; '.join(found)}")


def _listed(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
