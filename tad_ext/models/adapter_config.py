"""Which of peft's LoRA options are supported, in an adapter_config.json and in a model that peft itself has adapted.

The promise: with the adapter off the model is the base model, bit for bit (`lora.teacher`), and merged it is the
adapted one. An option that is not known to keep it must be off: null, false or empty.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
from peft import LoraConfig

from tad_ext.models.checkpoint import read_json

# Options that may have any value.
_FREE = (
    # peft makes the matrices, scales them and puts them on layers as these say; `modules_to_save` are trained copies
    "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "fan_in_fan_out",
    # where the adapter comes from and what it was for
    "auto_mapping", "base_model_name_or_path", "revision", "task_type", "peft_version", "inference_mode",
    # of the machine that trained it
    "runtime_config",
    # read only along with another option, which has to be off, or by the start of a training
    "megatron_core", "qalora_group_size", "eva_config", "loftq_config", "corda_config", "lora_ga_config",
)  # fmt: skip
# The supported values of options whose others break the promise, and how.
_VALUES: dict[str, tuple[tuple[Any, ...], str]] = {
    "peft_type": (("LORA",), "another kind of adapter"),
    "bias": (("none",), "trained biases stand in the base model's place and cannot be switched off"),
    "init_lora_weights": (
        (True, False, "gaussian", "eva", "orthogonal", "mica"),
        "this start changes the base weights; convert the adapter with peft: "
        "save_pretrained(..., path_initial_model_for_weight_conversion=...)",
    ),
}
_OF_PEFT = {field.name for field in dataclasses.fields(LoraConfig)}


def read_adapter_config(path: Path, *, trainable: bool = False) -> LoraConfig:
    """The configuration in an adapter_config.json. ValueError, with the file, for what is not supported.

    `trainable`: of an adapter to train on. Modules trained as a whole would have the base model's dtype, in which small
    steps vanish, and are no part of one.
    """
    fields, where = read_json(path), f"{str(path)!r}"
    missing = [name for name in ("peft_type", "target_modules") if fields.get(name) is None]
    if missing:
        raise ValueError(f"{where} is not the configuration of a LoRA adapter: it names no {' and no '.join(missing)}")
    check_options(fields, where)
    if trainable and fields.get("modules_to_save"):
        raise ValueError(f"{where}: modules_to_save is {fields['modules_to_save']!r}; expected none in one to train on")
    targets, rank = fields["target_modules"], fields.get("r", 8)
    if not isinstance(targets, str | list) or not all(isinstance(name, str) for name in targets):
        raise ValueError(f"{where}: target_modules is {targets!r}; expected names or a regular expression")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"{where}: r is {rank!r}; expected an integer >= 1")
    known = _OF_PEFT - {"runtime_config", "task_type"}  # the latter would choose another wrapper
    try:
        given = {name: value for name, value in fields.items() if name in known}
        return LoraConfig(**{**given, "inference_mode": not trainable})
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"{where} is not the configuration of a LoRA adapter: {error}") from error


def check_options(options: Mapping[str, Any], where: str) -> None:
    """ValueError for options of an adapter that may break the promise: `where`, option, value and what is supported."""
    for name, value in options.items():
        supported, reason = _VALUES.get(name, ((), ""))
        is_off = value is None or value is False or value in ("", [], {})
        if supported and value not in supported:
            raise ValueError(f"{where}: {name} is {value!r}; supported: {', '.join(map(repr, supported))} ({reason})")
        if not (supported or name in _FREE or name.startswith("_") or is_off):
            newer = "" if name in _OF_PEFT else f", unknown to peft {peft.__version__}: it may be of a newer peft"
            raise ValueError(f"{where}: {name} is {value!r}{newer}; supported: null, false or empty")
