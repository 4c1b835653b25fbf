"""Certainty forcing (dParallel, arXiv 2509.26488): right tokens, and little doubt about those that are right already.

The loss is the mean over pairs of a canvas and its complement (`blocks`) of

    scale * (CE + CE' + entropy_weight * (H + H')),

CE the mean over a canvas's entries, and H that over those of them whose most probable token is the trajectory's, of the
entropy of softmax(logits / entropy_temperature). Primes are the complement's. A mean of nothing is 0.

A mean over what the student predicts right cannot be known before it has run; as each is taken over one canvas, which
no micro-batch cuts, the loss is the same however a global batch is cut.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tad_ext.data.trajectories.states import State
from tad_ext.distillation.blocks import BlockState
from tad_ext.distillation.objective import Objective
from tad_ext.distillation.samples import MicroBatch, Sample, mean_weights
from tad_ext.distillation.settings import CertaintySettings

MASKED, COMPLEMENT = 0, 1
CHUNK_ROWS = 512


class CertaintyObjective(Objective):
    """Cross-entropy and entropy of a block and its complement; states are `BlockState`s."""

    parts: ClassVar[dict[str, str]] = {
        "ce": "CE of masked entries, nats",
        "ce_complement": "CE of the complement's entries, nats",
        "entropy": "entropy of entries that are right, nats",
    }
    sides: ClassVar[tuple[str, ...]] = ("masked", "complement")
    certain: ClassVar[tuple[int, ...]] = (MASKED, COMPLEMENT)  #: the sides whose entropy is part of the loss
    scale: ClassVar[float] = 1.0
    settings: CertaintySettings

    def samples(self, states: Sequence[State], progress: float) -> list[Sample]:
        """Two of each state, see `Objective.samples`."""
        canvases = [canvas for state in cast("Sequence[BlockState]", states) for canvas in (state, state.complement)]
        sides = [
            np.full(np.count_nonzero(canvas.is_entry), number % 2, dtype=np.int64)
            for number, canvas in enumerate(canvases)
        ]
        weights = mean_weights(sides, len(self.sides), 2)
        return [Sample(*one) for one in zip(canvases, sides, weights, strict=True)]

    def forward(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.forward`."""
        settings, model = self.settings, self.diffusion_model
        hidden = model.hidden_rows(**self.student_inputs(batch))
        found = doubts(hidden, model.lm_head, batch.labels, settings.entropy_temperature)
        weight, complement = batch.weight.to(found.ce.dtype), batch.side == COMPLEMENT
        ce, ce_complement = ((found.ce * weight * of).sum() for of in (~complement, complement))
        # A canvas's entries all weigh the same: what its n of them weigh goes to the m that are right.
        sequences, length = batch.student.input_ids.shape
        row, none = batch.student.positions // length, weight.new_zeros(sequences)
        n, m = (none.index_add(0, row, one.to(weight.dtype)) for one in (torch.ones_like(weight), found.right))
        certain = torch.stack([batch.side == side for side in self.certain]).any(0)  # isin would wait for a GPU
        counts = found.right & certain
        entropy = (found.entropy * weight * (n / m.clamp(min=1))[row] * counts).sum()
        loss = self.scale * (ce + ce_complement + settings.entropy_weight * entropy)
        return loss, {"ce": ce, "ce_complement": ce_complement, "entropy": entropy}


class Doubts(NamedTuple):
    """Of N entries, in float32, or float64 of a model in it."""

    ce: Tensor  #: (N,) -log p(label), nats
    entropy: Tensor  #: (N,) of softmax(logits / temperature), nats
    right: Tensor  #: (N,) bool: the label is the most probable token


def doubts(hidden: Tensor, head: nn.Linear, labels: Tensor, temperature: float) -> Doubts:
    """Of rows of hidden states, (N, D), and labels, (N,) int64; differentiable by the rows and the head.

    Logits exist for `CHUNK_ROWS` rows at a time, and again in the backward pass.
    """
    chunks = [
        checkpoint(_doubts, *chunk, head, temperature, use_reentrant=False, preserve_rng_state=False)
        for chunk in zip(hidden.split(CHUNK_ROWS), labels.split(CHUNK_ROWS), strict=True)
    ]
    return Doubts(*map(torch.cat, zip(*chunks, strict=True)))


def _doubts(hidden: Tensor, labels: Tensor, head: nn.Linear, temperature: float) -> Doubts:
    logits = head(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    ce = nn.functional.cross_entropy(logits, labels, reduction="none")
    log_p = (logits / temperature).log_softmax(-1)
    return Doubts(ce, -(log_p.exp() * log_p).sum(-1), logits.argmax(-1) == labels)
