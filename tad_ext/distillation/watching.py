"""How sure the student is of the entries that it is trained on, on each side: what the loss does not say.

    confidence          probability of the most probable token, by which decoding policies go
    label_probability   probability of the trajectory's token, which `tad window` draws against the distance
    entropy             of the whole distribution, in nats

Probabilities are at temperature 1 over the whole vocabulary. A step's means are over all entries of its global batch,
before the step's update. They are from forwards of their own: without dropout, so that no random number is drawn, and
without gradients. The training is the same, bit for bit, whether it is watched or not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tad_ext.distillation.objective import Objective
from tad_ext.distillation.samples import MicroBatch
from tad_ext.models.base import evaluation_mode
from tad_ext.ops import TokenStatistics, token_statistics

STATISTICS: Mapping[str, Callable[[TokenStatistics], Tensor]] = {
    "confidence": lambda statistics: statistics.confidence,
    "label_probability": lambda statistics: statistics.query_probabilities[:, 0],
    "entropy": lambda statistics: statistics.entropy,
}
_ROWS = 256  # entries whose logits exist at a time


@torch.no_grad()
def watched_sums(objective: Objective, batches: Iterable[MicroBatch], device: torch.device) -> Tensor:
    """(sides, 1 + statistics) float64: how many entries each side has in these micro-batches, and their sums."""
    sides = len(objective.sides)
    sums = torch.zeros(sides, 1 + len(STATISTICS), dtype=torch.float64, device=device)
    model = objective.diffusion_model
    with evaluation_mode(objective.modules()):
        for batch in (batch.to(device) for batch in batches):
            # Of a batch without entries, too: a model that is spread over ranks (`models.sharding`) runs on all.
            hidden = model.hidden_rows(**objective.student_inputs(batch))
            chunks = (tensor.split(_ROWS) for tensor in (hidden, batch.labels, batch.side) if len(tensor))
            for rows, labels, side in zip(*chunks, strict=True):
                statistics = token_statistics(model.lm_head(rows), query_tokens=labels[:, None])
                values = [torch.ones_like(statistics.entropy), *(of(statistics) for of in STATISTICS.values())]
                sums += one_hot(side, sides).T.double() @ torch.stack(values, dim=1).double()
    return sums


def watched_means(sides: Sequence[str], sums: Tensor) -> dict[str, dict[str, float]]:
    """`watched_sums` of a global batch as {"near": {"confidence": 0.8, ...}, ...}; of no entries there is no mean."""
    return {
        side: dict(zip(STATISTICS, (total / count for total in totals), strict=True))
        for side, (count, *totals) in zip(sides, sums.tolist(), strict=True)
        if count
    }
