"""config.json, whichever program wrote it: one spelling for every setting, and a decision on every key.

A key is understood, harmless (for a reason that is given), or refused by name: it may ask for layers that are not here.
In memory a configuration has the names of transformers (``hidden_size``); in the file that of a published model has its
authors' (``d_model`` in LLaDA), so that the original code reads what is written here, too.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from transformers import GenerationConfig, PreTrainedConfig

# Keys of any model that change neither what weights mean nor what layers compute, by the reason why.
_HARMLESS: dict[str, str] = {
    "notes on the file": "architectures auto_map model_type tokenizer_class transformers_version",
    "of other heads": "finetuning_task id2label label2id num_labels prefix problem_type task_specific_params",
    "what forwards return, in which pieces and formats": "chunk_size_feed_forward output_attentions "
    "output_hidden_states return_dict tf_legacy_loss torchscript use_bfloat16 use_cache",
    "of models with an encoder": "add_cross_attention cross_attention_hidden_size decoder_start_token_id "
    "is_encoder_decoder sep_token_id tie_encoder_decoder",
    "how transformers would generate": " ".join(GenerationConfig().to_dict()),
    "biases stand among the weights, of which none may be missing or left over": "attention_bias mlp_bias",
    "the layers have no such option any more": "pretraining_tp",
}
# Further spellings of a setting, by the name it is read under.
_SPELLINGS = {"rope_theta": ("rope_parameters.rope_theta", "rope_scaling.rope_theta"), "torch_dtype": ("dtype",)}
_PLAIN_ROTATION = (("rope_type", "default"), ("type", "default"))
# Keys of every published model that are read here, besides those it names.
_COMMON = ("head_dim", "bos_token_id", "eos_token_ids", "suppress_token_ids", "rope_theta", "torch_dtype")
SIZES = (
    "hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "intermediate_size",
    "vocab_size", "max_position_embeddings",
)  # fmt: skip
Rule = Callable[[dict[str, Any]], Any]  # what a field is, from the others


def read_keys(
    fields: Mapping[str, Any], *, understood: Iterable[str], spellings: Mapping[str, tuple[str, ...]] | None = None
) -> dict[str, Any]:
    """The settings of a config.json, each under one name: ``rope_theta`` for that of ``rope_parameters``, for example.

    `understood` are names that the caller reads, or knows to be harmless; some have further `spellings`.

    Raises:
        ValueError, with key and value: a key that nothing reads and that is not null, two spellings that disagree, a
            scaled rotation, a layer that sees a part of the sequence only, or an unknown dtype.
    """
    fields = dict(fields)
    # 1. Every layer attends to the whole sequence in both directions.
    types = fields.pop("layer_types", None)
    if types is not None and (not isinstance(types, list) or any(kind != "full_attention" for kind in types)):
        raise ValueError(f"layer_types is {types!r}; supported: None or 'full_attention' in every layer")
    for name in ("is_causal", "is_decoder"):
        _check_option(name, fields.pop(name, None) or False, (False,))
    # 2. The rotation is plain, and its theta a key like any other.
    for name in ("rope_parameters", "rope_scaling"):  # the new and the old name of one object
        rotation = fields.pop(name, None)
        parts = dict(rotation) if isinstance(rotation, dict) else {"": rotation}
        fields[f"{name}.rope_theta"] = parts.pop("rope_theta", None)
        if any(part is not None and (key, part) not in _PLAIN_ROTATION for key, part in parts.items()):
            raise ValueError(
                f"{name} is {rotation!r}; supported: None or {{'rope_type': 'default', 'rope_theta': ...}}"
            )
    # 3. Every setting has one value; null is none.
    for name, others in {**_SPELLINGS, **(spellings or {})}.items():
        found = {key: fields.pop(key) for key in (name, *others) if key in fields}
        given = {key: value for key, value in found.items() if value is not None}
        first = next(iter(given), name)
        for key, value in given.items():
            if not _same(value, given[first]):
                raise ValueError(
                    f"{first} is {given[first]!r} and {key} is {value!r}, two names of one setting; expected one value"
                )
        if found:
            fields[name] = given.get(first)
    _check_option("torch_dtype", fields.get("torch_dtype"), (None, "bfloat16", "float16", "float32", "float64"))
    # 4. Every key is known.
    known = {*understood, *_SPELLINGS, *" ".join(_HARMLESS.values()).split()}
    for name, value in fields.items():
        if value is not None and name not in known and not name.startswith("_"):  # transformers' own notes
            raise ValueError(
                f"{name} is {value!r}, a key that is not understood and may ask for layers that are not here; "
                f"supported: no such key, or null"
            )
    return fields


def _check_option(name: str, value: Any, supported: tuple[Any, ...], note: str = "") -> None:
    if not any(_same(value, option) for option in supported):
        raise ValueError(f"{name} is {value!r}{note}; supported: {' or '.join(map(repr, supported))}")


def _same(value: object, option: object) -> bool:
    """Equality of JSON values, for which 0 is not false."""
    return value == option and isinstance(value, bool) == isinstance(option, bool)


class DiffusionConfig(PreTrainedConfig):
    """What every masked diffusion model has beside its layers, mixed into the configuration of a transformers model."""

    is_causal: bool = False
    use_cache: bool = False
    mask_token_id: int | None = None
    eos_token_ids: list[int] | None = None  #: ids that end a response
    suppress_token_ids: list[int] | None = None  #: ids that must never be chosen; the mask id need not be among them
    causal_block_length: int | None = None  #: attention is causal in blocks of so many; None: it is not
    shift: ClassVar[int] = 0  #: how many positions before its own a token's prediction stands: 0 or 1


class OriginalConfig(DiffusionConfig):
    """Of a published model, :class:`LLaDAConfig` or :class:`DreamConfig`: read and written in its authors' fields.

    Attributes:
        eos_token_ids: by default ``eos_token_id`` and, for the published vocabulary, the end of a chat turn.
        suppress_token_ids: written to config.json only if read from there: not those that `load_model` adds.
        original_fields: config.json as it was read, under original names; what is not interpreted is written back.
    """

    NAMES: ClassVar[dict[str, str]]  # original name -> ours, of all fields that are interpreted, but for rope_theta
    DEFAULTS: ClassVar[dict[str, Any]]  # what the original code assumes of a field that config.json does not name
    DERIVED: ClassVar[dict[str, Rule]]  # of fields that follow from others where they are null
    # Fields whose other values ask for layers that are not here, with the values that do not.
    SUPPORTED: ClassVar[dict[str, tuple[Any, ...]]]
    HARMLESS: ClassVar[tuple[str, ...]]  # fields of the original that are not interpreted and may have any value
    END_OF_TURN: ClassVar[dict[int, int]]  # published end-of-text id -> published end-of-turn id
    # By our names, those of which a family may have a name of its own, or none: all that must be integers >= 1.
    SIZES: ClassVar[tuple[str, ...]] = (*SIZES, "head_dim", "causal_block_length")

    original_fields: dict[str, Any] | None = None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The configuration described by an original config.json; transformers' names are understood, too.

        ValueError: an option that is not supported or understood, a field that is missing or out of range, by name.
        """
        own = {*cls.NAMES, *cls.DEFAULTS, *cls.SUPPORTED, *cls.HARMLESS, *_COMMON}
        spellings = {original: (name,) for original, name in cls.NAMES.items() if name not in own}
        original = read_keys(config_dict, understood=own, spellings=spellings)
        fields = {**cls.DEFAULTS, **original}
        fields |= {name: derive(fields) for name, derive in cls.DERIVED.items() if fields[name] is None}
        for name, supported in cls.SUPPORTED.items():
            note = "" if name in config_dict else " (the original's default; config.json does not name it)"
            _check_option(name, fields.get(name), supported, note)
        cls.check_ranges(fields)
        ours = {name: fields[original] for original, name in cls.NAMES.items() if original in fields}
        return super().from_dict(
            {
                **ours,
                "rope_parameters": cls.rotation(fields),
                "architectures": fields.get("architectures"),
                "dtype": fields.get("torch_dtype"),
                "eos_token_ids": fields.get("eos_token_ids") or cls._default_ends(fields["eos_token_id"]),
                "suppress_token_ids": fields.get("suppress_token_ids"),
                "original_fields": {name: value for name, value in original.items() if not name.startswith("_")},
            },
            **kwargs,
        )

    @classmethod
    def rotation(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """transformers' ``rope_parameters``."""
        return {"rope_type": "default", "rope_theta": float(fields["rope_theta"])}

    @classmethod
    def check_ranges(cls, fields: dict[str, Any]) -> None:
        """ValueError for a field, by its original name, that is missing or out of range."""
        named = {name: original for original, name in cls.NAMES.items()}
        size, width, heads, groups = (named[name] for name in ("vocab_size", *SIZES[:3]))
        ids = f"in [0, {fields.get(size)}), the {size}"

        def is_id(value: Any) -> bool:
            return type(value) is int and 0 <= value < fields[size]

        def are_ids(value: Any) -> bool:
            return isinstance(value, list) and all(map(is_id, value))

        numbers = (int, float)  # a bool is none
        # Sizes first, because ids are compared with one.
        sizes = [named[name] for name in cls.SIZES if name in named]
        checks: tuple[tuple[Iterable[str], Callable[[Any], Any], str], ...] = (
            (sizes, lambda v: type(v) is int and v >= 1, "an integer >= 1"),
            (("rope_theta", "rms_norm_eps"), lambda v: type(v) in numbers and 0 < v < math.inf, "a finite number > 0"),
            (("attention_dropout",), lambda v: type(v) in numbers and 0 <= v < 1, "0 <= number < 1"),
            (("mask_token_id",), is_id, f"an id {ids}"),
            (("eos_token_id",), lambda v: is_id(v) or (v and are_ids(v)), f"an id {ids}"),
            (("bos_token_id", "pad_token_id"), lambda v: v is None or is_id(v), f"an id {ids}"),
            (("eos_token_ids", "suppress_token_ids"), lambda v: not v or are_ids(v), f"a list of ids {ids}"),
        )
        for names, fits, expected in checks:
            for name in names:
                if not fits(fields.get(name)):
                    found = repr(fields[name]) if name in fields else "missing"
                    raise ValueError(f"{name} is {found}; expected {expected}")
        head_is_free = "head_dim" in cls.NAMES
        for whole, part in ((heads, groups),) if head_is_free else ((width, heads), (heads, groups)):
            if fields[whole] % fields[part]:
                raise ValueError(f"{whole} is {fields[whole]}; expected a multiple of {part}, {fields[part]}")
        if not head_is_free:
            head = fields[width] // fields[heads]
            _check_option("head_dim", fields.get("head_dim"), (None, head), f", not {width} / {heads}")

    def to_diff_dict(self) -> dict[str, Any]:
        """What config.json holds: the original fields."""
        ours = super().to_dict()
        supported = {name: values[0] for name, values in self.SUPPORTED.items() if values[0] is not None}
        fields = {"vocab_size": self.vocab_size, **self.DEFAULTS, **supported, **(self.original_fields or {})}
        fields |= {original: getattr(self, name) for original, name in self.NAMES.items()}
        fields |= {name: ours[name] for name in ("model_type", "transformers_version")}
        fields["architectures"] = fields.get("architectures") or ours["architectures"]
        fields |= {"rope_theta": self.rope_parameters["rope_theta"], "torch_dtype": ours.get("dtype")}
        ends = ours["eos_token_ids"]
        fields["eos_token_ids"] = None if ends == self._default_ends(self.eos_token_id) else ends
        optional = ("torch_dtype", "eos_token_ids")
        return {name: value for name, value in fields.items() if not (value is None and name in optional)}

    @classmethod
    def _default_ends(cls, eos_token_id: Any) -> list[int]:
        ends = eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
        turns = [cls.END_OF_TURN[end] for end in ends if end in cls.END_OF_TURN]
        return ends + [end for end in turns if end not in ends]
