"""The sequences being decoded at one time.

A sequence holds its prompt, right behind it the generation region (the canvas), then padding: every token has the
position, and sees the tokens, that it would have alone. The next prompt takes the place of a sequence that finishes;
when none waits, the last sequence moves there, and the batch is one sequence shorter.

Of a model whose attention is causal in blocks of its own, a canvas is whole blocks. Then it begins with the end of the
prompt, which is never masked, and behind the response it may have up to a block of tokens that nobody has asked for.
"""

from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tad_ext.data.ragged import to_device
from tad_ext.models.cache import KeyValueCache
from tad_ext.ops import DecodeState, eligible_positions

from .config import DecodeConfig
from .inputs import SpecialTokens, causal_block_length
from .policies.base import revises, sees_of, softens
from .sequence import SequenceProgress

_COUNTERS = ("reveal_step", "forwards", "blocks", "done")  # of a `DecodeState`, what has a row for each sequence


@dataclass(frozen=True)
class Plan:
    """What the host has decided about a step. Plans of equal sizes are equal: they can share a recording."""

    sequences: int  # B
    length: int  # L, columns of the forward
    padded: bool  # whether some sequence is shorter
    width: int  # W, entries of a sequence: the positions that its policy sees, and padding
    recorded: bool = False  # as a CUDA graph
    window: int = 0  # A, columns to compute of each sequence; one that needs fewer repeats its last. 0: all columns
    bounds: Tensor | None = field(default=None, compare=False)
    """(B, 4) int64, of windows: first and last column, and the blocks [first, end) of the canvas that have logits."""
    whole: Tensor | None = field(default=None, compare=False)
    """(R,) int64: the sequences of which all columns are computed besides; None: there is none."""


class DecodingBatch:
    """Sequences 0 .. len(self) - 1 of tensors that are made once, for `capacity` sequences; the others are idle.

    Attributes:
        hides_future: whether blocks that are not created yet are left out of forwards.
        waiting: the sequences to come, the next one last. Those of like length stand together: that means less padding.
        sequences: those that are decoded, on the host.
        input_ids: (capacity, longest + G) int64: prompt, canvas, padding.
        canvas: (capacity, G) int64: the generation region, mask where nothing is revealed; G is gen_length, but for
            such a model.
        positions: (capacity, G) int64: the masked columns of created blocks, ascending, -1 behind the last.
        columns: (capacity, G) int64: the column of `input_ids` for each of the canvas.
        starts: (capacity,) int64: the first of these.
        prompts: (capacity,) int64: the prompt's length.
        unfinished: (capacity,) int64: the first block that is not finished.
        shares: (capacity, longest + G) float32: of tokens in what forwards see, the rest being the mask's; where the
            policy softens.
        ends: (capacity,) int64: the column behind the canvas.
        seeds: (capacity,) int64: the sampling seed of each sequence.
        state: counters, the schedule, and what the policy remembers.
        cache: keys and values, where the settings name a scheme.
    """

    def __init__(
        self, model: Any, sequences: list[SequenceProgress], config: DecodeConfig, tokens: SpecialTokens
    ) -> None:
        self.config, self.tokens, self.device = config, tokens, torch.device(model.device)
        self.sees = sees_of(config.policy)
        self.waiting = sorted(sequences, key=lambda sequence: (len(sequence.tokens), -sequence.number))
        self.sequences: list[SequenceProgress] = []
        capacity = min(config.batch_size, len(sequences))
        own_blocks = causal_block_length(model) is not None
        self.hides_future = config.hide_future_blocks or config.block_causal or own_blocks
        longest = max((sequence.start for sequence in sequences), default=0)
        width = max(sequence.canvas_length for sequence in sequences) if own_blocks and sequences else config.gen_length
        schedule = ("block_length", "block_add_threshold", "decoded_token_threshold", "forced_progress")
        settings: dict[str, Any] = {name: getattr(config, name) for name in schedule}
        at_once = config.stop_at_eos and config.stop_when == "revealed" and not revises(config.policy)
        settings["eos_token_ids"] = tokens.end if at_once else ()
        self.state = DecodeState.start(capacity, width, device=self.device, **settings)
        self.state.end_token_ids = tokens.end
        self.input_ids = torch.zeros(capacity, longest + width, dtype=torch.int64, device=self.device)
        self.canvas, self.positions, self.columns = (torch.zeros_like(self.state.reveal_step) for _ in range(3))
        self.starts = self.columns[:, 0]
        self.ends, self.seeds, self.prompts, self.unfinished = (torch.zeros_like(self.state.forwards) for _ in range(4))
        self.shares = torch.ones(self.input_ids.shape, device=self.device) if softens(config.policy) else None
        self.cache = None if config.cache is None else KeyValueCache(*self.input_ids.shape)
        self._clear(slice(capacity))
        self.update_positions(capacity)
        while len(self) < capacity:
            self._put_next(len(self))

    def __len__(self) -> int:
        return len(self.sequences)

    def responses(self) -> tuple[Tensor, Tensor]:
        """(B, gen_length) each, of the sequences that are decoded: the canvas behind the prompt, and reveal steps."""
        place = torch.arange(self.config.gen_length, device=self.device) + (self.prompts - self.starts)[:, None]
        canvas, reveal_step = (tensor.gather(1, place)[: len(self)] for tensor in (self.canvas, self.state.reveal_step))
        return canvas, reveal_step

    def settled(self, index: int) -> int:
        """Tokens of sequence `index`'s response that stay as they are, from the first on, if they are no masks."""
        sequence = self.sequences[index]
        if sequence.done or not revises(self.config.policy):
            return self.config.gen_length
        return max(sequence.unfinished * self.config.block_length - sequence.response.start, 0)

    def take_out(self, index: int) -> None:
        """Sequence `index` leaves; the next that waits takes its place, or else the last one."""
        if self.waiting:
            self._put_next(index)
            return
        last, source = self.sequences.pop(), len(self.sequences)
        if index < source:
            self.sequences[index] = last
            for tensor in self._tensors():
                tensor[index] = tensor[source]
            if self.cache is not None:
                self.cache.move(source, index)
        self._clear(source)
        self.update_positions(source + 1)

    def _put_next(self, index: int) -> None:
        """The next sequence comes in place of number `index`, or behind all where that is len(self)."""
        sequence = self.waiting.pop()
        self.sequences[index : index + 1] = [sequence]
        start, end = sequence.start, len(sequence.tokens)
        self._clear(index)
        self.columns[index] += start
        self.ends[index], self.prompts[index] = end, sequence.prompt_length
        self.seeds[index] = self.config.seed + sequence.number
        self.unfinished[index] = sequence.unfinished
        ids = to_device(sequence.tokens, self.device)
        self.input_ids[index, :end] = ids
        self.canvas[index, : end - start] = ids[start:]
        self.update_positions(index + 1)

    def _clear(self, index: int | slice) -> None:
        """Makes idle sequences, which have no masks and are never looked at."""
        for tensor in self._tensors():
            tensor[index] = int(tensor is self.shares)
        self.ends[index] = self.state.blocks[index] = 1
        self.columns[index] = torch.arange(self.columns.shape[1], device=self.device)
        self.canvas[index] = int(self.tokens.mask == 0)  # anything but the mask

    def _tensors(self) -> list[Tensor]:
        state = self.state
        own = [self.input_ids, self.canvas, self.columns, self.ends, self.seeds, self.prompts, self.unfinished]
        own += [] if self.shares is None else [self.shares]
        return [*own, state.reveal_step, state.forwards, state.blocks, state.done, *state.memory.values()]

    def copies(self, which: Tensor) -> "DecodingBatch":
        """Sequences of this batch, (R,) int64, any of them several times, in a batch of their own, for a step.

        It has no memory and no cache, and knows nothing of the host's sequences.
        """
        batch = copy(self)
        for name in ("input_ids", "canvas", "positions", "columns", "ends", "seeds", "prompts", "unfinished"):
            setattr(batch, name, getattr(self, name)[which])
        batch.starts, batch.sequences = batch.columns[:, 0], []
        batch.state = replace(self.state, memory={}, **{name: getattr(self.state, name)[which] for name in _COUNTERS})
        return batch

    def update_positions(self, sequences: int) -> Tensor:
        """Brings `positions` of the first sequences up to date; (B, 3), see `tad_ext.ops.eligible_positions`."""
        return eligible_positions(
            self.canvas[:sequences],
            self.state.blocks[:sequences],
            self.positions[:sequences],
            block_length=self.config.block_length,
            mask_token_id=self.tokens.mask,
        )

    def go_on(self, sequences: int, open: Tensor | None) -> Tensor:
        """The same after a step, with the first unfinished block in the first place, which stays where it is `open`."""
        counts = self.update_positions(sequences)
        if self.sees == "block":
            unfinished = self.unfinished[:sequences]
            unfinished.copy_(counts[:, 0] if open is None else torch.where(open, unfinished, counts[:, 0]))
            counts[:, 0] = unfinished
        return counts

    def hold(self, open: Tensor) -> None:
        """Takes back what the last reveals did to the schedule of the first sequences, where they are `open`, (B,)."""
        state, sequences = self.state, slice(len(open))
        state.blocks[sequences] = torch.where(open, self.unfinished[sequences] + 1, state.blocks[sequences])
        state.done[sequences] &= ~open

    def lengths(self, sequences: int) -> Tensor:
        """(B,) int64: the columns of the first canvases."""
        return (self.ends - self.starts)[:sequences]

    def resize(self, length: Tensor, place: Tensor, count: Tensor) -> None:
        """Gives the first canvases other lengths, (B,) int64 each. Reveal steps move with their tokens.

        `count` masks come in before column `place`; of what there is then, the first `length` columns stay. Where there
        are fewer, ends of sequence come behind, which no forward has revealed.
        """
        sequences, last = slice(len(length)), self.canvas.shape[1] - 1
        columns = torch.arange(last + 1, device=self.device).expand(len(length), -1)
        place, behind = place[:, None], (place + count)[:, None]
        new = (columns >= place) & (columns < behind)
        source = torch.where(columns < behind, columns, columns - count[:, None])
        none = (~new & (source >= self.lengths(len(length))[:, None])) | (columns >= length[:, None])
        contents = ((self.canvas, self.tokens.mask, self.tokens.end[0]), (self.state.reveal_step, 0, 0))
        for tensor, of_new, of_none in contents:
            moved = tensor[sequences].gather(1, source)
            tensor[sequences] = moved.masked_fill(new, of_new).masked_fill(none, of_none)
        self.ends[sequences] = self.starts[sequences] + length

    def columns_of_open(self, open: Tensor) -> Tensor:
        """(B,) int64: the column of the canvas from which tokens may change, behind the last where none may."""
        first = self.unfinished[: len(open)] * self.config.block_length
        return torch.where(open, first, self.canvas.shape[1])

    def view(self, plan: Plan) -> DecodeState:
        """The tensors of `state` of the first `plan.sequences` sequences, with the positions that the policy sees."""
        state, sequences = self.state, slice(plan.sequences)
        positions, among = self._seen(plan)
        tokens = self.canvas[sequences].gather(1, positions.clamp(min=0)) if self.sees == "block" else None
        counters = {name: getattr(state, name)[sequences] for name in _COUNTERS}
        memory = {name: tensor[sequences] for name, tensor in state.memory.items()}
        seeds = self.seeds[sequences]
        return replace(state, **counters, positions=positions, among=among, tokens=tokens, seeds=seeds, memory=memory)

    def _seen(self, plan: Plan) -> tuple[Tensor, Tensor | None]:
        """(B, W) int64 positions that the policy sees, and which of them are eligible; None: all."""
        sequences, width = slice(plan.sequences), plan.width
        if self.sees == "eligible":
            return self.positions[sequences, :width].clone(memory_format=torch.contiguous_format), None
        canvas, created = self.canvas[sequences], self.state.blocks[sequences, None]
        if self.sees == "block":
            length = self.config.block_length
            positions = self.unfinished[sequences, None] * length + torch.arange(length, device=self.device)
            positions = positions.masked_fill(positions >= self.lengths(plan.sequences)[:, None], -1)
            return positions, (positions >= 0) & (canvas.gather(1, positions.clamp(min=0)) == self.tokens.mask)
        columns = torch.arange(canvas.shape[1], device=self.device).expand_as(canvas)
        block, inside = columns // self.config.block_length, columns < self.lengths(plan.sequences)[:, None]
        if plan.bounds is not None:
            inside = inside & (block >= plan.bounds[:, 2, None]) & (block < plan.bounds[:, 3, None])
        elif self.hides_future:
            inside = inside & (block < created)
        masked = canvas == self.tokens.mask
        if self.sees != "canvas":
            inside = inside & masked
        if self.sees == "ahead":
            behind = block.where(masked & (block >= created), columns.shape[1])
            inside = inside & (block <= behind.amin(dim=1, keepdim=True))
        place = torch.where(inside, columns, canvas.shape[1]).sort(dim=1).values[:, :width]
        positions = place.masked_fill(place == canvas.shape[1], -1)
        among = (masked & (block < created)).gather(1, positions.clamp(min=0)) & (positions >= 0)
        return positions, among

    def keep_memory(self, view: DecodeState) -> None:
        """Keeps what the policy has put into the memory of a view."""
        for name, tensor in view.memory.items():
            if name not in self.state.memory:
                may_stay = name in view.own and len(tensor) == len(self.canvas)
                self.state.memory[name] = tensor if may_stay else tensor.new_zeros(len(self.canvas), *tensor.shape[1:])
            kept = self.state.memory[name]
            if kept.data_ptr() != tensor.data_ptr():
                kept[: len(tensor)] = tensor
