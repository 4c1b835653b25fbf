"""Several steps of a sequence in one forward, as far as guesses of them come true.

A sequence's drafts are what its next steps would make of the canvas if the model said the same again. A forward
computes the canvas and its drafts, a row each, and every row takes an ordinary step. Where the step of the canvas makes
the first draft of it, that draft's step is the sequence's next one, and so on. So whatever the guesses are, the steps
that count are those that would have been taken one by one, with the same random numbers. The next drafts are made of
what the model said last.

FreeDave, arXiv 2510.00294, which drafts the most confident positions of a block. Where it looks at a canvas a second
time, behind each block, what is known of it is used here.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tad_ext.data.ragged import to_device
from tad_ext.ops import TokenStatistics, unmask_step

from .batch import DecodingBatch, Plan
from .step import Step


class DraftStep:
    """One forward over the sequences of `batch` and their drafts, which are kept in the batch's memory."""

    most_recorded = 0  # columns of a CUDA graph: the number of rows varies

    def __init__(self, model: Any, batch: DecodingBatch) -> None:
        self.batch, self.step, self.count = batch, Step(model, batch), batch.config.drafts - 1
        for name, tensor in _drafted(batch).items():
            batch.state.memory[name] = tensor.new_zeros(len(tensor), self.count, *tensor.shape[1:])

    def __call__(self, plan: Plan) -> Tensor:
        """(B, 8) int64, for the host to read: the arguments of `SequenceProgress.advance`."""
        batch, sequences = self.batch, slice(plan.sequences)
        # 1. A row for each canvas, and behind it its drafts.
        places = [(index, draft) for index, one in enumerate(batch.sequences) for draft in range(1 + one.guesses)]
        owner, draft = to_device(list(zip(*places, strict=True)), batch.device)
        first = to_device([row for row, (_, draft) in enumerate(places) if draft == 0], batch.device)
        rows = batch.copies(owner)
        for name, tensor in _drafted(rows).items():
            canvas_and_drafts = (_drafted(batch)[name][sequences, None], batch.state.memory[name][sequences])
            tensor.copy_(torch.cat(canvas_and_drafts, dim=1)[owner, draft])
        rows.input_ids.scatter_(1, rows.columns, rows.canvas)
        rows.update_positions(len(places))
        # 2. A step of each, and which of them count: those before the first draft that the row before has not made.
        before = rows.canvas.clone()
        self.step.batch = rows
        report, statistics, positions = self.step.run(replace(plan, sequences=len(places)))
        made = (before[1:] == rows.canvas[:-1]).all(dim=1)
        wrong = torch.cat((first.new_zeros(1), ((draft[1:] > 0) & ~made).long())).cumsum(dim=0)
        counts = wrong == wrong[first][owner]
        last = first - 1 + torch.zeros_like(first).index_add(0, owner, counts.long())
        # 3. Where that leaves the sequences.
        for name, tensor in _drafted(batch).items():
            tensor[sequences] = _drafted(rows)[name][last]
        batch.state.done[sequences] = rows.state.done[last]
        batch.input_ids[sequences].scatter_(1, batch.columns[sequences], batch.canvas[sequences])
        broken = torch.zeros_like(first).index_add(0, owner, report[:, 0] * counts)
        guesses = self._guess(TokenStatistics(*(field[last] for field in statistics)), positions[last])
        return torch.stack([broken, *report[last, 1:].unbind(dim=1), torch.zeros_like(guesses), guesses], dim=1)

    def _guess(self, statistics: TokenStatistics, positions: Tensor) -> Tensor:
        """Makes the drafts of the sequences from their last steps; (B,) int64, how many of each are to be verified."""
        batch, mask, sequences = self.batch, self.batch.tokens.mask, slice(len(positions))
        rows = batch.copies(torch.arange(len(positions), device=batch.device))
        verified, guesses = torch.ones_like(rows.state.done), torch.zeros_like(rows.state.forwards)
        for number in range(self.count):
            masked = rows.canvas.gather(1, positions.clamp(min=0)) == mask
            rows.state.positions = positions.masked_fill(~masked, -1)
            revealed = unmask_step(rows.canvas, statistics, rows.state, batch.config.policy, mask_token_id=mask)
            for name, tensor in _drafted(rows).items():
                batch.state.memory[name][sequences, number] = tensor
            # No draft of a finished canvas, nor of a block of which the model has said nothing.
            verified = verified & revealed.any(dim=1) & ~rows.state.done
            guesses += verified
        return guesses


def _drafted(batch: DecodingBatch) -> dict[str, Tensor]:
    """What a draft is, of every sequence of a batch."""
    state = batch.state
    return {
        "canvas": batch.canvas,
        "reveal_step": state.reveal_step,
        "forwards": state.forwards,
        "blocks": state.blocks,
    }
