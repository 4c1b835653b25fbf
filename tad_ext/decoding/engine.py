"""The decoding loop: forward, statistics of the eligible positions, policy, reveal; until no prompt is left.

Finished rows leave when the host looks, by default after every forward, and waiting prompts take their places
(continuous batching).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from tad_ext.models.base import evaluation_mode

from .batch import DecodingBatch
from .config import DecodeConfig
from .inputs import Prompt, SpecialTokens
from .progress import Report
from .recording import RecordedStep
from .result import DecodedRow, response_length
from .step import Step
from .stopping import StopStrings

Watch = Callable[[list[int], Tensor, Tensor], None]
"""watch(numbers of the prompts, canvas (B, G), reveal_step (B, G)) after every look of the host; tensors on the CPU."""


class Decoding:
    """A batch, and the prompts that wait for a place in it."""

    def __init__(
        self,
        model: Any,
        prompts: dict[int, Prompt],  # by number
        config: DecodeConfig,
        tokens: SpecialTokens,
        stop: StopStrings | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.model, self.prompts, self.config, self.tokens = model, prompts, config, tokens
        self.stop, self.watch = stop, watch
        self.ends = () if config.infill else tokens.end  # what ends a response
        capacity = min(config.batch_size, len(prompts))
        longest = max((len(prompt.tokens) for prompt in prompts.values()), default=0)
        self.modules = list(model.modules()) if isinstance(model, nn.Module) else []
        self.batch = DecodingBatch(
            capacity, longest, config, tokens, model.device, model.config.max_position_embeddings
        )
        self.step = Step(model, self.batch)
        self.run_step = RecordedStep(self.step, model.device) if config.cuda_graphs else self.step
        # Prompts of like length share a batch, which keeps padding small. The next one is taken from the end.
        lengths = {number: len(prompt.tokens) + len(prompt.canvas) for number, prompt in prompts.items()}
        self.waiting = sorted(prompts, key=lambda number: (lengths[number], -number))

    def run(self, progress: bool = False) -> Iterator[DecodedRow]:
        """Decodes all prompts; gives each as it finishes."""
        total = sum(prompt.canvas.count(self.tokens.mask) for prompt in self.prompts.values())
        with tqdm(total=total, unit="token", desc="decoding", disable=not progress) as bar:
            with torch.inference_mode():
                while self.waiting and len(self.batch) < self.config.batch_size:
                    self._put_next(len(self.batch))
            while self.batch.rows:
                masks = sum(row.masks for row in self.batch.rows)
                # Not around the yield: meanwhile the caller may train the model, or decode something else.
                with torch.inference_mode(), evaluation_mode(self.modules):
                    self._advance()
                    bar.update(masks - sum(row.masks for row in self.batch.rows))
                    finished = self._take_finished()
                yield from finished

    def _advance(self) -> None:
        """Some steps, and what the host makes of them."""
        batch = self.batch
        reports = []
        for ahead in range(self.config.sync_every):
            shape = batch.shape(ahead)
            reports.append(self.run_step(shape, self.step.forward.plan(shape))[: len(batch)])
        for report in torch.stack(reports).tolist():  # the one host sync
            for row, fields in zip(batch.rows, report, strict=True):
                if not row.done:
                    row.advance(Report(*fields))
        if self.stop is not None:
            self.stop.apply(batch)
        if self.watch is not None:
            count = len(batch)
            numbers = [row.number for row in batch.rows]
            canvas, reveal_step = (
                tensor[:count].to("cpu", copy=True) for tensor in (batch.canvas, batch.state.reveal_step)
            )
            self.watch(numbers, canvas, reveal_step)

    def _take_finished(self) -> list[DecodedRow]:
        """Takes finished rows out, and puts the next prompts in their places."""
        batch, ends = self.batch, self.ends
        done = [index for index, row in enumerate(batch.rows) if row.done]
        if not done:
            return []
        finished = []
        for index, (canvas, reveal_step) in zip(done, batch.finished(done), strict=True):
            row = batch.rows[index]
            finished.append(
                DecodedRow(
                    number=row.number,
                    prompt=self.prompts[row.number].tokens,
                    canvas=canvas,
                    reveal_step=reveal_step,
                    forwards=row.forwards,
                    response_length=row.length or response_length(canvas, ends),
                    eos_token_ids=ends,
                )
            )
        for index in reversed(done):  # so that the last row is never a finished one when it moves
            if self.waiting:
                self._put_next(index)
            else:
                self.step.forward.move(batch.remove(index), index)
        return finished

    def _put_next(self, index: int) -> None:
        number = self.waiting.pop()
        self.batch.put(index, number, self.prompts[number])
