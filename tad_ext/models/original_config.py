"""Configurations that read and write config.json in the fields of a model's authors, whatever transformers calls them.

In memory a configuration has transformers' names (``hidden_size``), because the layers are transformers'; on disk it
has the original ones (``d_model`` in LLaDA), so that checkpoints written here are read by the original code, too.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from tad_ext.models.config_keys import one_of, read_keys, same

_COMMON = ("head_dim", "bos_token_id", "eos_token_ids", "suppress_token_ids", "rope_theta", "torch_dtype")


class OriginalConfig(PreTrainedConfig):
    """Base of :class:`LLaDAConfig` and :class:`DreamConfig`, mixed into the configuration of the transformers model.

    Attributes:
        mask_token_id: id of the mask token.
        eos_token_ids: ids that end a response. Optional in config.json, which by itself names only ``eos_token_id``;
            by default that one and, for the published vocabulary, the end of a chat turn.
        suppress_token_ids: ids that must never be chosen. `load_model` adds the ids that the logits cover and no token
            of the tokenizer has; those are not written to config.json.
        original_fields: config.json as it was read, each setting under its original name; what is not interpreted here
            is written back unchanged.
    """

    # Original name -> ours, of all fields that are interpreted, but for rope_theta.
    NAMES: ClassVar[dict[str, str]]
    # What the original code assumes of a field that config.json does not name.
    DEFAULTS: ClassVar[dict[str, Any]]
    # Fields whose other values ask for layers that are not here, with the values that do not.
    SUPPORTED: ClassVar[dict[str, tuple[Any, ...]]]
    SIZES: ClassVar[tuple[str, ...]]  # fields that are integers >= 1
    HARMLESS: ClassVar[tuple[str, ...]]  # fields of the original that are not interpreted and may have any value
    END_OF_TURN: ClassVar[dict[int, int]]  # published end-of-text id -> published end-of-turn id

    is_causal: bool = False
    use_cache: bool = False
    mask_token_id: int | None = None
    eos_token_ids: list[int] | None = None
    suppress_token_ids: list[int] | None = None
    original_fields: dict[str, Any] | None = None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The configuration described by an original config.json.

        Raises:
            ValueError: an option that is not supported or not understood, or a field that is missing or out of range
                (named, with its value and what was expected).
        """
        original = cls._read(config_dict)
        fields = cls.resolve({**cls.DEFAULTS, **original})
        for name, supported in cls.SUPPORTED.items():
            if not any(same(fields.get(name), option) for option in supported):
                source = "" if name in config_dict else " (the original's default; config.json does not name it)"
                raise ValueError(f"{name} is {fields.get(name)!r}{source}; supported: {one_of(supported)}")
        cls._check_numbers(fields)
        cls._check_ids(fields)
        ours = {name: fields[original] for original, name in cls.NAMES.items() if original in fields}
        return super().from_dict(
            {
                **ours,
                "rope_parameters": {"rope_type": "default", "rope_theta": float(fields["rope_theta"])},
                "architectures": fields.get("architectures"),
                "dtype": fields.get("torch_dtype"),
                "eos_token_ids": fields.get("eos_token_ids") or cls._default_ends(fields["eos_token_id"]),
                "suppress_token_ids": fields.get("suppress_token_ids"),
                "original_fields": {name: value for name, value in original.items() if not name.startswith("_")},
            },
            **kwargs,
        )

    @classmethod
    def _read(cls, config_dict: dict[str, Any]) -> dict[str, Any]:
        """config.json under the original names; transformers' names are understood, too."""
        own = {*cls.NAMES, *cls.DEFAULTS, *cls.SUPPORTED, *cls.HARMLESS, *_COMMON}
        return read_keys(
            config_dict,
            understood=own,
            spellings={original: (name,) for original, name in cls.NAMES.items() if name not in own},
        )

    def to_diff_dict(self) -> dict[str, Any]:
        """What config.json holds: the original fields."""
        supported = {name: values[0] for name, values in self.SUPPORTED.items() if values[0] is not None}
        fields = {**self.DEFAULTS, **supported, **(self.original_fields or {})}
        ours = super().to_dict()
        fields |= {original: ours[name] for original, name in self.NAMES.items()}
        fields["rope_theta"] = self.rope_parameters["rope_theta"]
        optional = {"eos_token_ids": ours["eos_token_ids"], "torch_dtype": ours.get("dtype")}
        if optional["eos_token_ids"] == self._default_ends(self.eos_token_id):
            optional["eos_token_ids"] = None
        for name, value in optional.items():
            fields.pop(name, None)
            fields |= {} if value is None else {name: value}
        return fields | {name: ours[name] for name in ("model_type", "architectures", "transformers_version")}

    @classmethod
    def resolve(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Fields whose value follows from others, filled in."""
        return fields

    @classmethod
    def _default_ends(cls, eos_token_id: Any) -> list[int]:
        ends = eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
        turns = [cls.END_OF_TURN[end] for end in ends if end in cls.END_OF_TURN]
        return ends + [end for end in turns if end not in ends]

    @classmethod
    def _check_numbers(cls, fields: dict[str, Any]) -> None:
        for name in cls.SIZES:
            if not _is_integer(fields.get(name)) or fields[name] < 1:
                raise ValueError(f"{name} is {_shown(fields, name)}; expected an integer >= 1")
        for name in ("rope_theta", "rms_norm_eps"):
            if not _is_number(fields.get(name)) or not 0 < fields[name] < math.inf:
                raise ValueError(f"{name} is {_shown(fields, name)}; expected a finite number > 0")
        if not _is_number(fields.get("attention_dropout")) or not 0 <= fields["attention_dropout"] < 1:
            raise ValueError(f"attention_dropout is {_shown(fields, 'attention_dropout')}; expected 0 <= number < 1")
        ours = {name: original for original, name in cls.NAMES.items()}
        width, heads, groups = (ours[name] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
        for whole, part in ((width, heads), (heads, groups)):
            if fields[whole] % fields[part]:
                raise ValueError(f"{whole} is {fields[whole]}; expected a multiple of {part}, {fields[part]}")
        if fields.get("head_dim") not in (None, fields[width] // fields[heads]):
            raise ValueError(
                f"head_dim is {fields['head_dim']!r}; supported: {width} / {heads}, {fields[width] // fields[heads]}"
            )

    @classmethod
    def _check_ids(cls, fields: dict[str, Any]) -> None:
        key = next(original for original, name in cls.NAMES.items() if name == "vocab_size")
        size = int(fields[key])

        def is_id(value: object) -> bool:
            return _is_integer(value) and 0 <= value < size  # type: ignore[operator]

        for name in ("mask_token_id", "eos_token_id", "bos_token_id", "pad_token_id"):
            value = fields.get(name)
            optional = value is None and name in ("bos_token_id", "pad_token_id")
            several = name == "eos_token_id" and isinstance(value, list) and value and all(map(is_id, value))
            if not (is_id(value) or optional or several):
                raise ValueError(f"{name} is {_shown(fields, name)}; expected an id in [0, {size}), the {key}")
        for name in ("eos_token_ids", "suppress_token_ids"):
            value = fields.get(name) or []
            if not isinstance(value, list) or not all(map(is_id, value)):
                raise ValueError(f"{name} is {value!r}; expected a list of ids in [0, {size}), the {key}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(fields: dict[str, Any], name: str) -> str:
    return repr(fields[name]) if name in fields else "missing"
