"""The sequences being decoded at one time: prompts of different lengths, each followed by its own canvas.

A row holds its prompt, then the generation region (the canvas) right after it, then padding. So every token keeps the
position, and sees the tokens, that it would have alone. A row that finishes makes room for the next prompt in its
place; when none waits, the last row moves there, and the batch is one row shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics

from .config import DecodeConfig
from .inputs import SpecialTokens
from .progress import RowProgress


class DecodingBatch:
    """Rows 0 .. len(self) - 1 of tensors made once, for `capacity` rows; the others are idle.

    Attributes:
        rows: of each row, on the host.
        state: the device's side of the same, and the schedule; (len(self), ...) views.
    """

    def __init__(
        self, capacity: int, longest: int, config: DecodeConfig, tokens: SpecialTokens, device: torch.device
    ) -> None:
        """For prompts of up to `longest` tokens."""
        self.config, self.tokens, self.device = config, tokens, device
        self.rows: list[RowProgress] = []
        self._state = DecodeState.start(
            capacity,
            config.gen_length,
            block_length=config.block_length,
            block_add_threshold=config.block_add_threshold,
            decoded_token_threshold=config.decoded_token_threshold,
            eos_token_ids=tokens.end if config.stop_at_eos else (),
            device=device,
        )
        # What fills the padding is never seen; the mask id is one that every model has.
        self._input_ids = torch.full((capacity, longest + config.gen_length), tokens.mask, device=device)
        self._canvas = torch.full_like(self._state.reveal_step, tokens.mask)
        self._starts = torch.zeros(capacity, dtype=torch.int64, device=device)
        self._seeds = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.state = self._state

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def canvas(self) -> Tensor:
        """(B, G) int64: the generation region, mask where nothing is revealed."""
        return self._canvas[: len(self)]

    @property
    def starts(self) -> Tensor:
        """(B,) int64: the column of `input_ids` where the canvas begins, which is the prompt's length."""
        return self._starts[: len(self)]

    @property
    def seeds(self) -> Tensor:
        """(B,) int64: the sampling seed of each row."""
        return self._seeds[: len(self)]

    @property
    def input_ids(self) -> Tensor:
        """(B, L) int64: prompt, canvas, padding; L is the length of the longest row."""
        return self._input_ids[: len(self), : max(self.lengths_on_host())]

    def visible_blocks(self, row: RowProgress) -> int:
        """Blocks of the canvas that are part of the row's forward."""
        return row.created if self.config.hide_future_blocks else self.config.gen_length // self.config.block_length

    def lengths_on_host(self) -> list[int]:
        """Columns of each row that are part of its forward."""
        return [row.prompt_length + self.visible_blocks(row) * self.config.block_length for row in self.rows]

    @property
    def lengths(self) -> Tensor | None:
        """(B,) int64: the same for the model; None when no row is padded."""
        lengths = self.lengths_on_host()
        if min(lengths) == max(lengths):
            return None
        if self.config.hide_future_blocks:
            return self.starts + self.state.blocks * self.config.block_length
        return self.starts + self.config.gen_length

    def put(self, index: int, number: int, prompt: Sequence[int]) -> None:
        """A fresh row for prompt `number`, in place of row `index` or, where that is len(self), behind the last."""
        row = RowProgress(number, len(prompt), masks=self.config.gen_length, eligible=self.config.block_length)
        if index == len(self.rows):
            self.rows.append(row)
        else:
            self.rows[index] = row
        for tensor in self._tensors():
            tensor[index] = 0
        self._state.blocks[index] = 1
        self._canvas[index] = self.tokens.mask
        self._starts[index] = len(prompt)
        self._seeds[index] = self.config.seed + number
        self._input_ids[index] = self.tokens.mask
        self._input_ids[index, : len(prompt)] = torch.tensor(prompt, device=self.device)

    def remove(self, index: int) -> int:
        """Takes row `index` out; the last row moves there. Returns where the last row stood."""
        last = self.rows.pop()
        if index < len(self.rows):
            self.rows[index] = last
            for tensor in (self._input_ids, self._canvas, self._starts, self._seeds, *self._tensors()):
                tensor[index] = tensor[len(self.rows)]
        return len(self.rows)

    def _tensors(self) -> list[Tensor]:
        """What starts with zeros."""
        state = self._state
        return [state.reveal_step, state.forwards, state.blocks, state.done, *state.memory.values()]

    def begin_step(self) -> None:
        """Lists the eligible positions, masked and in created blocks, in `state`."""
        config, count = self.config, len(self)
        columns = torch.arange(config.gen_length, device=self.device)
        created = columns < (self._state.blocks[:count] * config.block_length)[:, None]
        positions = torch.where(created & (self.canvas == self.tokens.mask), columns, config.gen_length)
        # A multiple of the block length: few different shapes, and exactly one block when decoding block by block.
        width = -(-max(row.eligible for row in self.rows) // config.block_length) * config.block_length
        positions = positions.sort(dim=1).values[:, :width]
        state = self._state
        self.state = replace(
            state,
            reveal_step=state.reveal_step[:count],
            forwards=state.forwards[:count],
            blocks=state.blocks[:count],
            done=state.done[:count],
            positions=positions.masked_fill(positions == config.gen_length, -1),
            memory={name: tensor[:count] for name, tensor in state.memory.items()},
        )

    def end_step(self, statistics: TokenStatistics) -> None:
        """The canvas goes into `input_ids` for the next forward, what the policy remembers is kept, and `rows` learn
        what has become of them.

        Raises:
            RuntimeError: invalid statistics, naming the prompt and the forward.
        """
        columns = torch.arange(self.config.gen_length, device=self.device)
        self._input_ids[: len(self)].scatter_(1, self.starts[:, None] + columns, self.canvas)
        for name, tensor in self.state.memory.items():
            kept = self._state.memory.get(name)
            if kept is None:
                kept = tensor.new_zeros(len(self._canvas), *tensor.shape[1:])
                self._state.memory[name] = kept
            if kept.data_ptr() != tensor.data_ptr():
                kept[: len(self)] = tensor
        self._report(statistics)

    def _report(self, statistics: TokenStatistics) -> None:
        """The one host sync of a step: which rows are done decides whether there is a next forward and of how many
        rows, their blocks and masks its width. Bad logits travel with it.
        """
        state = self.state
        masks = (self.canvas == self.tokens.mask).unflatten(1, (-1, state.block_length)).sum(dim=2)  # in each block
        created = torch.arange(masks.shape[1], device=self.device) < state.blocks[:, None]
        broken = (state.eligible & ~statistics.valid).any(dim=1)
        unfinished = (masks > 0).int().argmax(dim=1)
        eligible = (masks * created).sum(dim=1)
        report = torch.stack([broken, state.done, state.blocks, unfinished, eligible, masks.sum(dim=1)], dim=1)
        for row, (invalid, done, blocks, first, count, left) in zip(self.rows, report.tolist(), strict=True):
            if invalid:
                raise RuntimeError(
                    f"the model's logits for prompts[{row.number}] hold NaN or +inf in forward {row.forwards + 1}: "
                    f"expected finite numbers (or -inf); is the checkpoint intact, and its dtype wide enough?"
                )
            row.advance(done=bool(done), created=blocks, unfinished=first, eligible=count, masks=left)

    def responses(self, indices: Sequence[int]) -> list[tuple[list[int], list[int]]]:
        """Canvas and reveal_step of some rows."""
        index = torch.tensor(indices, device=self.device)
        return [tuple(pair) for pair in torch.stack([self.canvas[index], self.state.reveal_step[index]], 1).tolist()]

    def flat_positions(self, length: int) -> Tensor:
        """(B, W) int64: `state.positions` as entries b * length + i of flattened (B, length) ids, -1 for padding."""
        first = torch.arange(len(self), device=self.device) * length + self.starts
        return torch.where(self.state.eligible, first[:, None] + self.state.positions, -1)

    def logits_rows(self) -> Tensor:
        """(B, W) int64: the row of the (B * W, V) logits that belongs to each entry, -1 for padding."""
        entries = torch.arange(self.state.positions.numel(), device=self.device)
        return entries.view_as(self.state.positions).masked_fill(~self.state.eligible, -1)
