"""Everything that `decode` checks about the model and the prompts before any work starts."""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tad_ext.settings import Between, Kind

from .caches import BlockCache
from .config import DecodeConfig
from .policies.base import resizes, softens, verifies
from .sequence import SequenceProgress

GRAPH_DEVICES = ("cuda",)


def has_graphs(device: torch.device | str) -> bool:
    """Whether steps can be recorded on a device."""
    return torch.device(device).type in GRAPH_DEVICES


def check_device(device: torch.device | str, config: DecodeConfig) -> None:
    """ValueError if the model's device cannot do what the settings ask for."""
    if config.cuda_graphs is True and not has_graphs(device):
        raise ValueError(f"cuda_graphs is True and the model is on {device}: expected one on a CUDA device")


def check_model(model: Any, config: DecodeConfig) -> None:
    """TypeError or ValueError if the model cannot do what the settings ask for."""
    check_device(model.device, config)
    if config.cache is not None and not all(hasattr(model, name) for name in ("hidden_rows", "prediction_columns")):
        raise TypeError(
            f"cache is {config.cache}, and {type(model).__name__} keeps no keys and values: expected a model of "
            f"tad_ext.models, or cache=None"
        )
    if config.block_causal and not hasattr(model, "hidden_rows"):
        raise TypeError(
            f"block_causal is True, and {type(model).__name__} takes no blocks: expected a model of tad_ext.models"
        )
    for asked, does, takes in (
        (softens(config.policy), "mixes tokens with the mask", "shares"),
        (verifies(config.policy), "verifies tokens", "shadow"),
    ):
        if asked and not hasattr(model, "hidden_rows"):
            raise TypeError(
                f"policy {config.policy} {does}, and {type(model).__name__} takes no {takes}: expected a model of "
                f"tad_ext.models"
            )
    check_compatible(model.config, config)


def check_compatible(model_config: Any, config: DecodeConfig) -> None:
    """ValueError if settings do not go with what a model attends to and predicts, which its configuration says.

    A policy that changes the canvas's length is for attention in both directions. So is one that verifies tokens, and
    only where each token is predicted at its own position. A model's own blocks fix some settings, as a policy that was
    trained on blocks fixes their length, and a cache is of one kind of attention.
    """
    if getattr(config.policy, "block_length", config.block_length) != config.block_length:
        raise ValueError(
            f"block_length is {config.block_length}, and policy {config.policy} decodes blocks of "
            f"{config.policy.block_length}: expected the same"
        )
    own, shift = getattr(model_config, "causal_block_length", None), getattr(model_config, "shift", 0)
    if own is not None and resizes(config.policy):
        raise ValueError(
            f"policy {config.policy} changes the canvas's length, and the model attends to blocks of {own}: expected "
            f"another policy, or a model that attends in both directions"
        )
    if verifies(config.policy) and (own is not None or shift):
        does = "predicts each token one position earlier" if own is None else f"attends to blocks of {own}"
        raise ValueError(
            f"policy {config.policy} verifies tokens, and the model {does}: expected one that attends in both "
            f"directions, and predicts each token at its own position"
        )
    if own is not None:
        expected = {"block_length": own, "block_causal": False, "infill": False, "guidance": 0.0}
        for name, value in expected.items():
            if getattr(config, name) != value:
                raise ValueError(
                    f"{name} is {getattr(config, name)}, and the model attends to blocks of {own}, from the prompt's "
                    f"first token on, and to earlier ones: expected {value}"
                )
    causal = config.block_causal or own is not None
    if config.cache is not None and causal != isinstance(config.cache, BlockCache):
        found, expected_ones = (
            ("block-causal", "none, block or block-parts") if causal else ("in both directions", "another one")
        )
        raise ValueError(f"cache is {config.cache}, and attention is {found}: expected {expected_ones}")


def causal_block_length(model: Any) -> int | None:
    """The length of the blocks that a model attends to causally, from a row's first token on; None: it does not."""
    return getattr(model.config, "causal_block_length", None)


def longest_prompt(model_config: Any, config: DecodeConfig) -> int:
    """Tokens of a prompt behind which the model has positions for the canvas."""
    positions: int = model_config.max_position_embeddings
    return positions - positions % (getattr(model_config, "causal_block_length", None) or 1) - config.gen_length


@dataclass(frozen=True)
class SpecialTokens:
    """The token ids of a model that decoding treats specially."""

    mask: int
    end: tuple[int, ...]  # empty: no token ends a response
    suppressed: tuple[int, ...]  # never chosen; contains the mask

    @classmethod
    def of(cls, model: Any, config: DecodeConfig) -> "SpecialTokens":
        """Read from `model.config`; the end-of-sequence ids from `config` where it names them.

        ValueError: no mask id, ids outside the vocabulary, or `stop_at_eos` with nothing to stop at.
        """
        mask = getattr(model.config, "mask_token_id", None)
        if not isinstance(mask, int):
            raise ValueError(
                f"model.config.mask_token_id is {mask!r}: decoding needs the id of the mask token; "
                f"{type(model).__name__} does not look like a masked diffusion model"
            )
        eos_name, end = "eos_token_ids", config.eos_token_ids
        if end is None:
            eos_name, end = "model.config.eos_token_ids", tuple(getattr(model.config, "eos_token_ids", None) or ())
        suppressed = tuple(sorted({mask, *(getattr(model.config, "suppress_token_ids", None) or ())}))
        _check_known("model.config.mask_token_id", [mask], model)
        _check_known(eos_name, end, model)
        _check_known("model.config.suppress_token_ids", suppressed, model)
        if mask in end:
            raise ValueError(f"{eos_name} contains {mask}, the mask id: expected ids that can be revealed")
        if config.stop_at_eos and not end:
            raise ValueError(
                f"stop_at_eos is True and {eos_name} is empty: name eos_token_ids in the DecodeConfig, or set "
                f"stop_at_eos=False"
            )
        if resizes(config.policy) and not end:
            raise ValueError(
                f"policy {config.policy} goes by predicted ends of sequence, and {eos_name} is empty: name "
                f"eos_token_ids in the DecodeConfig"
            )
        return cls(mask, end, suppressed)


def check_prompts(prompts: object, *, model: Any, config: DecodeConfig, mask: int) -> list[SequenceProgress]:
    """The prompts, each with its canvas, numbered from 0. Raises TypeError, ValueError, naming the prompt."""
    if isinstance(prompts, (str, bytes, dict)) or not isinstance(prompts, (Sequence, np.ndarray, Tensor)):
        raise TypeError(f"prompts must be a sequence of token-id sequences, got {type(prompts).__name__}")
    return [_sequence(number, prompt, model, config, mask) for number, prompt in enumerate(prompts)]


def _sequence(number: int, prompt: Any, model: Any, config: DecodeConfig, mask: int) -> SequenceProgress:
    # 1. Token ids.
    name = f"prompts[{number}]"
    try:
        array = np.asarray(prompt)
    except (TypeError, ValueError):  # ragged nesting, a tensor on another device
        array = np.asarray(None)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"{name} must be a sequence of integer token ids, got {reprlib.repr(prompt)}")
    ids: list[int] = array.tolist()
    if not ids:
        raise ValueError(f"{name} is empty: a prompt needs at least one token")
    _check_known(name, ids, model)
    # 2. What stands before the canvas, and what is on it: masks alone, unless it is to be filled in.
    start = ids.index(mask) if mask in ids else len(ids)
    if start < len(ids) and not config.infill:
        raise ValueError(
            f"{name} contains the mask id {mask} at position {start}: masks belong to the generation only, "
            f"unless infill is True"
        )
    canvas = ids[start:] if config.infill else [mask] * _initial_length(config)
    if not canvas:
        raise ValueError(f"{name} contains no mask id, and infill is True: expected something to fill in")
    if start == 0:
        raise ValueError(f"{name} begins with the mask id: expected at least one token before it")
    if len(canvas) > config.gen_length:
        raise ValueError(
            f"{name} has {len(canvas)} tokens from its first mask on: expected at most gen_length, {config.gen_length}"
        )
    # 3. Of a model with blocks of its own, a canvas is whole ones, from that on in which the prompt ends.
    tokens, longest, begin, limit = ids[:start] + canvas, model.config.max_position_embeddings, start, len(canvas)
    if (block := causal_block_length(model)) is not None:
        tokens += [mask] * (-len(tokens) % block)
        begin -= begin % block
    most = start + config.gen_length if resizes(config.policy) else len(tokens)
    if most > longest:
        raise ValueError(
            f"{name} has {len(ids)} tokens and gen_length is {config.gen_length}: together {most}"
            f"{'' if block is None else f' in whole blocks of {block}'}, more than "
            f"the model's max_position_embeddings of {longest}"
        )
    masks, eligible = tokens[begin:].count(mask), tokens[begin : begin + config.block_length].count(mask)
    return SequenceProgress(number, tokens, start, begin, limit, masks, eligible, first_mask=start - begin)


def _initial_length(config: DecodeConfig) -> int:
    """Positions of the canvas at first."""
    wanted: int = getattr(config.policy, "initial", config.gen_length) if resizes(config.policy) else config.gen_length
    return min(wanted, config.gen_length)


def check_numbers(numbers: Sequence[int] | None, count: int) -> Sequence[int]:
    """The number of each of `count` prompts, by default 0, 1, ... Raises TypeError, ValueError."""
    if numbers is None:
        return range(count)
    # Together with the seed, a number has to stay a 64-bit integer.
    checked = Kind(int, Between(0, 2**62 - 1), is_list=True).checked("numbers", numbers)
    if len(checked) != count or len(set(checked)) != count:
        raise ValueError(
            f"numbers must be {count} different integers, one for each prompt, got {reprlib.repr(checked)}"
        )
    return checked


def _check_known(name: str, ids: Sequence[int], model: Any) -> None:
    vocabulary = model.config.vocab_size
    for token in ids:
        if not 0 <= token < vocabulary:
            raise ValueError(f"{name} contains {token}: expected ids in [0, {vocabulary}), the vocabulary")
