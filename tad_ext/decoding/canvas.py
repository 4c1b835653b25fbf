"""A batch of sequences being decoded: prompts of different lengths, each followed by its own canvas.

Row b holds its prompt, then the generation region (the canvas) right after it, then padding. So every token keeps the
position, and sees the tokens, that it would have alone. Finished rows leave the batch; no step waits for the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tad_ext.ops import DecodeState


@dataclass
class DecodingBatch:
    """Rows still being decoded; B shrinks as rows finish."""

    prompt_lengths: list[int]  # of each row, on the host: padding and masks are decided without a sync
    starts: Tensor  # (B,) int64: the same on the device, the column of input_ids where the canvas begins
    rows: Tensor  # (B,) int64: row number in the batch as it started
    seeds: Tensor  # (B,) int64: sampling seed of each row
    input_ids: Tensor  # (B, L) int64: prompt, canvas, padding
    canvas: Tensor  # (B, G) int64: the generation region, mask where nothing is revealed
    state: DecodeState

    @classmethod
    def start(
        cls, prompts: Sequence[Sequence[int]], seeds: Sequence[int], state: DecodeState, mask_token_id: int
    ) -> DecodingBatch:
        """`prompts` with fully masked canvases behind them, on the device of `state`."""
        device = state.done.device
        canvas = torch.full_like(state.reveal_step, mask_token_id)
        lengths = [len(prompt) for prompt in prompts]
        # What fills the padding is never seen; the mask id is one that every model has.
        input_ids = torch.full((len(prompts), max(lengths) + canvas.shape[1]), mask_token_id)
        for row, prompt in zip(input_ids, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        return cls(
            prompt_lengths=lengths,
            starts=torch.tensor(lengths, device=device),
            rows=torch.arange(len(prompts), device=device),
            seeds=torch.tensor(seeds, device=device),
            input_ids=input_ids.to(device),
            canvas=canvas,
            state=state,
        )

    @property
    def lengths(self) -> Tensor | None:
        """(B,) real tokens per row for the model; None when no row is padded."""
        if min(self.prompt_lengths) == max(self.prompt_lengths):
            return None
        return self.starts + self.canvas.shape[1]

    def flat_positions(self) -> Tensor:
        """(B * W,) int64: `state.positions` as entries b * L + i of the flattened `input_ids`, -1 for padding."""
        rows, length = self.input_ids.shape
        first = torch.arange(rows, device=self.starts.device) * length + self.starts
        return torch.where(self.state.eligible, first[:, None] + self.state.positions, -1).flatten()

    def logits_rows(self) -> Tensor:
        """(B, W) int64: the row of the model's (B * W, V) logits that belongs to each entry, -1 for padding."""
        entries = torch.arange(self.state.positions.numel(), device=self.starts.device)
        return entries.view_as(self.state.positions).masked_fill(~self.state.eligible, -1)

    def write_canvas(self) -> None:
        """Copy the canvas into `input_ids`, for the next forward."""
        columns = torch.arange(self.canvas.shape[1], device=self.canvas.device)
        self.input_ids.scatter_(1, self.starts[:, None] + columns, self.canvas)

    def eligible_positions(self, mask_token_id: int) -> tuple[Tensor, Tensor]:
        """Masked positions of created blocks: (B, G) int64 ascending, -1 behind the last; and (B,) how many."""
        gen_length = self.canvas.shape[1]
        columns = torch.arange(gen_length, device=self.canvas.device)
        created = columns < (self.state.blocks * self.state.block_length)[:, None]
        eligible = created & (self.canvas == mask_token_id)
        positions = torch.where(eligible, columns, gen_length).sort(dim=1).values
        return positions.masked_fill(positions == gen_length, -1), eligible.sum(dim=1)

    def split_finished(self, done: Sequence[bool]) -> tuple[DecodingBatch, DecodingBatch]:
        """(unfinished rows, finished rows), each in their order; `done` is `state.done` as the host knows it."""
        # The host knows how many rows are left, the device finds out by itself which: nothing is sent or waited for.
        order = self.state.done.to(torch.uint8).argsort(stable=True)
        left = len(done) - sum(done)
        lengths = [[n for n, d in zip(self.prompt_lengths, done, strict=True) if d is flag] for flag in (False, True)]
        return self._select(order[:left], lengths[0]), self._select(order[left:], lengths[1])

    def _select(self, index: Tensor, prompt_lengths: list[int]) -> DecodingBatch:
        columns = max(prompt_lengths, default=0) + self.canvas.shape[1]
        state = self.state
        return DecodingBatch(
            prompt_lengths=prompt_lengths,
            starts=self.starts[index],
            rows=self.rows[index],
            seeds=self.seeds[index],
            input_ids=self.input_ids[index, :columns],
            canvas=self.canvas[index],
            state=replace(
                state,
                reveal_step=state.reveal_step[index],
                forwards=state.forwards[index],
                blocks=state.blocks[index],
                done=state.done[index],
                positions=state.positions[index],
            ),
        )
