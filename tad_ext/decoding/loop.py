"""Decoding: prompts and a model in, responses out, all together or each as it is finished."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from .config import DecodeConfig
from .engine import Decoding, Watch
from .inputs import SpecialTokens, check_model, check_numbers, check_prompts
from .result import DecodedRow, DecodeResult
from .stopping import StopStrings


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    config: DecodeConfig,
    *,
    tokenizer: Any = None,
    progress: bool = False,
    watch: Watch | None = None,
) -> DecodeResult:
    """Decode a response to every prompt, many tokens per forward where the policy allows it.

    Each row keeps the positions and the attention it has alone, and its own random stream: tokens, `reveal_step` and
    `forwards` do not depend on the batch size, up to the rounding of the model's own arithmetic.

    Args:
        model: `model(input_ids, lengths=..., positions=...).logits` gives the logits FOR the chosen positions, see
            `tad_ext.models.base.MaskedDiffusionMixin`; `model.config` names `mask_token_id`, `eos_token_ids`,
            `suppress_token_ids`, `vocab_size` and `max_position_embeddings`; `model.device` is where the inputs go. A
            model in training mode is put in evaluation mode for the duration of the call.
        prompts: token ids of each prompt; lengths may differ. No prompts is not an error.
        config: schedule, policy, sampling, cache and batch size.
        tokenizer: whose `decode` turns tokens into text; for `config.stop_strings` only.
        progress: show a progress bar, counted in canvas positions.
        watch: is shown the canvases whenever the host looks, by default after every forward; for a live view.

    Returns:
        Sequences, reveal steps and counts in the order of the prompts.

    Raises:
        TypeError, ValueError: before any work, naming the argument, its value and what was expected.
        RuntimeError: the model's logits hold NaN or +inf, naming the prompt and the forward.
    """
    started = time.perf_counter()
    rows = list(decode_stream(model, prompts, config, tokenizer=tokenizer, progress=progress, watch=watch))
    rows.sort(key=lambda row: row.number)
    ends = () if config.infill else SpecialTokens.of(model, config).end
    return DecodeResult.of(rows, config.gen_length, ends, time.perf_counter() - started)


def decode_stream(
    model: Any,
    prompts: Sequence[Sequence[int]],
    config: DecodeConfig,
    *,
    tokenizer: Any = None,
    progress: bool = False,
    watch: Watch | None = None,
    numbers: Sequence[int] | None = None,
) -> Iterator[DecodedRow]:
    """As `decode`, but gives each response as soon as it is finished; its place in the batch goes to a waiting prompt.

    The arguments are checked by the call itself, before the first response is asked for. The longest prompts come
    first: if memory does not suffice, it shows at once.

    `numbers` are what the prompts are called: a prompt is reported under its number, and samples with the seed
    `config.seed + number`. By default their places in `prompts`; what is left of a list keeps its numbers, and so
    its samples.
    """
    tokens = SpecialTokens.of(model, config)
    check_model(model, config)
    checked_prompts = check_prompts(prompts, model=model, config=config, mask=tokens.mask)
    stop = StopStrings.of(config, tokens, tokenizer)
    names = check_numbers(numbers, len(checked_prompts))
    return Decoding(model, dict(zip(names, checked_prompts, strict=True)), config, tokens, stop, watch).run(progress)
