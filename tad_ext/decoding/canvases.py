"""Steps in which a forward computes several canvases of a sequence: its own, and further ones made from it.

What the further canvases are, and where a sequence stands after its forward, say `drafts.py` and `branches.py`.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tad_ext.data.ragged import to_device
from tad_ext.ops import TokenStatistics

from .batch import DecodingBatch, Plan
from .step import Step

Parts = dict[str, Tensor]
"""What a canvas is, of every row: canvas, reveal_step, forwards, blocks."""


class Rows(NamedTuple):
    """The rows of a forward, R of them for B sequences. Those of a sequence stand together, its own canvas first."""

    owner: Tensor  # (R,) int64: the sequence
    number: Tensor  # (R,) int64: which of its canvases; 0: its own
    first: Tensor  # (B,) int64: the row of each sequence's own canvas
    before: Parts  # as the forward saw them
    after: Parts  # after a step of each
    statistics: TokenStatistics  # (R, W), of
    positions: Tensor  # (R, W) int64


class SeveralCanvases(ABC):
    """A step over the sequences of `batch` and `further` canvases of each at most, which the batch's memory keeps."""

    most_recorded = 0  # columns of a CUDA graph: the number of rows varies

    def __init__(self, model: Any, batch: DecodingBatch, further: int) -> None:
        self.batch, self.step, self.further = batch, Step(model, batch), further
        for name, tensor in parts(batch).items():
            batch.state.memory[name] = tensor.new_zeros(len(tensor), further, *tensor.shape[1:])

    @abstractmethod
    def choose(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """(B,) int64, the row whose step is where its sequence stands now; (R,) bool, rows that must not be broken."""

    @abstractmethod
    def make(self, rows: Rows, last: Tensor) -> Tensor:
        """Makes further canvases of the sequences, in the memory, after step `last`; (B,) int64: how many of each."""

    def __call__(self, plan: Plan) -> Tensor:
        """(B, 9) int64, for the host to read: the arguments of `SequenceProgress.advance`."""
        batch, sequences = self.batch, slice(plan.sequences)
        # 1. A row for each canvas.
        places = [(index, number) for index, one in enumerate(batch.sequences) for number in range(1 + one.further)]
        owner, number = to_device(list(zip(*places, strict=True)), batch.device)
        first = to_device([row for row, (_, number) in enumerate(places) if number == 0], batch.device)
        copies = batch.copies(owner)
        for name, tensor in parts(copies).items():
            canvases = (parts(batch)[name][sequences, None], batch.state.memory[name][sequences])
            tensor.copy_(torch.cat(canvases, dim=1)[owner, number])
        copies.input_ids.scatter_(1, copies.columns, copies.canvas)
        copies.update_positions(len(places))
        before = {name: tensor.clone() for name, tensor in parts(copies).items()}
        # 2. A step of each, and where that leaves the sequences.
        self.step.batch = copies
        report, statistics, positions = self.step.run(replace(plan, sequences=len(places)))
        rows = Rows(owner, number, first, before, parts(copies), statistics, positions)
        last, whole = self.choose(rows)
        for name, tensor in parts(batch).items():
            tensor[sequences] = rows.after[name][last]
        batch.state.done[sequences] = copies.state.done[last]
        # 3. What the next forward computes besides, and what the host is told.
        further = self.make(rows, last)
        batch.input_ids[sequences].scatter_(1, batch.columns[sequences], batch.canvas[sequences])
        broken = torch.zeros_like(first).index_add(0, owner, report[:, 0] * whole)
        blocks, none = batch.state.blocks[sequences], torch.zeros_like(first)
        more = batch.state.memory["blocks"][sequences] - blocks[:, None]
        more = more.where(torch.arange(self.further, device=batch.device) < further[:, None], 0).amax(dim=1)
        counts = batch.update_positions(plan.sequences).unbind(dim=1)
        first_mask = batch.positions[sequences, 0]
        return torch.stack([broken, blocks, *counts, first_mask, none, further, more], dim=1)


def parts(batch: DecodingBatch) -> Parts:
    """What a canvas is, of every sequence of a batch."""
    state = batch.state
    return {
        "canvas": batch.canvas,
        "reveal_step": state.reveal_step,
        "forwards": state.forwards,
        "blocks": state.blocks,
    }
