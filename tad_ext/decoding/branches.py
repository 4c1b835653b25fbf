"""The canvas as a step leaves it, or with one more of its masks revealed: what the model is most certain of goes on.

A sequence's branches are its canvas, and copies of it in each of which one further mask is revealed, with the token
that the last forward has said of it: a copy for each of the masks that the forward was most certain of, by their
entropy, among those that its step has left. The next forward computes them all, a row each. The branch whose masks in
created blocks have the lowest mean entropy then goes on with an ordinary step, and branches are made of it again.

LoPA, arXiv 2512.16229, as its scripts configure it: its code can also look at the worst masks alone, or weigh in how
certain the further token was. A copy without masks is the most certain one of all, so it has no forward here. With
`stop_when="revealed"` no further token ends a response: a branch is compared by all of its masks.
"""

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, best_first, unmask_step

from .canvases import Rows, SeveralCanvases, parts


class BranchStep(SeveralCanvases):
    """One forward over the branches of sequences."""

    def choose(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The row whose masks have the lowest mean entropy, copies first where some are equal; all count."""
        seen = rows.positions >= 0
        mean = rows.statistics.entropy.double().where(seen, 0).sum(dim=1) / seen.sum(dim=1)
        place = (rows.number - 1) % (1 + self.further)
        table = mean.new_full((len(rows.first), 1 + self.further), torch.inf)
        table[rows.owner, place] = mean
        best = table.argsort(dim=1, stable=True)[:, 0]
        return rows.first + (best + 1) % (1 + self.further), torch.ones_like(rows.owner, dtype=torch.bool)

    def make(self, rows: Rows, last: Tensor) -> Tensor:
        """Makes copies of the canvases, from the most certain further token on; one that is finished counts at once."""
        batch, mask, sequences = self.batch, self.batch.tokens.mask, slice(len(last))
        token, positions = rows.statistics.token[last], rows.positions[last]
        left = (positions >= 0) & (batch.canvas[sequences].gather(1, positions.clamp(min=0)) == mask)
        for end in batch.state.eos_token_ids:
            left &= token != end
        entry = best_first(-rows.statistics.entropy[last], left)[:, : self.further]
        count = entry.shape[1]
        source = torch.arange(len(last), device=batch.device).repeat_interleave(count)
        row, entry = last[source], entry.flatten()
        # The further token belongs to the step that the canvas has taken, and may add a block if that did not.
        copies = batch.copies(source)
        copies.state.forwards, copies.state.blocks = (rows.before[name][row] for name in ("forwards", "blocks"))
        copies.state.positions = rows.positions[row, entry].where(left[source, entry], -1)[:, None]
        said = TokenStatistics(*(field[row, entry][:, None] for field in rows.statistics))
        unmask_step(copies.canvas, said, copies.state, _all, mask_token_id=mask)
        for name, tensor in parts(copies).items():
            batch.state.memory[name][sequences, :count] = tensor.unflatten(0, (len(last), count))
        finished = copies.state.done.view(len(last), count)[:, 0] & ~batch.state.done[sequences]
        for name, tensor in parts(batch).items():
            copied = batch.state.memory[name][sequences, 0]
            tensor[sequences] = torch.where(
                finished if tensor.dim() == 1 else finished[:, None], copied, tensor[sequences]
            )
        batch.state.done[sequences] |= finished
        return left.sum(dim=1).clamp(max=count) * ~batch.state.done[sequences]


def _all(statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
    """A policy that accepts what it is shown."""
    return statistics.confidence, state.eligible
