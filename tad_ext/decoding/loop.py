"""The decoding loop: forward, statistics of the eligible positions, policy, reveal; until no prompt is left."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from tad_ext.data.ragged import to_device
from tad_ext.models.base import evaluation_mode

from .batch import DecodingBatch
from .branches import BranchStep
from .canvases import SeveralCanvases
from .config import DecodeConfig
from .cuda_graphs import CapturedStep
from .drafts import DraftStep
from .inputs import SpecialTokens, check_model, check_numbers, check_prompts
from .plan import plan_step
from .result import DecodedSequence, DecodeResult, response_length
from .step import Step
from .stopping import check_stop_strings, stop_at_strings

Watch = Callable[[list[int], Tensor, Tensor], None]
"""watch(numbers of the prompts, canvas (B, G), reveal_step (B, G)) after every look of the host; tensors on the CPU."""


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

    Each sequence keeps the positions and the attention it has alone, and its own random stream: tokens, `reveal_step`
    and `forwards` do not depend on the batch size, up to the rounding of the model's own arithmetic.

    Args:
        model: `model(input_ids, lengths=..., positions=...).logits` gives the logits FOR the chosen positions, of
            which each sequence has as many, see `tad_ext.models.base.MaskedDiffusionMixin`; `model.config` names
            `mask_token_id`, `eos_token_ids`, `suppress_token_ids`, `vocab_size` and `max_position_embeddings`;
            `model.device` is where the inputs go. A model in training mode is put in evaluation mode for the duration
            of the call.
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
    responses = decode_stream(model, prompts, config, tokenizer=tokenizer, progress=progress, watch=watch)
    decoded = sorted(responses, key=lambda response: response.number)
    reveal_step = [one.reveal_step + [0] * (config.gen_length - len(one.canvas)) for one in decoded]
    return DecodeResult(
        sequences=[one.prompt + one.canvas for one in decoded],
        prompt_lengths=[len(one.prompt) for one in decoded],
        reveal_step=torch.tensor(reveal_step, dtype=torch.int64).reshape(-1, config.gen_length),
        forwards=torch.tensor([one.forwards for one in decoded], dtype=torch.int64),
        response_lengths=torch.tensor([one.response_length for one in decoded], dtype=torch.int64),
        eos_token_ids=() if config.infill else SpecialTokens.of(model, config).end,
        seconds=time.perf_counter() - started,
    )


def decode_stream(
    model: Any,
    prompts: Sequence[Sequence[int]],
    config: DecodeConfig,
    *,
    tokenizer: Any = None,
    progress: bool = False,
    watch: Watch | None = None,
    numbers: Sequence[int] | None = None,
) -> Iterator[DecodedSequence]:
    """As `decode`, but gives each response as soon as it is finished; its place in the batch goes to a waiting prompt.

    The call itself checks the arguments. The longest prompts come first, so that too little memory shows at once.
    Between two responses the model may be trained or used otherwise, but not moved, cast or merged: steps that are
    recorded as CUDA graphs would not notice.

    A prompt is reported under its number in `numbers`, by default its place in `prompts`, and samples with the seed
    `config.seed + number`: what is left of a list gets the same samples under its old numbers.
    """
    tokens = SpecialTokens.of(model, config)
    check_model(model, config)
    sequences = check_prompts(prompts, model=model, config=config, mask=tokens.mask)
    check_stop_strings(config, tokens, tokenizer)
    for sequence, number in zip(sequences, check_numbers(numbers, len(sequences)), strict=True):
        sequence.number = number
    batch = DecodingBatch(model, sequences, config, tokens)
    return _responses(model, batch, _step(model, batch), tokenizer, watch, progress)


def _step(model: Any, batch: DecodingBatch) -> CapturedStep | SeveralCanvases:
    config = batch.config
    if config.drafts > 1:
        return DraftStep(model, batch, config.drafts - 1)
    if config.branches > 1:
        return BranchStep(model, batch, config.branches - 1)
    return CapturedStep(Step(model, batch), model, config)


def _responses(
    model: Any,
    batch: DecodingBatch,
    step: CapturedStep | SeveralCanvases,
    tokenizer: Any,
    watch: Watch | None,
    progress: bool,
) -> Iterator[DecodedSequence]:
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    masks = sum(sequence.masks for sequence in [*batch.sequences, *batch.waiting])
    spent = 0.0  # seconds, without what the caller does between two responses
    with tqdm(total=masks, unit="token", desc="decoding", disable=not progress) as bar:
        while batch.sequences:
            started = time.perf_counter()
            for sequence in batch.sequences:
                if sequence.entered is None:
                    sequence.entered = spent
            # Not around the yield: meanwhile the caller may train the model, or decode something else.
            with torch.inference_mode(), evaluation_mode(modules):
                masks = sum(sequence.masks for sequence in batch.sequences)
                _advance(model, batch, step)
                if batch.config.stop_strings:
                    stop_at_strings(batch, tokenizer)
                if watch is not None:
                    numbers = [sequence.number for sequence in batch.sequences]
                    watch(numbers, *(tensor.to("cpu", copy=True) for tensor in batch.responses()))
                fewer = masks - sum(sequence.masks for sequence in batch.sequences)
                bar.total = (bar.total or 0) + max(-fewer, 0)  # of a canvas that has grown
                bar.update(max(fewer, 0))
                finished = _take_finished(batch, spent + time.perf_counter() - started)
            spent += time.perf_counter() - started
            yield from finished


def _advance(model: Any, batch: DecodingBatch, step: CapturedStep | SeveralCanvases) -> None:
    """`sync_every` steps, and what they say of the sequences."""
    reports = []
    for ahead in range(batch.config.sync_every):
        plan = plan_step(model, batch, ahead, step.most_recorded)
        reports.append(step(plan)[: len(batch)])
    for report in torch.stack(reports).tolist():  # the one host sync
        for sequence, fields in zip(batch.sequences, report, strict=True):
            if not sequence.done:
                sequence.advance(*fields)


def _take_finished(batch: DecodingBatch, now: float) -> list[DecodedSequence]:
    """The finished sequences, which leave the batch after `now` seconds of decoding."""
    done = [index for index, sequence in enumerate(batch.sequences) if sequence.done]
    if not done:
        return []
    rows = to_device(done, batch.device)
    found = torch.stack([batch.canvas[rows], batch.state.reveal_step[rows]], dim=1).tolist()
    ends = () if batch.config.infill else batch.tokens.end
    finished = []
    for index, (canvas, reveal_step) in zip(done, found, strict=True):
        sequence = batch.sequences[index]
        canvas = canvas[sequence.response]
        one = DecodedSequence(
            number=sequence.number,
            prompt=sequence.tokens[: sequence.prompt_length],
            canvas=canvas,
            reveal_step=reveal_step[sequence.response],
            forwards=sequence.forwards,
            response_length=sequence.length or response_length(canvas, ends),
            eos_token_ids=ends,
            seconds=now - (sequence.entered or 0.0),
        )
        finished.append(one)
    for index in reversed(done):  # so that the last sequence is never a finished one when it moves
        batch.take_out(index)
    return finished
