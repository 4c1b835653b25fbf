"""The sequences being decoded at one time: prompts of different lengths, each followed by its own canvas.

A sequence holds its prompt, then the generation region (the canvas) right after it, then padding. So every token keeps
the position, and sees the tokens, that it would have alone. A sequence that finishes makes room for the next prompt in
its place; when none waits, the last sequence moves there, and the batch is one sequence shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tad_ext.data.ragged import to_device
from tad_ext.ops import DecodeState, eligible_positions

from .config import DecodeConfig
from .inputs import Prompt, SpecialTokens
from .policies import sees_of
from .sequence import SequenceProgress


@dataclass(frozen=True)
class StepShape:
    """What the host has decided about the next step: all that its tensors' shapes depend on."""

    sequences: int  # B
    length: int  # L, columns of the forward
    padded: bool  # whether some sequence is shorter
    width: int  # W, entries of a sequence: its eligible positions and padding
    recorded: bool = False  # as a CUDA graph


@dataclass(frozen=True)
class Windows:
    """Which columns a forward with a cache computes; None instead of it: all of all sequences."""

    width: int  # A, columns of each sequence; one that needs fewer repeats its last
    bounds: Tensor  # (B, 4) int64: its first and its last column, and the blocks [first, end) that have logits
    whole: Tensor | None  # (R,) int64, the sequences of which all columns are computed; None: there is none

    @property
    def columns(self) -> Tensor:
        """(B, A) int64 of each sequence."""
        first, last = self.bounds[:, 0, None], self.bounds[:, 1, None]
        return torch.minimum(first + torch.arange(self.width, device=first.device), last)

    @property
    def blocks(self) -> Tensor:
        """(B, 2) int64, the blocks [first, end) of each canvas whose logits the forward has."""
        return self.bounds[:, 2:]


class DecodingBatch:
    """Sequences 0 .. len(self) - 1 of tensors made once, for `capacity` sequences; the others are idle.

    Attributes:
        sequences: of each sequence, on the host.
        input_ids: (capacity, longest + gen_length) int64: prompt, canvas, padding.
        canvas: (capacity, gen_length) int64: the generation region, mask where nothing is revealed.
        positions: (capacity, gen_length) int64: the masked columns of created blocks, ascending, -1 behind the last.
        starts: (capacity,) int64: the column of `input_ids` where the canvas begins, which is the prompt's length.
        columns: (capacity, gen_length) int64: the column of `input_ids` for each of the canvas.
        ends: (capacity,) int64: the column behind the canvas.
        seeds: (capacity,) int64: the sampling seed of each sequence.
        state: counters, the schedule, and what the policy remembers.
    """

    def __init__(
        self,
        capacity: int,
        longest: int,
        config: DecodeConfig,
        tokens: SpecialTokens,
        device: torch.device | str,
        max_positions: int,
    ) -> None:
        """For prompts of up to `longest` tokens before the canvas, and a model of `max_positions`."""
        self.sees = sees_of(config.policy)
        self.config, self.tokens, self.device, self.max_positions = config, tokens, torch.device(device), max_positions
        self.sequences: list[SequenceProgress] = []
        self.state = DecodeState.start(
            capacity,
            config.gen_length,
            block_length=config.block_length,
            block_add_threshold=config.block_add_threshold,
            decoded_token_threshold=config.decoded_token_threshold,
            forced_progress=config.forced_progress,
            eos_token_ids=tokens.end if config.stop_at_eos else (),
            device=device,
        )
        self.state.end_token_ids = tokens.end
        self.input_ids = torch.zeros(capacity, longest + config.gen_length, dtype=torch.int64, device=device)
        self.canvas = torch.zeros_like(self.state.reveal_step)
        self.positions = torch.zeros_like(self.canvas)
        self.columns = torch.zeros_like(self.canvas)
        self.starts = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.ends = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.seeds = torch.zeros(capacity, dtype=torch.int64, device=device)
        for index in range(capacity):
            self._clear(index)
        self.update_positions(capacity)

    def __len__(self) -> int:
        return len(self.sequences)

    def put(self, index: int, number: int, prompt: Prompt) -> None:
        """A fresh sequence for prompt `number`, in place of number `index` or, where that is len(self), behind all."""
        config, mask = self.config, self.tokens.mask
        start, length = len(prompt.tokens), len(prompt.canvas)
        eligible = prompt.canvas[: config.block_length].count(mask)
        sequence = SequenceProgress(number, start, length, masks=prompt.canvas.count(mask), eligible=eligible)
        self.sequences[index : index + 1] = [sequence]
        self._clear(index)
        self.starts[index] = start
        self.columns[index] += start
        self.ends[index] = start + length
        self.seeds[index] = config.seed + number
        ids = to_device(prompt.tokens + prompt.canvas, self.device)
        self.input_ids[index, : start + length] = ids
        self.canvas[index, :length] = ids[start:]
        self.update_positions(index + 1)

    def remove(self, index: int) -> int:
        """Takes sequence `index` out; the last sequence moves there. Returns where the last sequence stood."""
        last, source = self.sequences.pop(), len(self.sequences)
        if index < source:
            self.sequences[index] = last
            for tensor in self._tensors():
                tensor[index] = tensor[source]
        self._clear(source)
        self.update_positions(source + 1)
        return source

    def _clear(self, index: int) -> None:
        """A sequence without masks: nothing in it is to be revealed, and what fills it is never seen."""
        for tensor in self._tensors():
            tensor[index] = 0
        self.ends[index] = self.state.blocks[index] = 1
        self.columns[index] = torch.arange(self.columns.shape[1], device=self.device)
        if self.tokens.mask == 0:
            self.canvas[index] = 1

    def _tensors(self) -> list[Tensor]:
        """All that belongs to sequences."""
        state = self.state
        own = [self.input_ids, self.canvas, self.starts, self.columns, self.ends, self.seeds]
        return [*own, state.reveal_step, state.forwards, state.blocks, state.done, *state.memory.values()]

    def visible_blocks(self, sequence: SequenceProgress) -> int:
        """Blocks of the canvas that are part of the sequence's forward."""
        return (
            sequence.created
            if self.config.hide_future_blocks
            else -(-sequence.canvas_length // self.config.block_length)
        )

    def end_column(self, sequence: SequenceProgress, blocks: int) -> int:
        """The column of `input_ids` behind the first so many blocks of the sequence's canvas."""
        return sequence.prompt_length + min(blocks * self.config.block_length, sequence.canvas_length)

    def shape(self, ahead: int = 0) -> StepShape:
        """Of the next step, or of one some steps `ahead`, by what may have become of the sequences until then."""
        block_length = self.config.block_length
        lengths = [self.end_column(sequence, self.visible_blocks(sequence) + ahead) for sequence in self.sequences]
        padded = min(lengths) < max(lengths) or (ahead > 0 and self.config.hide_future_blocks)
        # As many logits of each sequence as of the one that has most. A forward adds at most one block.
        if self.sees == "eligible":
            entries = max(min(sequence.eligible + ahead * block_length, sequence.masks) for sequence in self.sequences)
        else:
            entries = max(
                sequence.masks if self.sees == "masks" else sequence.canvas_length for sequence in self.sequences
            )
        width = min(multiple(entries, of=block_length), multiple(entries, of=8))
        return StepShape(len(self), max(lengths), padded, width)

    def rounded(self, shape: StepShape) -> StepShape:
        """Sizes rounded up, so that there are few shapes to record."""
        sequences = min(1 << (shape.sequences - 1).bit_length(), len(self.canvas))
        length = min(multiple(shape.length, of=64), self.input_ids.shape[1], self.max_positions)
        padded = shape.padded or sequences > shape.sequences or length > shape.length
        return StepShape(sequences, length, padded, multiple(shape.width, of=self.config.block_length), recorded=True)

    def update_positions(self, sequences: int) -> Tensor:
        """Brings `positions` of the first sequences up to date; (B, 3), see `tad_ext.ops.eligible_positions`."""
        return eligible_positions(
            self.canvas[:sequences],
            self.state.blocks[:sequences],
            self.positions[:sequences],
            block_length=self.config.block_length,
            mask_token_id=self.tokens.mask,
        )

    def view(self, shape: StepShape, windows: Windows | None = None) -> DecodeState:
        """The state of the first `shape.sequences` sequences, with the positions that the policy sees: the tensors of
        `state` itself.
        """
        state, sequences = self.state, slice(shape.sequences)
        positions, among = self._seen(shape, windows)
        return replace(
            state,
            reveal_step=state.reveal_step[sequences],
            forwards=state.forwards[sequences],
            blocks=state.blocks[sequences],
            done=state.done[sequences],
            positions=positions,
            among=among,
            seeds=self.seeds[sequences],
            memory={name: tensor[sequences] for name, tensor in state.memory.items()},
        )

    def _seen(self, shape: StepShape, windows: Windows | None) -> tuple[Tensor, Tensor | None]:
        """(B, W) int64 positions that the policy sees, and which of them are eligible; None: all."""
        sequences, width = slice(shape.sequences), shape.width
        if self.sees == "eligible":
            return self.positions[sequences, :width].clone(memory_format=torch.contiguous_format), None
        canvas, created = self.canvas[sequences], self.state.blocks[sequences, None]
        columns = torch.arange(canvas.shape[1], device=self.device).expand_as(canvas)
        block, inside = columns // self.config.block_length, columns < (self.ends - self.starts)[sequences, None]
        if windows is not None:
            inside = inside & (block >= windows.blocks[:, :1]) & (block < windows.blocks[:, 1:])
        elif self.config.hide_future_blocks:
            inside = inside & (block < created)
        masked = canvas == self.tokens.mask
        if self.sees == "masks":
            inside = inside & masked
        place = torch.where(inside, columns, canvas.shape[1]).sort(dim=1).values[:, :width]
        positions = place.masked_fill(place == canvas.shape[1], -1)
        among = (masked & (block < created)).gather(1, positions.clamp(min=0)) & (positions >= 0)
        return positions, among

    def keep_memory(self, view: DecodeState) -> None:
        """Keeps what the policy has put into the memory of a view, be it new or in place of something."""
        for name, tensor in view.memory.items():
            if name not in self.state.memory:
                self.state.memory[name] = tensor.new_zeros(len(self.canvas), *tensor.shape[1:])
            kept = self.state.memory[name]
            if kept.data_ptr() != tensor.data_ptr():
                kept[: len(tensor)] = tensor

    def finished(self, indices: Sequence[int]) -> list[tuple[list[int], list[int]]]:
        """Canvas and reveal_step of some sequences, in the canvas's own length."""
        index = to_device(indices, self.device)
        pairs = torch.stack([self.canvas[index], self.state.reveal_step[index]], dim=1)
        lengths = [self.sequences[sequence].canvas_length for sequence in indices]
        return [(canvas[:n], steps[:n]) for n, (canvas, steps) in zip(lengths, pairs.tolist(), strict=True)]


def multiple(number: int, *, of: int) -> int:
    """The next multiple of a number, or the number itself."""
    return -(-number // of) * of
