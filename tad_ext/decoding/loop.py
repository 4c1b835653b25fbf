"""The decoding loop: forward, statistics of the eligible positions, policy, reveal; until no row has a mask left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from tad_ext.ops import DecodeState, Policy, pack_offsets, token_statistics, unmask_step

from .canvas import DecodingBatch
from .config import DecodeConfig
from .inputs import SpecialTokens, check_prompts
from .policies import checked
from .result import DecodeResult, response_lengths


def decode(
    model: Any, prompts: Sequence[Sequence[int]], config: DecodeConfig, *, progress: bool = False
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
        config: schedule, policy, sampling and batch size.
        progress: show a progress bar, counted in canvas positions.

    Returns:
        Sequences, reveal steps and counts in the order of the prompts.

    Raises:
        TypeError, ValueError: before any work, naming the argument, its value and what was expected.
        RuntimeError: the model's logits hold NaN or +inf, naming the prompt and the forward.
    """
    started = time.perf_counter()
    tokens = SpecialTokens.of(model, config)
    prompts = check_prompts(
        prompts,
        mask=tokens.mask,
        vocabulary=model.config.vocab_size,
        longest=model.config.max_position_embeddings,
        gen_length=config.gen_length,
    )

    # Made outside inference mode: the caller may use them in training.
    canvas = torch.zeros(len(prompts), config.gen_length, dtype=torch.int64)
    reveal_step = torch.zeros_like(canvas)
    forwards = torch.zeros(len(prompts), dtype=torch.int64)

    # Prompts of like length share a batch, which keeps padding small. The longest come first: if memory does not
    # suffice, it shows at once.
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    bar = tqdm(total=canvas.numel(), unit="token", desc="decoding", disable=not progress)
    with bar, _evaluation_mode(model), torch.inference_mode():
        for first in range(0, len(order), config.batch_size):
            numbers = order[first : first + config.batch_size]
            finished = _decode_batch(model, prompts, numbers, config, tokens, bar)
            canvas[numbers], reveal_step[numbers], forwards[numbers] = (part.cpu() for part in finished)

    return DecodeResult(
        sequences=[prompt + response for prompt, response in zip(prompts, canvas.tolist(), strict=True)],
        prompt_lengths=[len(prompt) for prompt in prompts],
        reveal_step=reveal_step,
        forwards=forwards,
        response_lengths=response_lengths(canvas, tokens.end),
        eos_token_ids=tokens.end,
        seconds=time.perf_counter() - started,
    )


def _decode_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    config: DecodeConfig,
    tokens: SpecialTokens,
    bar: tqdm[Any],
) -> tuple[Tensor, Tensor, Tensor]:
    """Canvas (B, G), reveal_step (B, G) and forwards (B,) of the prompts with these numbers, on the model's device."""
    state = DecodeState.start(
        len(numbers),
        config.gen_length,
        block_length=config.block_length,
        block_add_threshold=config.block_add_threshold,
        decoded_token_threshold=config.decoded_token_threshold,
        eos_token_ids=tokens.end if config.stop_at_eos else (),
        device=model.device,
    )
    seeds = [config.seed + number for number in numbers]
    batch = DecodingBatch.start([prompts[number] for number in numbers], seeds, state, tokens.mask)
    suppressed = torch.tensor(tokens.suppressed, device=model.device)
    policy = checked(config.policy)
    results = (torch.empty_like(batch.canvas), torch.empty_like(state.reveal_step), torch.empty_like(state.forwards))
    masked = batch.canvas.numel()

    # Every forward reveals at least one token of every row.
    for step in range(1, config.gen_length + 1):
        broken = _step(model, batch, config, policy, tokens.mask, suppressed)
        positions, eligible = batch.eligible_positions(tokens.mask)

        # The one host sync of a step: which rows are done decides whether there is a next forward and of how many rows;
        # the most eligible positions of a row decide its width. Bad logits and progress travel with it.
        left = (batch.canvas == tokens.mask).sum(dim=1)
        report = torch.stack([batch.state.done, broken, eligible, left]).tolist()
        done, broken_rows, eligible_counts, masks_left = report

        if any(broken_rows):
            number = numbers[int(batch.rows[broken_rows.index(1)])]
            raise RuntimeError(
                f"the model's logits for prompts[{number}] hold NaN or +inf in forward {step}: expected finite numbers "
                f"(or -inf); is the checkpoint intact, and its dtype wide enough?"
            )
        bar.update(masked - sum(masks_left))
        masked = sum(masks_left)

        # A multiple of the block length: few different shapes, and exactly one block when decoding block by block.
        width = -(-max(eligible_counts) // config.block_length) * config.block_length
        batch.state.positions = positions[:, :width]
        if any(done):
            batch, finished = batch.split_finished([bool(flag) for flag in done])
            for result, part in zip(
                results, (finished.canvas, finished.state.reveal_step, finished.state.forwards), strict=True
            ):
                result.index_copy_(0, finished.rows, part)
            if all(done):
                return results
    raise RuntimeError(f"a row still had masks after {config.gen_length} forwards, one per position of its canvas")


def _step(
    model: Any, batch: DecodingBatch, config: DecodeConfig, policy: Policy, mask_token_id: int, suppressed: Tensor
) -> Tensor:
    """One forward and its reveals, in place. Returns (B,) bool: rows whose logits were NaN or +inf somewhere."""
    state = batch.state
    logits = model(batch.input_ids, lengths=batch.lengths, positions=batch.flat_positions()).logits
    sampling: dict[str, Any] = {}
    if config.temperature > 0:
        # The noise depends on the row's seed, the forward that may reveal the token and its place in the canvas only.
        sampling["temperature"] = config.temperature
        sampling["seeds"] = batch.seeds[:, None]
        sampling["offsets"] = pack_offsets(state.forwards[:, None] + 1, state.positions)
    statistics = token_statistics(logits, rows=batch.logits_rows(), suppress_tokens=suppressed, **sampling)
    unmask_step(batch.canvas, statistics, state, policy, mask_token_id=mask_token_id)
    batch.write_canvas()
    return (state.eligible & ~statistics.valid).any(dim=1)


@contextmanager
def _evaluation_mode(model: Any) -> Iterator[None]:
    """Dropout off while decoding; afterwards every module is in the mode it was in."""
    training = [module for module in model.modules() if module.training] if isinstance(model, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
