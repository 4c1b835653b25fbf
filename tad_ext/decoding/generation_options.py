"""What a call of ``model.generate`` asks for, as a `DecodeConfig` and as prompts without padding."""

import reprlib
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from tad_ext.settings import MAX_SEED, Between, Kind, kinds_of
from tad_ext.settings.kinds import shortened
from tad_ext.settings.options import did_you_mean

from .config import DecodeConfig
from .inputs import causal_block_length

# What `generate` has by another name, or not at all, with what to use.
_OTHERWISE = {
    "inputs": "input_ids",
    "gen_length": "max_new_tokens",
    "min_length": "min_new_tokens, which does not count the prompt",
    "infill": "tad_ext.decode, whose prompts hold masks",
}
_OF_DECODING = {field.name for field in fields(DecodeConfig)} - _OTHERWISE.keys()
_OF_TRANSFORMERS = {
    "max_new_tokens", "max_length", "min_new_tokens", "do_sample", "eos_token_id", "pad_token_id",
    "return_dict_in_generate",
}  # fmt: skip
# What tokenizers and saved configurations bring along, and which tokens are chosen does not depend on.
_HARMLESS = {
    "token_type_ids", "bos_token_id", "use_cache", "disable_compile", "transformers_version",
    # how an assistant would be used, which is refused itself
    "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind",
    "target_lookbehind",
}  # fmt: skip
# Values with which other options of transformers do nothing; so do None, False and what is empty.
_NEUTRAL = {
    "num_beams": 1, "num_beam_groups": 1, "num_return_sequences": 1, "repetition_penalty": 1, "length_penalty": 1,
    "encoder_repetition_penalty": 1, "encoder_no_repeat_ngram_size": 0, "typical_p": 1, "guidance_scale": 1,
    "min_length": 0, "no_repeat_ngram_size": 0, "diversity_penalty": 0, "epsilon_cutoff": 0, "eta_cutoff": 0,
}  # fmt: skip


def asked_for(generation_config: GenerationConfig | None, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are given, all of which have a meaning here. TypeError, ValueError for others, by name."""
    if not isinstance(generation_config, GenerationConfig | None):
        raise TypeError(
            f"generation_config must be a transformers GenerationConfig or None, got {type(generation_config).__name__}"
        )
    configured = {} if generation_config is None else vars(generation_config)
    known, asked = _OF_DECODING | _OF_TRANSFORMERS, {}
    for name, value in (configured | {key: one for key, one in options.items() if one is not None}).items():
        if name in known:
            if value is not None:
                asked[name] = value
        elif not (name in _HARMLESS or name.startswith("_") or _does_nothing(name, value)):
            hint = f"; expected {_OTHERWISE[name]}" if name in _OTHERWISE else did_you_mean(name, known)
            raise ValueError(f"{name} is {shortened(repr(value))}, which has no meaning in diffusion decoding{hint}")
    return asked


def _does_nothing(name: str, value: Any) -> bool:
    is_number = isinstance(value, int | float)
    empty = value is None or value is False or (hasattr(value, "__len__") and len(value) == 0)
    return empty or (is_number and name in _NEUTRAL and value == _NEUTRAL[name])


def prompts_in(input_ids: object, attention_mask: object, pad: int | None) -> tuple[Tensor, list[list[int]]]:
    """`input_ids`, and its rows without their padding. TypeError, ValueError."""
    # 1. Shapes and types.
    if not isinstance(input_ids, Tensor) or input_ids.dtype != torch.int64 or input_ids.dim() != 2:
        found = f"{input_ids.dtype} {tuple(input_ids.shape)}" if isinstance(input_ids, Tensor) else str(type(input_ids))
        raise TypeError(f"input_ids must be an int64 tensor of shape (B, L), got {found}")
    if not input_ids.numel():
        raise ValueError(f"input_ids must hold at least one token, got shape {tuple(input_ids.shape)}")
    rows: list[list[int]] = input_ids.tolist()
    # 2. Without a mask nothing is padding, which a batch with a padding token at its edges belies.
    if attention_mask is None:
        padded = [row for row, ids in enumerate(rows) if pad in (ids[0], ids[-1])]
        if padded and len(rows) > 1:
            raise ValueError(
                f"attention_mask is None, and row {padded[0]} of input_ids begins or ends with the padding token, "
                f"{pad}: expected the tokenizer's attention_mask"
            )
        return input_ids, rows
    # 3. With one, a prompt is the run of ones.
    if not isinstance(attention_mask, Tensor) or attention_mask.shape != input_ids.shape:
        found = str(tuple(attention_mask.shape) if isinstance(attention_mask, Tensor) else type(attention_mask))
        raise ValueError(f"attention_mask must have input_ids' shape, {tuple(input_ids.shape)}, got {found}")
    prompts = []
    for row, (ids, marks) in enumerate(zip(rows, attention_mask.tolist(), strict=True)):
        places = [place for place, mark in enumerate(marks) if mark]
        if not places or places != list(range(places[0], places[-1] + 1)) or any(mark not in (0, 1) for mark in marks):
            raise ValueError(
                f"attention_mask must be 1 for the tokens of a row, and 0 in front of them or behind, got "
                f"{reprlib.repr(marks)} in row {row}"
            )
        prompts.append(ids[places[0] : places[-1] + 1])
    return input_ids, prompts


def longest_response(asked: dict[str, Any], base: DecodeConfig, prompt_columns: int) -> int:
    """Tokens of a response, at most."""
    count = kinds_of(DecodeConfig)["gen_length"]
    if "max_new_tokens" in asked or "max_length" not in asked:
        return int(count.checked("max_new_tokens", asked.get("max_new_tokens", base.gen_length)))
    whole = int(count.checked("max_length", asked["max_length"]))
    if whole <= prompt_columns:
        raise ValueError(f"max_length is {whole}: expected more than the {prompt_columns} columns of input_ids")
    return whole - prompt_columns


def changes_of(asked: dict[str, Any], base: DecodeConfig, longest: int, model: Any) -> dict[str, Any]:
    """The fields of `base` that are to be others, for responses of at most `longest` tokens."""
    own = {name: value for name, value in asked.items() if name in _OF_DECODING}
    lengths = _lengths(asked, base, longest, causal_block_length(model))
    return own | lengths | _ends(asked, model) | _sampling(asked, base)


def _lengths(asked: dict[str, Any], base: DecodeConfig, longest: int, own: int | None) -> dict[str, Any]:
    """Of canvas and block, of which a model may have its `own`. Where a block was the whole canvas, it is again."""
    whole = base.block_length == base.gen_length
    block_length = asked.get("block_length", own or (longest if whole else min(base.block_length, longest)))
    block_length = kinds_of(DecodeConfig)["block_length"].checked("block_length", block_length)
    lengths = {"block_length": block_length, "gen_length": -(-longest // block_length) * block_length}
    if "min_new_tokens" in asked:
        lengths["min_length"] = Kind(int, Between(0, longest)).checked("min_new_tokens", asked["min_new_tokens"])
    return lengths


def _ends(asked: dict[str, Any], model: Any) -> dict[str, Any]:
    """What ends a response."""
    ends: dict[str, Any] = {}
    if isinstance(asked.get("stop_strings"), str):
        ends["stop_strings"] = (asked["stop_strings"],)
    if "eos_token_id" in asked:
        ids = _ids("eos_token_id", asked["eos_token_id"])
        if ids != _ids("model.config.eos_token_id", getattr(model.config, "eos_token_id", None) or ()):
            ends["eos_token_ids"] = ids
    return ends


def _ids(name: str, value: Any) -> tuple[int, ...]:
    """One id or several."""
    listed = value.flatten().tolist() if isinstance(value, Tensor) else value
    ids: tuple[int, ...] = Kind(int, is_list=True).checked(name, [listed] if isinstance(listed, int) else listed)
    return ids


def _sampling(asked: dict[str, Any], base: DecodeConfig) -> dict[str, Any]:
    """Temperature, truncation and seed."""
    do_sample = Kind(bool, optional=True).checked("do_sample", asked.get("do_sample"))
    plain: dict[str, Any] = {"top_k": None, "top_p": 1.0}
    if do_sample is False:  # transformers' greedy, which reads none of these
        return plain | {"temperature": 0.0}
    temperature = asked.get("temperature", base.temperature or (1.0 if do_sample else 0.0))
    if do_sample and temperature == 0:
        raise ValueError("do_sample is True and temperature is 0: expected one above 0, or do_sample=False")
    chosen: dict[str, Any] = {"temperature": temperature}
    if temperature == 0:
        chosen |= {name: value for name, value in plain.items() if name not in asked}
    elif "seed" not in asked:
        chosen["seed"] = int(torch.randint(MAX_SEED, ()))
    if asked.get("top_k") == 0:  # transformers' word for none
        chosen["top_k"] = None
    return chosen
