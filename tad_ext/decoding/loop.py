"""The decoding loop: forward, statistics of the eligible positions, policy, reveal; until no prompt is left.

Finished sequences leave when the host looks, by default after every forward, and waiting prompts take their places
(continuous batching).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from tad_ext.models.base import evaluation_mode

from .batch import DecodingBatch
from .config import DecodeConfig
from .cuda_graphs import CapturedStep
from .inputs import Prompt, SpecialTokens, check_model, check_numbers, check_prompts
from .plan import plan_step
from .result import DecodedSequence, DecodeResult, response_length
from .step import Step
from .stopping import StopStrings

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

    The arguments are checked by the call itself, before the first response is asked for. The longest prompts come
    first: if memory does not suffice, it shows at once. Between two responses the model may be trained or used
    otherwise. It must not be moved, cast or merged then: steps that are recorded as CUDA graphs would not notice.

    `numbers` are what the prompts are called: a prompt is reported under its number, and samples with the seed
    `config.seed + number`. By default their places in `prompts`; what is left of a list keeps its numbers, and so
    its samples.
    """
    tokens = SpecialTokens.of(model, config)
    check_model(model, config)
    checked = check_prompts(prompts, model=model, config=config, mask=tokens.mask)
    stop = StopStrings.of(config, tokens, tokenizer)
    by_number = dict(zip(check_numbers(numbers, len(checked)), checked, strict=True))
    return Decoding(model, by_number, config, tokens, stop, watch).run(progress)


class Decoding:
    """A batch, and the prompts that wait for a place in it."""

    def __init__(
        self,
        model: Any,
        prompts: dict[int, Prompt],  # by number
        config: DecodeConfig,
        tokens: SpecialTokens,
        stop: StopStrings | None,
        watch: Watch | None,
    ) -> None:
        self.model, self.prompts, self.config, self.stop, self.watch = model, prompts, config, stop, watch
        self.ends = () if config.infill else tokens.end  # what ends a response
        self.modules = list(model.modules()) if isinstance(model, nn.Module) else []
        capacity = min(config.batch_size, len(prompts))
        longest = max((len(prompt.tokens) for prompt in prompts.values()), default=0)
        self.batch = DecodingBatch(capacity, longest, config, tokens, model.device)
        self.step = CapturedStep(Step(model, self.batch), model, config)
        # Prompts of like length share a batch, which keeps padding small. The next one is taken from the end.
        lengths = {number: len(prompt.tokens) + len(prompt.canvas) for number, prompt in prompts.items()}
        self.waiting = sorted(prompts, key=lambda number: (lengths[number], -number))

    def run(self, progress: bool) -> Iterator[DecodedSequence]:
        """Decodes all prompts; gives each as it finishes."""
        with torch.inference_mode():
            while self.waiting and len(self.batch) < self.config.batch_size:
                self._put_next(len(self.batch))
        masks = sum(prompt.canvas.count(self.batch.tokens.mask) for prompt in self.prompts.values())
        with tqdm(total=masks, unit="token", desc="decoding", disable=not progress) as bar:
            while self.batch.sequences:
                # Not around the yield: meanwhile the caller may train the model, or decode something else.
                with torch.inference_mode(), evaluation_mode(self.modules):
                    bar.update(self._advance())
                    finished = self._take_finished()
                yield from finished

    def _advance(self) -> int:
        """Some steps, and what the host makes of them. Returns how many masks are gone."""
        batch = self.batch
        before = sum(sequence.masks for sequence in batch.sequences)
        # 1. The device's part.
        reports = []
        for ahead in range(self.config.sync_every):
            plan = plan_step(self.model, batch, ahead, self.step.most_recorded)
            reports.append(self.step(plan)[: len(batch)])
        # 2. The host's.
        for report in torch.stack(reports).tolist():  # the one host sync
            for sequence, fields in zip(batch.sequences, report, strict=True):
                if not sequence.done:
                    sequence.advance(*fields)
        if self.stop is not None:
            self.stop.apply(batch)
        if self.watch is not None:
            numbers = [sequence.number for sequence in batch.sequences]
            shown = (tensor[: len(batch)].to("cpu", copy=True) for tensor in (batch.canvas, batch.state.reveal_step))
            self.watch(numbers, *shown)
        return before - sum(sequence.masks for sequence in batch.sequences)

    def _take_finished(self) -> list[DecodedSequence]:
        """Takes finished sequences out, and puts the next prompts in their places."""
        batch, ends = self.batch, self.ends
        done = [index for index, sequence in enumerate(batch.sequences) if sequence.done]
        if not done:
            return []
        finished = []
        for index, (canvas, reveal_step) in zip(done, batch.finished(done), strict=True):
            sequence = batch.sequences[index]
            finished.append(
                DecodedSequence(
                    number=sequence.number,
                    prompt=self.prompts[sequence.number].tokens,
                    canvas=canvas,
                    reveal_step=reveal_step,
                    forwards=sequence.forwards,
                    response_length=sequence.length or response_length(canvas, ends),
                    eos_token_ids=ends,
                )
            )
        for index in reversed(done):  # so that the last sequence is never a finished one when it moves
            if self.waiting:
                self._put_next(index)
            else:
                batch.remove(index)
        return finished

    def _put_next(self, index: int) -> None:
        number = self.waiting.pop()
        self.batch.put(index, number, self.prompts[number])
