"""How to decode: the settings of one `decode` call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

from tad_ext.ops import ForcedProgress, Policy

from .caches import CacheScheme
from .checks import MAX_SCALE, MAX_SEED, check_choice, check_flag, check_integer, check_number
from .policies import TopK


@dataclass(frozen=True)
class DecodeConfig:
    """Settings of `decode`, checked when made.

    The response canvas has `gen_length` positions in blocks of `block_length`, all masked at first. Masks of created
    blocks are eligible. After each forward one block is added if the newest block's revealed share is at least
    `block_add_threshold` or it is complete. A block is fully active once its predecessor's revealed share is at least
    `decoded_token_threshold` (the prompt counts as 1). What a forward reveals in any case is `forced_progress`. With
    both thresholds at 1.0 this is block-by-block decoding.

    Attributes:
        gen_length: positions of the canvas, a multiple of `block_length`.
        block_length: positions of a block.
        policy: which eligible positions a forward reveals, see `tad_ext.decoding.policies`.
        block_add_threshold: in [0, 1].
        decoded_token_threshold: in [0, 1]. Matters where `forced_progress` is "blocks" only: the first block with masks
            is fully active whatever it is.
        forced_progress: what a forward reveals though the policy did not accept it, always the best by the policy's own
            score. "row": the row's best eligible position if none of the row was accepted, and then, if the first block
            with masks got none, its best (TAD; d3LLM's code for LLaDA). "block": the second half of that alone
            (d3LLM's code for Dream). "blocks": the best of every fully active block that got none (D2F). Block by block
            all are the same. Where tokens are sampled, the block's forced one is the most probable under "row".
        stop_at_eos: once an end-of-sequence token is revealed, everything after it becomes that token, and the row is
            finished as soon as no mask stands before it. False: an end-of-sequence token is a token like any other.
        eos_token_ids: ids that end a response; None: the model's own.
        stop_strings: texts that end a response, which contains the text; `decode` needs a tokenizer for them. Special
            tokens have no text.
        infill: prompts contain masks, and these are what is revealed. The canvas is a prompt's part from its first mask
            on, of up to `gen_length` tokens; there is no generation behind it. Expected with `stop_at_eos=False`.
        min_length: for the first so many positions end-of-sequence tokens are left out, from the choice of a token and
            from the probabilities. The most is `gen_length`.
        temperature: 0 is greedy; above 0 tokens are sampled from softmax(logits / temperature). Confidences, which the
            policies see, are at temperature 1 and of the whole vocabulary in both cases.
        top_k: samples are of the `top_k` most probable tokens; None: of all.
        top_p: samples are of the fewest tokens that together have this probability (at `temperature`), in (0, 1].
        seed: prompt number i samples from its own stream with seed `seed + i`, so what it samples depends neither on
            the batch size nor on its neighbours. Ignored when the temperature is 0.
        guidance: scale w of classifier-free guidance: logits are u + (w + 1) * (c - u), with c as they are and u with
            the prompt masked. A step is two forwards of the model then, counted as one. 0: off.
        cache: which columns a forward computes, see `tad_ext.decoding.caches`; None: all of them, which is exact.
        hide_future_blocks: leave blocks that are not created yet out of the forward. Faster, and another model input:
            results change.
        cuda_graphs: record steps as CUDA graphs and replay them where their shape comes again, which saves launching
            every kernel from the host; on a GPU only. A policy of your own must not wait for the host then.
        look_every: forwards between two looks of the host at what has become of the rows, which are also when finished
            rows leave. More than 1 spares a GPU the waiting for the host, costs the forwards after a row's end, and
            changes no result. Expected to be 1 with a cache or stop strings, which look themselves.
        batch_size: rows per forward at most. A row that finishes makes room for the next prompt.

    Raises:
        TypeError, ValueError: naming the field, its value and what was expected.
    """

    gen_length: int
    block_length: int
    policy: Policy = field(default_factory=TopK)
    block_add_threshold: float = 1.0
    decoded_token_threshold: float = 1.0
    forced_progress: ForcedProgress = "row"
    stop_at_eos: bool = True
    eos_token_ids: Sequence[int] | None = None
    stop_strings: Sequence[str] = ()
    infill: bool = False
    min_length: int = 0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0
    guidance: float = 0.0
    cache: CacheScheme | None = None
    hide_future_blocks: bool = False
    cuda_graphs: bool = False
    look_every: int = 1
    batch_size: int = 32

    def __post_init__(self) -> None:
        checked = {
            "gen_length": check_integer("gen_length", self.gen_length, at_least=1),
            "block_length": check_integer("block_length", self.block_length, at_least=1),
            "block_add_threshold": check_number("block_add_threshold", self.block_add_threshold, at_most=1.0),
            "decoded_token_threshold": check_number(
                "decoded_token_threshold", self.decoded_token_threshold, at_most=1.0
            ),
            "forced_progress": check_choice("forced_progress", self.forced_progress, get_args(ForcedProgress)),
            "stop_at_eos": check_flag("stop_at_eos", self.stop_at_eos),
            "eos_token_ids": _token_ids("eos_token_ids", self.eos_token_ids),
            "stop_strings": _texts("stop_strings", self.stop_strings),
            "infill": check_flag("infill", self.infill),
            "min_length": check_integer("min_length", self.min_length, at_least=0, at_most=self.gen_length),
            "temperature": check_number("temperature", self.temperature),
            "top_k": None if self.top_k is None else check_integer("top_k", self.top_k, at_least=1),
            "top_p": check_number("top_p", self.top_p, at_most=1.0),
            "seed": check_integer("seed", self.seed, at_least=0, at_most=MAX_SEED),
            "guidance": check_number("guidance", self.guidance, at_most=MAX_SCALE),
            "hide_future_blocks": check_flag("hide_future_blocks", self.hide_future_blocks),
            "cuda_graphs": check_flag("cuda_graphs", self.cuda_graphs),
            "look_every": check_integer("look_every", self.look_every, at_least=1),
            "batch_size": check_integer("batch_size", self.batch_size, at_least=1),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.gen_length % self.block_length:
            raise ValueError(
                f"gen_length must be a multiple of block_length, got gen_length={self.gen_length} and "
                f"block_length={self.block_length}"
            )
        if self.infill and (self.stop_at_eos or self.stop_strings):
            name = "stop_strings" if self.stop_strings else "stop_at_eos"
            raise ValueError(
                f"infill is True and {name} is {getattr(self, name)!r}, which would overwrite what stands behind: "
                f"expected stop_at_eos=False and no stop_strings"
            )
        if self.top_p == 0:
            raise ValueError("top_p must be a finite number in (0, 1], got 0")
        if self.temperature == 0 and (self.top_k is not None or self.top_p < 1):
            name, value = ("top_p", self.top_p) if self.top_k is None else ("top_k", self.top_k)
            raise ValueError(f"{name} is {value} and temperature is 0, which takes the most probable token anyway")
        if self.infill and self.hide_future_blocks:
            raise ValueError("infill and hide_future_blocks are True: what is given behind would not be seen")
        if self.cache is not None and (isinstance(self.cache, type) or not hasattr(self.cache, "window")):
            raise TypeError(f"cache must be None or a scheme such as DualCache(), got {self.cache!r}")
        if self.cache is not None and self.guidance:
            raise ValueError(f"guidance is {self.guidance} and cache is {self.cache}: expected no cache with guidance")
        if getattr(self.cache, "starts_at_block", False) and (
            not getattr(self.policy, "opens_blocks", False) or self.block_add_threshold < 1
        ):
            raise ValueError(
                f"cache is {self.cache}, policy {self.policy}, block_add_threshold {self.block_add_threshold}: "
                f"expected a policy that reveals a block's first position at once, such as fast-dllm-dream, and 1"
            )
        if self.look_every > 1 and (self.cache is not None or self.stop_strings):
            other = f"stop_strings are {self.stop_strings!r}" if self.cache is None else f"cache is {self.cache}"
            raise ValueError(f"look_every is {self.look_every} and {other}: expected 1 with these")
        if isinstance(self.policy, type) or not callable(self.policy):
            raise TypeError(
                f"policy must be a callable such as TopK(1), EntropyThreshold(0.5) or a function of (statistics, "
                f"state), got {self.policy!r}; parse_policy makes one from a string"
            )


def _token_ids(name: str, value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a sequence of token ids or None, got {value!r}")
    return tuple(check_integer(f"{name}[{i}]", token, at_least=0) for i, token in enumerate(value))


def _texts(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a sequence of texts, got {value!r}")
    for text in value:
        if not isinstance(text, str) or not text:
            raise TypeError(f"{name} must hold texts of at least one character, got {text!r}")
    return tuple(value)
