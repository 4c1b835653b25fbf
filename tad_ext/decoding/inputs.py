"""Everything that `decode` checks about the model and the prompts before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tad_ext.settings import Between, Kind

from .config import DecodeConfig

GRAPH_DEVICES = ("cuda",)


def has_graphs(device: torch.device | str) -> bool:
    """Whether steps can be recorded on a device."""
    return torch.device(device).type in GRAPH_DEVICES


@dataclass(frozen=True)
class SpecialTokens:
    """The token ids of a model that decoding treats specially."""

    mask: int
    end: tuple[int, ...]  # empty: no token ends a response
    suppressed: tuple[int, ...]  # never chosen; contains the mask

    @classmethod
    def of(cls, model: Any, config: DecodeConfig) -> SpecialTokens:
        """Read from `model.config`, the end-of-sequence ids from `config` where it names them.

        Raises:
            ValueError: no mask id, ids outside the vocabulary, or `stop_at_eos` with nothing to stop at.
        """
        vocabulary = model.config.vocab_size
        mask = getattr(model.config, "mask_token_id", None)
        if not isinstance(mask, int):
            raise ValueError(
                f"model.config.mask_token_id is {mask!r}: decoding needs the id of the mask token; "
                f"{type(model).__name__} does not look like a masked diffusion model"
            )
        given = config.eos_token_ids is not None
        end = tuple((config.eos_token_ids if given else getattr(model.config, "eos_token_ids", None)) or ())
        suppressed = tuple(sorted({mask, *(getattr(model.config, "suppress_token_ids", None) or ())}))
        eos_name = "eos_token_ids" if given else "model.config.eos_token_ids"
        for name, ids in (
            ("model.config.mask_token_id", (mask,)),
            (eos_name, end),
            ("model.config.suppress_token_ids", suppressed),
        ):
            for token in ids:
                if not 0 <= token < vocabulary:
                    raise ValueError(f"{name} contains {token}: expected ids in [0, {vocabulary}), the vocabulary")
        if mask in end:
            raise ValueError(f"{eos_name} contains {mask}, the mask id: expected ids that can be revealed")
        if config.stop_at_eos and not end:
            raise ValueError(
                f"stop_at_eos is True and {eos_name} is empty: name eos_token_ids in the DecodeConfig, or set "
                f"stop_at_eos=False"
            )
        return cls(mask, end, suppressed)


def check_model(model: Any, config: DecodeConfig) -> None:
    """Whether the model can do what the settings ask for. Raises TypeError, ValueError."""
    check_device(model.device, config)
    if config.cache is not None and not all(hasattr(model, name) for name in ("hidden_rows", "prediction_columns")):
        raise TypeError(
            f"cache is {config.cache}, and {type(model).__name__} keeps no keys and values: expected a model of "
            f"tad_ext.models, or cache=None"
        )


@dataclass(frozen=True)
class Prompt:
    """What stands before a canvas, and what is on it from the beginning: masks alone, unless it is to be filled in."""

    tokens: list[int]
    canvas: list[int]


def check_device(device: torch.device | str, config: DecodeConfig) -> None:
    """Whether the model's device can do it. Raises ValueError."""
    if config.cuda_graphs is True and not has_graphs(device):
        raise ValueError(f"cuda_graphs is True and the model is on {device}: expected one on a CUDA device")


def check_prompts(prompts: object, *, model: Any, config: DecodeConfig, mask: int) -> list[Prompt]:
    """The prompts, each with its canvas.

    Raises:
        TypeError, ValueError: naming the prompt, its value and what was expected.
    """
    if isinstance(prompts, (str, bytes, dict)) or not isinstance(prompts, (Sequence, np.ndarray, Tensor)):
        raise TypeError(f"prompts must be a sequence of token-id sequences, got {type(prompts).__name__}")
    checked = []
    for number, prompt in enumerate(prompts):
        name = f"prompts[{number}]"
        ids = _check_ids(name, prompt, model.config.vocab_size)
        first = ids.index(mask) if mask in ids else len(ids)
        if config.infill:
            one = Prompt(ids[:first], ids[first:])
            _check_template(name, one, config.gen_length)
        else:
            if first < len(ids):
                raise ValueError(
                    f"{name} contains the mask id {mask} at position {first}: masks belong to the generation only, "
                    f"unless infill is True"
                )
            one = Prompt(ids, [mask] * config.gen_length)
        length, longest = len(one.tokens) + len(one.canvas), model.config.max_position_embeddings
        if length > longest:
            raise ValueError(
                f"{name} has {len(ids)} tokens and gen_length is {config.gen_length}: together {length}, more than "
                f"the model's max_position_embeddings of {longest}"
            )
        checked.append(one)
    return checked


def check_numbers(numbers: Sequence[int] | None, count: int) -> list[int]:
    """The number of each of `count` prompts, by default 0, 1, ... Raises TypeError, ValueError."""
    if numbers is None:
        return list(range(count))
    # Together with the seed, a number has to stay a 64-bit integer.
    checked = Kind(int, Between(0, 2**62 - 1), is_list=True).checked("numbers", numbers)
    if len(checked) != count or len(set(checked)) != count:
        raise ValueError(f"numbers must be {count} different integers, one for each prompt, got {_short(checked)}")
    return list(checked)


def _check_ids(name: str, prompt: Any, vocabulary: int) -> list[int]:
    try:
        ids = np.asarray(prompt)
    except (TypeError, ValueError):  # ragged nesting, a tensor on another device
        ids = np.asarray(None)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise TypeError(f"{name} must be a sequence of integer token ids, got {_short(prompt)}")
    if not ids.size:
        raise ValueError(f"{name} is empty: a prompt needs at least one token")
    outside = ids[(ids < 0) | (ids >= vocabulary)]
    if outside.size:
        raise ValueError(f"{name} contains {int(outside[0])}: expected ids in [0, {vocabulary}), the vocabulary")
    return [int(token) for token in ids]


def _check_template(name: str, prompt: Prompt, gen_length: int) -> None:
    if not prompt.canvas:
        raise ValueError(f"{name} contains no mask id, and infill is True: expected something to fill in")
    if not prompt.tokens:
        raise ValueError(f"{name} begins with the mask id: expected at least one token before it")
    if len(prompt.canvas) > gen_length:
        raise ValueError(
            f"{name} has {len(prompt.canvas)} tokens from its first mask on: expected at most gen_length, {gen_length}"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
