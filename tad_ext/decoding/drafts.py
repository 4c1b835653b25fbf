"""Several steps of a sequence in one forward, as far as guesses of them come true.

A sequence's drafts are what its next steps would make of the canvas if the model said the same again. A forward
computes the canvas and its drafts, a row each, and every row takes an ordinary step. Where the step of the canvas makes
the first draft of it, that draft's step is the sequence's next one, and so on. So whatever the guesses are, the steps
that count are those that would have been taken one by one, with the same random numbers. The next drafts are made of
what the model said last.

FreeDave, arXiv 2510.00294, which drafts the most confident positions of a block. Where it looks at a canvas a second
time, behind each block, what is known of it is used here.
"""

import torch
from torch import Tensor

from tad_ext.ops import TokenStatistics, unmask_step

from .canvases import Rows, SeveralCanvases, parts


class DraftStep(SeveralCanvases):
    """One forward over sequences and their drafts."""

    def choose(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The last row before the first draft that the row before has not made; those up to it count."""
        made = (rows.before["canvas"][1:] == rows.after["canvas"][:-1]).all(dim=1)
        wrong = torch.cat((rows.first.new_zeros(1), ((rows.number[1:] > 0) & ~made).long())).cumsum(dim=0)
        counts = wrong == wrong[rows.first][rows.owner]
        return rows.first - 1 + torch.zeros_like(rows.first).index_add(0, rows.owner, counts.long()), counts

    def make(self, rows: Rows, last: Tensor) -> Tensor:
        """Makes the drafts of the sequences from their last steps; how many of each are to be verified."""
        batch, mask, sequences = self.batch, self.batch.tokens.mask, slice(len(last))
        statistics, positions = TokenStatistics(*(field[last] for field in rows.statistics)), rows.positions[last]
        drafts = batch.copies(torch.arange(len(last), device=batch.device))
        verified, guesses = torch.ones_like(drafts.state.done), torch.zeros_like(drafts.state.forwards)
        for number in range(self.further):
            masked = drafts.canvas.gather(1, positions.clamp(min=0)) == mask
            drafts.state.positions = positions.masked_fill(~masked, -1)
            revealed = unmask_step(drafts.canvas, statistics, drafts.state, batch.config.policy, mask_token_id=mask)
            for name, tensor in parts(drafts).items():
                batch.state.memory[name][sequences, number] = tensor
            # No draft of a finished canvas, nor of a block of which the model has said nothing.
            verified = verified & revealed.any(dim=1) & ~drafts.state.done
            guesses += verified
        return guesses
