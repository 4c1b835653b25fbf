"""The keys of a config.json, whichever program wrote it: one spelling for every setting, and a decision on every key.

A key is understood (the model's configuration reads it), harmless (listed here or by the configuration, with the
reason), or refused by name: it may ask for layers that are not here, which would give other logits in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import GenerationConfig

DTYPES = ("bfloat16", "float16", "float32", "float64")

# Keys of any model that change neither what weights mean nor what layers compute, by the reason why.
HARMLESS: dict[str, str] = {
    "notes on the file and the code that reads it": "architectures auto_map model_type tokenizer_class "
    "transformers_version",
    "labels and tasks of other heads": "finetuning_task id2label label2id num_labels prefix problem_type "
    "task_specific_params",
    "what forwards return, in which pieces and formats": "chunk_size_feed_forward output_attentions "
    "output_hidden_states return_dict tf_legacy_loss torchscript use_bfloat16 use_cache",
    "of models with an encoder": "add_cross_attention cross_attention_hidden_size decoder_start_token_id "
    "is_encoder_decoder sep_token_id tie_encoder_decoder",
    "how transformers would generate": " ".join(GenerationConfig().to_dict()),
    "biases stand among the weights, of which none may be missing or left over": "attention_bias mlp_bias",
    "the layers have no such option any more": "pretraining_tp",
}
# Further spellings of a setting, by the name it is read under.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "rope_theta": ("rope_parameters.rope_theta", "rope_scaling.rope_theta"),
    "torch_dtype": ("dtype",),
}
_NOT_CAUSAL = ("is_causal", "is_decoder")
_PLAIN_ROTATION = (("rope_type", "default"), ("type", "default"))
_ROTATIONS = ("rope_parameters", "rope_scaling")  # the new and the old name of the same object


def read_keys(
    fields: Mapping[str, Any], *, understood: Iterable[str], spellings: Mapping[str, tuple[str, ...]] | None = None
) -> dict[str, Any]:
    """The settings of a config.json, each under one name: ``rope_theta`` for that of ``rope_parameters``, for example.

    Args:
        fields: the file's content.
        understood: names that the caller reads, or knows to be harmless.
        spellings: further names of some of them, besides those that transformers gave in the course of time.

    Raises:
        ValueError: a key that nothing reads and that is not null, two spellings that disagree, a rotation that is
            scaled, a layer that sees a part of the sequence only, or an unknown dtype. Key and value are named.
    """
    fields = _whole_attention(_plain_rotation(fields))
    for name, others in {**_SPELLINGS, **(spellings or {})}.items():
        found = {key: fields.pop(key) for key in (name, *others) if key in fields}
        if found:
            fields[name] = _agreed(found)
    if fields.get("torch_dtype") not in (None, *DTYPES):
        raise ValueError(f"torch_dtype is {fields['torch_dtype']!r}; supported: {one_of((None, *DTYPES))}")
    known = {*understood, *_SPELLINGS, *" ".join(HARMLESS.values()).split()}
    for name, value in fields.items():
        if value is not None and name not in known and not name.startswith("_"):  # transformers' own notes
            raise ValueError(
                f"{name} is {value!r}, a key that is not understood and may ask for layers that are not here; "
                f"supported: no such key, or null"
            )
    return fields


def same(value: object, option: object) -> bool:
    """Equality of JSON values, for which 0 is not false."""
    return value == option and isinstance(value, bool) == isinstance(option, bool)


def one_of(values: Iterable[Any]) -> str:
    """The supported values, for a message."""
    return " or ".join(map(repr, values))


def _agreed(found: dict[str, Any]) -> Any:
    """The value of one setting under its names; null names none."""
    given = {name: value for name, value in found.items() if value is not None}
    for name, value in given.items():
        first = next(iter(given))
        if not same(value, given[first]):
            raise ValueError(
                f"{first} is {given[first]!r} and {name} is {value!r}, two names of one setting; expected one value"
            )
    return next(iter(given.values()), None)


def _plain_rotation(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with the rotation's theta as a key like any other, and nothing else left of the rotation."""
    plain = {name: value for name, value in fields.items() if name not in _ROTATIONS}
    for name in _ROTATIONS:
        rotation = {} if fields.get(name) is None else fields[name]
        given = (
            {key: item for key, item in rotation.items() if item is not None} if isinstance(rotation, dict) else None
        )
        theta = (given or {}).pop("rope_theta", None)
        if given is None or any(entry not in _PLAIN_ROTATION for entry in given.items()):
            raise ValueError(
                f"{name} is {rotation!r}; supported: None or {{'rope_type': 'default', 'rope_theta': ...}}"
            )
        plain[f"{name}.rope_theta"] = theta
    return plain


def _whole_attention(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields`, where every layer attends to the whole sequence in both directions."""
    types = fields.get("layer_types")
    if types is not None and (not isinstance(types, list) or any(kind != "full_attention" for kind in types)):
        raise ValueError(f"layer_types is {types!r}; supported: None or 'full_attention' in every layer")
    for name in _NOT_CAUSAL:
        if fields.get(name) not in (None, False):
            raise ValueError(f"{name} is {fields[name]!r}; supported: False")
    return {name: value for name, value in fields.items() if name not in ("layer_types", *_NOT_CAUSAL)}
